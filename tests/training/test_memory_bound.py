"""A run that can never fit is refused in a sentence, and one that may fit is not."""

import pytest

from llama_jax.config import Config, DataConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainingConfig
from llama_jax.errors import ConfigError
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training import memory_bound
from llama_jax.training.memory_bound import check_memory

MOST = 2**31 - 2
SMALL = ModelConfig(dim=64, num_heads=2, num_kv_heads=2, num_layers=1, ffn_dim=64, vocab_size=100)


@pytest.mark.parametrize("fields", [
    {"dim": MOST, "num_heads": 1, "num_kv_heads": 1}, {"num_layers": MOST}, {"vocab_size": MOST}, {"ffn_dim": MOST},
    {"head_dim": MOST}, {"num_heads": 2**30, "num_kv_heads": 2**30, "head_dim": 2},
])
def test_parameters_that_no_machine_holds(fields):
    with pytest.raises(ConfigError, match=r"parameters with their optimizer state need at least .* GiB on each device"):
        check_memory(Config(model=ModelConfig(**fields)), make_mesh(MeshConfig()))


def test_batches_that_no_machine_holds():
    config = Config(model=SMALL, training=TrainingConfig(batch_size=MOST))
    with pytest.raises(ConfigError, match="batches of 2,147,483,646 x 2,048 tokens need at least"):
        check_memory(config, make_mesh(MeshConfig()))


def test_the_bound_counts_parameters_and_moments_by_shard(monkeypatch):
    """4 bytes a parameter and 8 for its moments, or 4 in bfloat16, divided among the devices that share them."""
    count = memory_bound.parameter_count(SMALL)
    data = DataConfig(sequence_length=2)
    for moments, mesh, needed in (("float32", MeshConfig(), 12 * count), ("bfloat16", MeshConfig(), 8 * count),
                                  ("float32", MeshConfig(data=1, fsdp=8), 12 * count // 8)):
        config = Config(model=SMALL, data=data, optimizer=OptimizerConfig(moment_dtype=moments))
        monkeypatch.setattr(memory_bound, "_host_bytes", lambda needed=needed: 8 * needed)
        check_memory(config, make_mesh(mesh))
        monkeypatch.setattr(memory_bound, "_host_bytes", lambda needed=needed: 8 * (needed - 1))
        with pytest.raises(ConfigError):
            check_memory(config, make_mesh(mesh))
