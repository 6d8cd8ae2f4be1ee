"""The compiled train step, beside the arithmetic."""

import jax

from llama_jax.config import ComputeConfig, Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
from llama_jax.plan.compiled import compile_train_step
from llama_jax.plan.memory import estimate_memory
from tests.plan.shipped import ONE


def small(**mesh) -> Config:
    """Two layers that every axis of eight devices divides."""
    model = ModelConfig(vocab_size=64, dim=32, num_layers=2, num_heads=4, num_kv_heads=4, ffn_dim=48, max_length=16)
    return Config(model=model, compute=ComputeConfig(attention="reference"), optimizer=OptimizerConfig(warmup_steps=1),
                  data=DataConfig(sequence_length=16), training=TrainingConfig(num_steps=10, batch_size=16),
                  mesh=MeshConfig(**mesh))


def test_arguments_of_the_compiled_step():
    mesh = {"data": 1, "fsdp": 2, "tensor": 2, "sequence": 2}
    config = small(**mesh)
    compiled = compile_train_step(config, jax.devices())
    memory = estimate_memory(config, ONE | mesh, attention="reference", kind="gpu")
    assert compiled.arguments == memory.state + memory.batch
    gathers = [found for found in compiled.collectives if found.kind == "all-gather" and found.devices > 1]
    assert sum(found.count for found in gathers) >= 2 * 2 * 7  # layers x passes x matrices
