"""Description of a model's parameters (names, shapes, logical axes), read from the modules' own `init`.

All code that counts, shards, decays, quantizes or stores parameters takes it from here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.model.decoder import Transformer
from llama_jax.model.initializers import Described, descriptions
from llama_jax.parallel.rules import named_sharding

LAYERS = "layers"
"""Name under which the tree holds the blocks' parameters, stacked over layers, and the logical axis of that stack."""


@dataclass(frozen=True)
class Leaf:
    """Description of one parameter array, which is stacked over layers where every layer has one."""

    shape: tuple[int, ...]
    """Shape, with the axis over layers first where it is stacked."""
    axes: tuple[str, ...]
    """Logical axes (`parallel.rules.RULES`), one per dimension."""
    inputs: int
    """Number of leading axes (not counting layers) that a matrix product contracts; 0 for embeddings and norms."""

    @property
    def stacked(self) -> bool:
        """Whether the parameter exists once per layer, so that its first axis is over layers."""
        return self.axes[0] == LAYERS

    @property
    def size(self) -> int:
        """The number of elements, over all layers."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether it is a weight matrix; only matrices are decayed and quantized to int8."""
        return self.inputs > 0

    @property
    def is_embedding(self) -> bool:
        """Whether it is an embedding table, whose rows are looked up by token id."""
        return not self.is_matrix and "vocab" in self.axes

    @property
    def of_layer(self) -> "Leaf":
        """The description of one layer's slice; of the parameter itself where it is not stacked."""
        return Leaf(self.shape[1:], self.axes[1:], self.inputs) if self.stacked else self

    @property
    def outputs(self) -> tuple[tuple[int, str], ...]:
        """(size, logical axis) of each axis that a product with one layer's matrix produces."""
        layer = self.of_layer
        return tuple(zip(layer.shape, layer.axes, strict=True))[self.inputs:]


@lru_cache(maxsize=256)
def parameters(config: ModelConfig) -> dict[str, Leaf]:
    """Describe every parameter of a model, by dotted name in the order of the tree; nothing is computed or allocated."""
    def init(key):
        return Transformer(config).init(key, jnp.zeros((1, 2), jnp.int32))["params"]

    with descriptions():
        described = jax.eval_shape(init, jax.random.key(0))
    leaves = jax.tree.flatten_with_path(described, is_leaf=lambda leaf: isinstance(leaf, Described))[0]
    return {name_of(path): Leaf(leaf.value.shape, tuple(leaf.names), leaf.inputs) for path, leaf in leaves}


def name_of(path: tuple[Any, ...]) -> str:
    """Turn jax's path to a leaf of a tree into a dotted name."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def unflatten(values: dict[str, Any]) -> Any:
    """Turn values by dotted name into the nested dict that flax uses."""
    return traverse_util.unflatten_dict(values, sep=".")


def shardings_of(config: ModelConfig, mesh: Mesh, *, tree: Any) -> Any:
    """NamedShardings of a tree that holds a model's parameters, or arrays shaped like them such as an optimizer's moments.

    A leaf whose name ends with a parameter's name is sharded like that parameter; all others are replicated.
    """
    places = {f".{name}": named_sharding(mesh, *leaf.axes) for name, leaf in parameters(config).items()}
    whole = NamedSharding(mesh, PartitionSpec())

    def place(path: tuple[Any, ...], _: Any) -> NamedSharding:
        name = f".{name_of(path)}"
        return next((sharding for end, sharding in places.items() if name.endswith(end)), whole)

    return jax.tree.map_with_path(place, tree)


def abstract_tree(config: ModelConfig, mesh: Mesh, *, dtype: DTypeLike = jnp.float32) -> Any:
    """ShapeDtypeStructs of the parameters in `dtype`, with their shardings on a mesh."""
    return unflatten({name: jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=named_sharding(mesh, *leaf.axes))
                      for name, leaf in parameters(config).items()})


def decay_mask(config: ModelConfig) -> Callable[[Any], Any]:
    """Return (params) -> tree of bools that says which are decayed: all matrices, and no embedding or norm (as in GPT-3)."""
    leaves = parameters(config)

    def is_decayed(path: tuple[Any, ...], _: Any) -> bool:
        name = name_of(path)
        if name not in leaves:
            raise ConfigError(f"the model has no parameter {name}, so whether weight decay shrinks it is not known; give "
                              "make_optimizer a mask of your own (decayed=).")
        return leaves[name].is_matrix

    return partial(jax.tree.map_with_path, is_decayed)


def unboxed(config: ModelConfig, params: Any) -> Any:
    """A model's parameter tree without flax's metadata boxes; raises ConfigError where names or shapes are not the model's."""
    params = nn.meta.unbox(params)
    check_params(config, params)
    return params


def check_params(config: ModelConfig, params: Any) -> None:
    """Raise ConfigError where names or shapes of `params` are not the model's: a stack short of a layer would run unnoticed."""
    given = {name_of(path): tuple(jnp.shape(x)) for path, x in jax.tree.flatten_with_path(params)[0]}
    wanted = {name: leaf.shape for name, leaf in parameters(config).items()}
    if given != wanted:
        name = min(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
        raise ConfigError(f"these are not the model's parameters: {name or 'the whole'} should be {wanted.get(name, 'absent')} "
                          f"and is {given.get(name, 'absent')}; give the tree that `load` returns, or init's under \"params\".")
