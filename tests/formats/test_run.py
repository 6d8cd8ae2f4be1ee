"""Run directories as a source of weights: what is damaged in one is named, and not passed on."""

import os

import numpy as np
import pytest

from llama_jax.conversion.convert import convert_weights
from llama_jax.errors import DataError
from llama_jax.formats.open import open_source
from tests.formats.memory import MemorySource, config_of


def test_damage_to_a_run_is_named(tmp_path, folders, memory):
    convert_weights(memory, tmp_path / "run", "orbax")
    for file in (tmp_path / "run/checkpoints/0/state/d").iterdir():
        os.truncate(file, 10)
    with pytest.raises(DataError, match=r"checkpoint .*/0 cannot be read"):
        convert_weights(open_source(tmp_path / "run"), tmp_path / "out", "hf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_run_with_a_nan_is_not_passed_on(tmp_path, tokenizer):
    memory = MemorySource(config_of(), tokenizer)
    memory.params["layers"]["attention"]["wq"][1, 2, 3, 4] = np.nan
    convert_weights(memory, tmp_path / "run", "orbax")
    with pytest.raises(DataError, match=r"layers.attention.wq\[1\] in .*checkpoints/0 holds 1 value\(s\) that are NaN"):
        convert_weights(open_source(tmp_path / "run"), tmp_path / "out", "hf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
