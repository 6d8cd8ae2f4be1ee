"""Collectives and matmul FLOPs are read from the text of programs of several compilers."""

import math

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from llama_jax.plan.hlo import Collective, collectives_of_program, matmul_flops_of_program


def test_collectives_of_a_loop():
    mesh = jax.make_mesh((8,), ("x",))

    def body(x):
        return jax.lax.scan(lambda c, _: (jax.lax.psum(c, "x") / 8 + 1, None), x, None, length=5)[0]

    step = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False))
    found = collectives_of_program(step.lower(np.ones(1000, np.float32)).compile().as_text())
    assert found == [Collective("all-reduce", 8, 5, 5 * 4000)]
    assert found[0].sent == 5 * 4000 * 2 * 7 / 8


@pytest.mark.parametrize("batch", [(), (3,)], ids=["plain", "batched"])
def test_flops_of_a_loop(batch):
    a, b = np.ones((*batch, 16, 32), np.float32), np.ones((*batch, 32, 32), np.float32)
    step = jax.jit(lambda a, b: jax.lax.scan(lambda a, _: (a @ b, None), a, None, length=7)[0])
    assert matmul_flops_of_program(step.lower(a, b).compile().as_text()) == 7 * math.prod(batch) * 2 * 16 * 32 * 32


def test_flops_as_a_tpu_writes_them():
    text = """ENTRY %main (p: f32[8]) -> f32[8] {
  %x = bf16[1,2048,4096]{2,1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[4096,32,128]{2,1,0} parameter(1)
  %y = f32[2048,32,128]{0,2,1:T(8,128)} convolution(%x, %w), window={size=32 pad=31_31 rhs_reversal=1}, dim_labels=bf0_i0o->b0f
  %q = bf16[32,512,128]{2,1,0} parameter(2)
  %k = bf16[32,256,128]{2,1,0} parameter(3)
  %s = f32[32,512,256]{1,2,0} convolution(%q, %k), window={size=32 stride=31 lhs_dilate=32}, dim_labels=0bf_0oi->0bf
}
"""
    assert matmul_flops_of_program(text) == pytest.approx(2 * 2048 * 4096 * 32 * 128 + 2 * 32 * 512 * 256 * 128)


def test_collectives_of_other_compilers():
    text = """HloModule step
%body (p: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %a = (bf16[512,4]{1,0}, bf16[4096,4]{1,0}) all-gather-start(%x), channel_id=1, replica_groups=[256,8]<=[2048], dimensions={0}
  %b = bf16[4096,4]{1,0:T(8,128)(2,1)S(1)} all-gather(%y), channel_id=2, replica_groups={{0,1},{2,3}}, dimensions={0}
  %c = bf16[4096,4]{1,0} all-gather(%y), channel_id=2, replica_groups={{0,1},{2,3}}, dimensions={0}
}
%condition (p: (s32[], bf16[8])) -> pred[] {
  %bound.1 = s32[]{:T(128)} constant(6)
  ROOT %lt = pred[] compare(%i, %bound.1), direction=LT
}
%fused (i: s32[]) -> pred[] {
  %bound.2 = s32[] constant(3)
  ROOT %lt.2 = pred[] compare(%i, %bound.2), direction=LT
}
%fusing (p: (s32[])) -> pred[] {
  ROOT %lt.3 = pred[] fusion(%i), kind=kLoop, calls=%fused
}
%sums (p: (s32[])) -> (s32[]) {
  %s = (f32[10]{0}, f32[10]{0}) all-reduce(%x, %y), channel_id=4, replica_groups={{0,1,2}}, to_apply=%add
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], bf16[8]) while(%t), condition=%condition, body=%body
  %v = (s32[]) while(%t), condition=%fusing, body=%sums
  %r = f32[2,3]{1,0} reduce-scatter(%g), channel_id=3, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, to_apply=%add
}
"""
    assert set(collectives_of_program(text)) == {
        Collective("all-gather", 8, 6, 6 * 4096 * 4 * 2),
        Collective("all-gather", 2, 6, 6 * 4096 * 4 * 2),  # one channel, two instructions: one collective
        Collective("reduce-scatter", 4, 1, 4 * 2 * 3 * 4),
        Collective("all-reduce", 3, 3, 3 * 2 * 10 * 4),
    }
