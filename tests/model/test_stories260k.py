"""A real trained checkpoint prints its published greedy text, token for token, from whole contexts without a cache."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.model.decoder import Transformer
from tests.golden.small import FLOAT32
from tests.golden.stories import load_llama2c


@pytest.mark.parametrize("attention", ["reference", "chunked"])
def test_greedy_text(shared_data, attention):
    """Causality makes one pass over the whole text the same as one pass a token."""
    folder = shared_data / "checkpoints/stories260K"
    config, params = load_llama2c(folder / "stories260K.bin")
    ids = np.array(json.loads((folder / "greedy.json").read_text())["tokens"])
    logits_BTV = Transformer(config, replace(FLOAT32, attention=attention)).apply({"params": params}, jnp.asarray(ids[None, :-1]))
    np.testing.assert_array_equal(np.asarray(logits_BTV[0].argmax(-1)), ids[1:])
