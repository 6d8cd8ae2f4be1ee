"""The plan: arithmetic against hand-derived numbers, the model's own shapes, the paper's figures and a compiled step."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from llama_jax import __main__ as door
from llama_jax.cli import plan as command
from llama_jax.cli.parsing import apply_overrides, split_overrides
from llama_jax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
from llama_jax.config.file import load_config
from llama_jax.config.presets import PRESETS
from llama_jax.errors import ConfigError
from llama_jax.model.accounting import parameter_count
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.hardware import peak_flops
from llama_jax.parallel.rules import AXES
from llama_jax.plan import compiled as compiling
from llama_jax.plan.compiled import CompiledStep, compile_train_step
from llama_jax.plan.cost import days, energy
from llama_jax.plan.fleet import Fleet, parse_machine, torus_shape
from llama_jax.plan.hlo import Collective, collectives_of_program, matmul_flops_of_program
from llama_jax.plan.layouts import configured, fastest, largest_micro_batch, layouts, micro_batches, settle
from llama_jax.plan.machines import MACHINES
from llama_jax.plan.memory import Memory, estimate, layer_activations, parameters
from llama_jax.plan.topologies import gpu_target_config, topology_name

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("configs/*.py"))
ONE = dict.fromkeys(AXES, 1)


def small(**mesh) -> Config:
    """Two layers that every axis of eight devices divides."""
    model = ModelConfig(vocab_size=64, dim=32, num_layers=2, num_heads=4, num_kv_heads=4, ffn_dim=48, max_length=16,
                        attention="reference")
    return Config(model=model, optimizer=OptimizerConfig(warmup_steps=1), data=DataConfig(sequence_length=16),
                  training=TrainingConfig(num_steps=10, batch_size=16), mesh=MeshConfig(**mesh))


def load(name: str) -> Config:
    return load_config(ROOT / f"configs/{name}.py")


def run(*arguments) -> int:
    return door.main(["plan", *(str(argument) for argument in arguments)])


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_the_models(name):
    model = Transformer(PRESETS[name])
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
    assert sorted((leaf.value.shape, tuple(leaf.names)) for leaf in leaves) == sorted(parameters(model.config))
    assert sum(math.prod(shape) for shape, _ in parameters(model.config)) == parameter_count(model.config)


def test_memory_by_hand():
    config = load("7b")
    norms = (2 * 32 + 1) * 4096
    memory = estimate(config, ONE | {"fsdp": 8}, attention="cudnn", kind="gpu")
    assert memory.weights == 4 * ((6_738_415_616 - norms) // 8 + norms)
    assert memory.moments == 2 * memory.weights + 12  # three counters of the optimizer and the step
    assert memory.batch == 5 * 4 * 2048 // 8 * 2048
    one_row = replace(config, training=replace(config.training, accumulation_steps=256))
    kept = {remat: layer_activations(one_row, ONE | {"fsdp": 8}, remat) for remat in ("full", "linear")}
    assert kept == {"full": 2048 * 4096 * 2, "linear": 2048 * 2 * (5 * 4096 + 2 * 11_008)}
    halves = layer_activations(one_row, ONE | {"fsdp": 8, "tensor": 2}, "linear")
    assert halves == kept["linear"] // 2  # heads, width and the tokens of the stream all lie over tensor
    assert memory.total == memory.state + memory.gradients + memory.activations + memory.workspace + memory.batch


@pytest.mark.parametrize("hours, megawatt_hours, tonnes", [
    (82_432, 36, 14), (135_168, 59, 23), (530_432, 233, 90), (1_022_362, 449, 173)])
def test_energy_is_table_15(hours, megawatt_hours, tonnes):
    taken = energy(hours, 400)
    assert taken.megawatt_hours == pytest.approx(megawatt_hours, abs=0.9)  # the paper cuts 449.8 to 449
    assert round(taken.tonnes) == tonnes


def test_days_of_the_paper():
    assert days(1.4e12, 380 * 2048) == pytest.approx(21, abs=0.3)
    assert pytest.approx(days(1.4e12, 380 * 2048), rel=0.01) == 1_022_362 / 2048 / 24
    planned = configured(load("65b"), parse_machine("a100-80g:2048"))
    assert 300 < planned.cost.tokens_per_second / 2048 < 600  # the paper's 380 is what was reached


def test_arguments_of_the_compiled_step():
    mesh = {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2}
    config = small(**mesh)
    compiled = compile_train_step(config, jax.devices())
    memory = estimate(config, ONE | mesh, attention="reference", kind="gpu")
    assert compiled.arguments == memory.state + memory.batch
    gathers = [found for found in compiled.collectives if found.kind == "all-gather" and found.devices > 1]
    assert sum(found.count for found in gathers) >= 2 * 2 * 7  # layers x passes x matrices


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


@pytest.mark.parametrize("text, name, count, topology", [
    ("h100:8", "h100", 8, "1x1x8"), ("A100-80G:2048", "a100-80g", 2048, "1x256x8"), ("v4:1024", "v4", 1024, "v4:8x8x16"),
    ("v4-2048", "v4", 1024, "v4:8x8x16"), ("v5litepod-256", "v5e", 256, "v5e:16x16"), ("v5p:4", "v5p", 4, "v5p:2x2x1")])
def test_machines(text, name, count, topology):
    fleet = parse_machine(text)
    assert (fleet.machine.name, fleet.count, topology_name(fleet)) == (name, count, topology)


@pytest.mark.parametrize("text, sentence", [
    ("h101:8", "unknown machine 'h101'; did you mean h100"), ("h100", "wants NAME:COUNT"),
    ("h100:12", "whole number of hosts of 8"),
    ("v5e:512", "at most 256"), ("v4:3", "no TPU v4 slice of 3 chips"), ("v4-7", "positive multiple of 2")])
def test_machines_that_are_not(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_machine(text)


def test_every_machine_is_whole():
    for name, machine in MACHINES.items():
        assert machine.name == name and machine.source and 0 < machine.usable < machine.memory
        if machine.kind == "gpu":
            assert f"device_memory_size: {machine.memory}" in gpu_target_config(machine)
        else:
            assert math.prod(torus_shape(Fleet(machine, 64))) == 64


def test_search_finds_the_fastest_that_fits():
    config, fleet = load("7b"), parse_machine("h100:8")
    best = fastest(config, fleet)
    others = [other for choice in layouts(config, fleet) for other in micro_batches(choice)]
    assert best.fits and len(others) > 50
    assert best.cost.seconds == min(other.cost.seconds for other in others if other.fits)
    assert any(not other.fits for other in others)
    largest = largest_micro_batch(best)
    t = largest.config.training
    assert largest.fits and largest.micro_batch >= best.micro_batch
    double = replace(largest.config, training=replace(t, accumulation_steps=t.accumulation_steps // 2))
    assert not configured(double, fleet).fits


def test_settles_on_smaller_micro_batches_first():
    config, fleet = load("7b"), parse_machine("h100:8")
    choice = settle(config, fleet, search=False)
    assert not configured(config, fleet).fits and choice.fits
    assert choice.config.model.remat == "linear" and choice.mesh == ONE | {"fsdp": 8}


def test_command(tmp_path, capsys):
    file = tmp_path / "plan.json"
    assert run("--config", ROOT / "configs/65b.py", "--machine", "a100-80g:2048", "--search", "--json", file) == 0
    out, figures = capsys.readouterr().out, json.loads(file.read_text())
    assert "65,285,660,672 parameters" in out and "fits: " in out and figures["fits"]
    assert figures["cost"]["tokens"] == 333_787 * 2048 * 2048
    assert figures["memory"]["total"] == sum(figures["memory"][name] for name in Memory.__dataclass_fields__)
    typed = figures["command"].split()
    assert typed[:5] == ["python", "-m", "llama_jax", "train", "--config"]
    config = apply_overrides(load("65b"), typed[6:])
    again = configured(config, parse_machine("a100-80g:2048"))
    assert again.memory.total == figures["memory"]["total"]


def test_command_takes_overrides(capsys):
    config = ROOT / "configs/7b.py"
    assert run("--config", config, "--training.batch_size", 512, "--machine", "h100:64", "--model.remat=full") == 0
    out = capsys.readouterr().out
    assert "remat full" in out and "--training.batch_size 512 --model.remat=full" in out
    assert split_overrides(["--config", "a.py", "--data.sources", "x", "y", "--search"]) == (
        ["--config", "a.py", "--search"], ["--data.sources", "x", "y"])


def test_what_cannot_fit_is_told_with_what_would(capsys):
    assert run("--config", ROOT / "configs/65b.py", "--machine", "h100:8") == 0
    out = capsys.readouterr().out
    assert "DOES NOT FIT" in out and "it would fit on h100:" in out


@pytest.mark.parametrize("arguments, sentence", [
    ("--machine h101:8", "unknown machine"), ("--machine h100:8 --mesh.fsdp 3", "does not fill 8 device"),
    ("--machine v4:1024 --mesh.tensor 64", "model.num_heads = 32 does not divide by mesh.tensor = 64"),
    ("--machine h100:8 --mesh.tenser 2", "did you mean mesh.tensor"),
    ("--machine h100:8 --training.batch_size 12", "does not divide over")])
def test_bad_input(arguments, sentence, capsys):
    assert run("--config", ROOT / "configs/7b.py", *arguments.split()) == 2
    assert sentence in capsys.readouterr().err


def test_missing_compiler_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    for machine, extra in (("v5e:4", "plan-tpu"), ("h100:8", "plan-gpu")):
        assert run("--config", ROOT / "configs/7b.py", "--machine", machine, "--compile") == 2
        assert f'pip install "llama_jax[{extra}]"' in capsys.readouterr().err


def test_smaller_micro_batches_where_the_compiler_refuses(monkeypatch, tmp_path, capsys):
    file, asked = tmp_path / "plan.json", []

    def compile_for_fleet(config, fleet):
        asked.append(config.training.accumulation_steps)
        refusal = "Ran out of memory on HBM" if len(asked) == 1 else ""
        return CompiledStep(arguments=10**10, temporaries=0, peak=0 if refusal else 2 * 10**10, collectives=(), matmul_flops=1e15,
                        kernels=(), seconds=1.0, cpu_seconds=1.0, host_memory=10**9, refusal=refusal)

    monkeypatch.setattr(command, "compile_for_fleet", compile_for_fleet)
    monkeypatch.setattr(command, "check_compiler_installed", lambda fleet: None)
    assert run("--config", ROOT / "configs/7b.py", "--machine", "h100:8", "--compile", "--json", file) == 0
    figures, out = json.loads(file.read_text()), capsys.readouterr().out
    assert asked == [64, 128] and figures["layout"]["accumulation_steps"] == 128 and figures["refused_micro_batches"] == [4]
    assert "fits: the compiler needs 20.0 GB" in out and "refused micro-batches of 4" in out
    assert "--training.accumulation_steps 128" in out


def test_a_machine_is_what_its_table_says_whatever_its_name():
    assert {name: machine.capability for name, machine in MACHINES.items()} == {
        "a100-40g": "8.0", "a100-80g": "8.0", "h100": "9.0", "h200": "9.0", "b200": "10.0", "v4": "", "v5e": "", "v5p": "",
        "v6e": ""}
    for machine in MACHINES.values():
        renamed = replace(machine, name="x-" + machine.name)
        assert renamed.capability == machine.capability and (machine.kind == "gpu") == bool(machine.cuda)
        if machine.kind == "gpu":
            assert gpu_target_config(renamed) == gpu_target_config(machine)
            assert f"major: {machine.capability.split('.')[0]} " in gpu_target_config(machine)


@pytest.mark.parametrize("name, device_kind", [(name, machine.title) for name, machine in MACHINES.items()] + [
    ("v5e", "TPU v5 lite"), ("v5p", "TPU v5"), ("v6e", "TPU v6 lite")])
def test_a_plan_and_a_run_divide_by_the_same_peak(name, device_kind):
    assert MACHINES[name].bfloat16_flops == peak_flops(SimpleNamespace(device_kind=device_kind), "bfloat16")[0]
