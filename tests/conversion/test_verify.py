"""The comparison of two folders depends on their weights alone, not on how they were trained."""

import numpy as np
import pytest

from llama_jax.config import ComputeConfig
from llama_jax.conversion.convert import convert_weights
from llama_jax.conversion.verify import compare_logits
from llama_jax.formats.loading import load
from llama_jax.formats.open import open_source
from tests.formats.memory import MemorySource, config_of


@pytest.mark.parametrize("attention", ["cudnn", "splash", "reference"])
def test_the_backend_that_trained_is_not_inherited(tmp_path, tokenizer, attention):
    """A run of another machine is compared and loaded here: its backend could not even run."""
    source = MemorySource(config_of(), tokenizer, compute=ComputeConfig(attention=attention))
    convert_weights(source, tmp_path / "run", "orbax")
    run_folder = open_source(tmp_path / "run")
    assert run_folder.compute.attention == attention and compare_logits(source, run_folder).largest == 0
    model, params, _ = load(tmp_path / "run")
    assert model.compute.attention == "auto"
    np.testing.assert_allclose(params["embedding"], source.params["embedding"])
