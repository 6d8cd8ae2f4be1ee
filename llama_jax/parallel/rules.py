"""The one table from logical axes to mesh axes, and `constrain`, which tells the compiler how an array is split."""

import math

import jax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor", "sequence")

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "seq": "sequence",
    "stream": ("sequence", "tensor"),  # tokens of the residual stream and its norms
    "embed": ("fsdp", "sequence"),  # of parameters
    "features": None,  # the same axis of activations, whose rows and tokens these axes split already
    "heads": "tensor",
    "kv_heads": "tensor",
    "exchanged_heads": ("tensor", "sequence"),  # while attention sees whole rows
    "head_dim": None,
    "mlp": "tensor",
    "vocab": "tensor",
    "layers": None,
}
"""Logical axis -> mesh axes. Megatron's layout: heads, feed-forward width and vocabulary over `tensor`, and between them
the tokens of the residual stream over the same devices (Shoeybi et al. 2019; Korthikanti et al. 2022)."""


def mesh_axes(logical: str | None) -> tuple[str, ...]:
    """The mesh axes that split a logical axis, none for None."""
    return as_tuple(RULES[logical] if logical else None)


def as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One entry of a PartitionSpec or of RULES as a tuple of mesh axes."""
    return (axes,) if isinstance(axes, str) else axes or ()


def ways(logical: str | None, mesh) -> int:
    """Into how many parts a mesh (real or abstract) splits a logical axis."""
    return math.prod(mesh.shape[axis] for axis in mesh_axes(logical))


def row_ways() -> int:
    """Over how many devices the mesh in use (`jax.set_mesh`) splits rows; 1 outside a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else ways("batch", mesh)


def spec(*logical: str | None) -> PartitionSpec:
    """The mesh axes of an array whose axes are named `logical`; raises ConfigError where two want the same mesh axis."""
    parts = [mesh_axes(name) for name in logical]
    flat = [axis for part in parts for axis in part]
    for axis in flat:
        if flat.count(axis) > 1:
            both = [name for name, part in zip(logical, parts, strict=True) if axis in part]
            raise ConfigError(f"the axes {' and '.join(map(str, both))} of one array both lie on mesh.{axis}; RULES in "
                              "sharding.py must give them different ones.")
    return PartitionSpec(*(part or None for part in parts))


def fitting(shape: tuple[int, ...], *logical: str | None) -> PartitionSpec:
    """As `spec`, on the mesh in use, without what does not divide an axis of `shape`: a prompt has any length."""
    mesh = jax.sharding.get_abstract_mesh()
    names = [name if size % ways(name, mesh) == 0 else None for size, name in zip(shape, logical, strict=True)]
    return spec(*names)


def constrain(x: Array, *logical: str | None) -> Array:
    """Tell the compiler how x is split; nothing outside a mesh (`jax.set_mesh`)."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, fitting(x.shape, *logical))


def shardings(boxed, mesh: Mesh):
    """NamedShardings of a tree whose parameters carry their logical axes (flax's LogicallyPartitioned)."""
    def one(leaf) -> NamedSharding:
        names = leaf.names if isinstance(leaf, nn.LogicallyPartitioned) else ()
        return NamedSharding(mesh, spec(*names))

    return jax.tree.map(one, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned))
