"""The real train step with fused attention, compiled by the real compilers for accelerators that are not here."""

import os
import re

import jax
import pytest

from llama_jax.config import ComputeConfig, Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training.compiled import build

pytestmark = [pytest.mark.peers, pytest.mark.slow]

LENGTH = 1024
CONFIG = Config(
    model=ModelConfig(vocab_size=2560, dim=512, num_layers=2, num_heads=8, num_kv_heads=4, ffn_dim=768, max_length=LENGTH),
    compute=ComputeConfig(remat="linear"),
    data=DataConfig(sequence_length=LENGTH), optimizer=OptimizerConfig(warmup_steps=1),
    training=TrainingConfig(num_steps=2, batch_size=8, accumulation_steps=2), mesh=MeshConfig(data=1, fsdp=2, tensor=2),
)

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84942979072 shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""An H100 as XLA describes it (its GpuTargetConfigProto)."""


def compiled(devices) -> tuple[str, str]:
    """(which attention and why, the compiled text) of the train step on four of the devices."""
    mesh = make_mesh(CONFIG.mesh, list(devices)[:4])
    program = build(CONFIG, mesh)
    with jax.set_mesh(mesh):
        text = program.train_step.lower(program.abstract_state, program.abstract_batch).compile().as_text()
    return program.attention, text


def test_splash_on_v5e(monkeypatch):
    pytest.importorskip("libtpu", reason="needs libtpu, the TPU compiler")
    from jax.experimental import topologies

    for name, value in {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0",
                        "TPU_ACCELERATOR_TYPE": "v5litepod-4", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}.items():
        monkeypatch.setitem(os.environ, name, value)
    attention, text = compiled(topologies.get_topology_desc("v5e:2x2", platform="tpu").devices)
    assert attention == "splash (the fused kernel for TPU v5 lite)"
    kernels = set(re.findall(r"splash_mha_\w+?_segmented", text))
    assert kernels == {"splash_mha_fwd_segmented", "splash_mha_dq_segmented", "splash_mha_dkv_segmented"}
    assert f"{LENGTH},{LENGTH}]" not in text


@pytest.mark.cuda
def test_cudnn_on_h100():
    pytest.importorskip("jax_cuda12_plugin", reason="needs the CUDA wheels, 4.4 GB")
    from jax.experimental import topologies

    devices = topologies.get_topology_desc("", platform="cuda", target_config=H100, topology="1x1x4").devices
    attention, text = compiled(devices)
    assert attention.startswith("cudnn (the fused kernel for ")
    assert {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"} <= set(re.findall(r"__cudnn\$fmha\w+", text))
    assert f"{LENGTH},{LENGTH}]" not in text
