"""A small random model with LLaMA's tokenizer, and the same saved as a run directory."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, ModelConfig, TrainingConfig
from llama_jax.evaluation.answers import Answerer
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.model.decoder import Transformer
from llama_jax.tokenizer.base import Tokenizer
from tests.golden.small import FLOAT32, random_params


def save_run(folder: Path, config: ModelConfig, params: dict, tokenizer: Tokenizer, step: int = 1) -> Path:
    """A run directory as train.py leaves it, as far as loading goes."""
    checkpoints = Checkpoints(folder / "checkpoints", CheckpointConfig())
    whole = Config(model=config, compute=ComputeConfig(dtype="float32"), data=DataConfig(sequence_length=64),
                   training=TrainingConfig(num_steps=5000))
    checkpoints.save(step, {"params": jax.tree.map(jnp.asarray, params)}, config=whole)
    checkpoints.close()
    tokenizer.save(folder)
    return folder


def small_config(vocab_size: int, **fields) -> ModelConfig:
    return ModelConfig(**{"vocab_size": vocab_size, "dim": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 48,
                          "max_length": 256, **fields})


@pytest.fixture(scope="session")
def small_run(tokenizer, tmp_path_factory) -> SimpleNamespace:
    """512 pieces, context 256: the model as Answerer and as a folder."""
    config = small_config(tokenizer.vocab_size)
    params = random_params(config, 0)
    folder = save_run(tmp_path_factory.mktemp("runs") / "small", config, params, tokenizer)
    return SimpleNamespace(folder=folder, 
                           answerer=Answerer(Transformer(config, FLOAT32), jax.tree.map(jnp.asarray, params), tokenizer))


@pytest.fixture(scope="session")
def eval_data(shared_data) -> Path:
    """Slices of the official files."""
    return shared_data / "eval"
