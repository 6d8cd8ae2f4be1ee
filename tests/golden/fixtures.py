"""Small models for inference: random ones of three kinds of attention, and a real trained one."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from llama_jax.model.decoder import Transformer
from tests.golden.models import KV_HEADS, small_model
from tests.golden.small import FLOAT32
from tests.golden.stories import load_llama2c


@pytest.fixture(params=KV_HEADS)
def small(request) -> tuple[Transformer, dict]:
    return small_model(KV_HEADS[request.param])


@pytest.fixture(scope="session")
def gqa() -> tuple[Transformer, dict]:
    return small_model(2)


@pytest.fixture(scope="session")
def stories(shared_data) -> SimpleNamespace:
    """stories260K and its published greedy text."""
    folder = shared_data / "checkpoints/stories260K"
    config, params = load_llama2c(folder / "stories260K.bin")
    greedy = json.loads((folder / "greedy.json").read_text())
    return SimpleNamespace(model=Transformer(config, FLOAT32), params=jax.tree.map(jnp.asarray, params), greedy=greedy["tokens"])
