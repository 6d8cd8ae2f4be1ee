"""Every kind that a config can name is there, and every kind that is there can be named."""

from typing import get_args, get_type_hints

import pytest

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.model.block import REMAT_POLICIES
from llama_jax.model.norms import NORMS
from llama_jax.model.positions import POSITIONS
from llama_jax.ops.attention import BACKENDS
from llama_jax.ops.feedforward import FEEDFORWARDS


@pytest.mark.parametrize("section, field, kinds", [
    (ModelConfig, "norm", {*NORMS}),
    (ModelConfig, "feedforward", {*FEEDFORWARDS}),
    (ModelConfig, "position", {*POSITIONS}),
    (ComputeConfig, "attention", {"auto", *BACKENDS}),
    (ComputeConfig, "remat", {"none", *REMAT_POLICIES}),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_field_names_the_kinds_that_are_there(section, field, kinds):
    assert set(get_args(get_type_hints(section)[field])) == kinds
