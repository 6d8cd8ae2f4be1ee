"""Models of every architecture that `ModelConfig` can name: all pairs of its choices, and the path of presets."""

from collections.abc import Iterable
from dataclasses import fields, replace
from functools import cache
from itertools import combinations, product
from typing import Literal, get_args, get_origin

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import ModelConfig
from llama_jax.config.model import RopeScaling
from llama_jax.config.presets import VANILLA, path_to_llama
from llama_jax.errors import ConfigError
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import parameters, unflatten
from tests.golden.small import FLOAT32

SMALL = {"vocab_size": 64, "dim": 32, "num_layers": 2, "num_heads": 4, "ffn_dim": 48, "max_length": 128}

CHOICES = {
    **{field.name: get_args(field.type) for field in fields(ModelConfig) if get_origin(field.type) is Literal},
    "use_bias": (False, True),
    "tied_embeddings": (False, True),
    "num_kv_heads": (4, 2, 1),
    "rope_scaling": tuple(RopeScaling(kind, factor=4.0, original_length=16) if kind != "none" else RopeScaling()
                          for kind in get_args(RopeScaling.__annotations__["kind"])),
    "rope_chunk": (3000, 5),
    "relative_clip": (16, 3),
}
"""Every field that chooses a part of the architecture -> its values."""



@cache
def fits_together(position: str, **fields_of_position) -> bool:
    """Whether a model may have these values together: the fields of one position encoding are refused beside another."""
    try:
        ModelConfig(position=position, **fields_of_position)
    except ConfigError:
        return False
    return True


def covering(choices: dict[str, tuple]) -> list[dict]:
    """Combinations of values in which every two values of different fields, where they fit together, meet at least once.

    Greedy: each combination in turn is one in which the most pairs meet that have not met before.
    """
    rows = [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]
    of_position = [name for name in choices if name.startswith(("position", "rope", "relative"))]
    rows = [row for row in rows if fits_together(**{name: row[name] for name in of_position})]
    np.random.default_rng(0).shuffle(rows)  # of combinations that are equally good, not always the first: more values meet
    holds = np.stack([[row[name] == value for row in rows] for name, values in choices.items() for value in values], axis=1)
    meets = np.stack([holds[:, i] & holds[:, j] for i, j in combinations(range(holds.shape[1]), 2)], axis=1)
    missing, chosen = meets.any(0), []
    while missing.any():
        best = int(meets[:, missing].sum(1).argmax())
        chosen.append(rows[best])
        missing &= ~meets[best]
    return chosen


def name_of(choices: dict) -> str:
    """What differs from LLaMA with four kv heads, as the name of a test."""
    llama = ModelConfig(num_heads=4, num_kv_heads=4)
    words = {"use_bias": "bias", "tied_embeddings": "tied", "num_kv_heads": f"kv{choices['num_kv_heads']}",
             "rope_scaling": choices["rope_scaling"].kind, "rope_chunk": f"chunk{choices['rope_chunk']}",
             "relative_clip": f"clip{choices['relative_clip']}"}
    return "-".join(words.get(name, value) for name, value in choices.items() if value != getattr(llama, name))


PATH = path_to_llama(replace(VANILLA, **SMALL | {"ffn_dim": 72}, num_kv_heads=4))
OTHER = "shaw+tied+kv2"
CASES = {
    **{name_of(choices): ModelConfig(**SMALL, **choices) for choices in covering(CHOICES)},
    **PATH,
    OTHER: replace(PATH["vanilla"], position="shaw", relative_clip=3, tied_embeddings=True, num_kv_heads=2),
}
"""Name -> model: all pairs of choices, the path from the Transformer of 2017 to LLaMA, and one that shares no part with LLaMA."""


def some_cases() -> list[str]:
    """A few cases that together have every value of every choice, but not all pairs; greedy as `covering` is."""
    values = {name: {(field, getattr(config, field)) for field in CHOICES} for name, config in CASES.items()}
    chosen = [OTHER]
    missing = set().union(*values.values()) - values[OTHER]
    while missing:
        chosen.append(max(CASES, key=lambda name: len(missing & values[name])))
        missing -= values[chosen[-1]]
    return chosen


def of_each(names: Iterable[str], *, fast: Iterable[str]) -> pytest.MarkDecorator:
    """Run a test with each of these cases; those that are not `fast` where slow tests run."""
    fast = set(fast)
    return pytest.mark.parametrize("name", [name if name in fast else pytest.param(name, marks=pytest.mark.slow)
                                            for name in names])


all_cases = of_each(CASES, fast=CASES)
"""For tests that compute next to nothing."""
some_fast = of_each(CASES, fast=some_cases())
"""For tests that compute op by op."""
other_fast = of_each(dict.fromkeys([*some_cases(), *PATH]), fast=[OTHER])
"""For tests that compile much."""


@cache
def model_of(name: str) -> tuple[Transformer, dict]:
    """The model of a case in float32, and random parameters of which every one matters: biases and norms too, and attention."""
    rng, config = np.random.default_rng(0), CASES[name]

    def values(path: str, leaf) -> np.ndarray:
        around = 1.0 if path.endswith("scale") else 0.0
        return (around + rng.standard_normal(leaf.shape) * (0.25 if leaf.is_matrix else 0.3)).astype(np.float32)

    tree = {path: jnp.asarray(values(path, leaf)) for path, leaf in parameters(config).items()}
    return Transformer(config, FLOAT32), unflatten(tree)
