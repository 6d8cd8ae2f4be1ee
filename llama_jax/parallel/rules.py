"""The one table from logical axes to mesh axes, and `constrain`, which tells the compiler how an array is split.

Everything here also works inside another project's program: of the mesh in use only the axes named in AXES are split over, and
of these only those that jax partitions by itself (`AxisType.Auto`), not those that a `shard_map` or `pmap` around us splits by
hand, nor those whose shardings are part of array types (`AxisType.Explicit`).
"""

import math
from collections.abc import Mapping

import jax
from jax import Array
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from llama_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor", "sequence")
"""Mesh axes, in the order of the devices."""

RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "seq": "sequence",
    "stream": ("sequence", "tensor"),  # tokens of the residual stream and its norms
    "embed": ("fsdp", "sequence"),  # of parameters
    "features": None,  # the same axis of activations, whose rows and tokens these mesh axes split already
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


def axis_sizes(mesh: Mesh | AbstractMesh | Mapping[str, int]) -> dict[str, int]:
    """The axes of a mesh over which this package splits arrays, and how many devices lie along each.

    A mapping from axis to size describes a mesh of this package's own.
    """
    if isinstance(mesh, Mapping):
        return dict(mesh)
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {name: mesh.shape[name] for name, kind in kinds if name in AXES and kind == AxisType.Auto}


def mesh_in_use() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`; None where there is none, or none of whose axes splits anything for this package."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if any(size > 1 for size in axis_sizes(mesh).values()) else None


def mesh_axes(logical: str | None) -> tuple[str, ...]:
    """The mesh axes that split a logical axis, none for None."""
    return as_tuple(RULES[logical] if logical else None)


def as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One entry of a PartitionSpec or of RULES as a tuple of mesh axes."""
    return (axes,) if isinstance(axes, str) else axes or ()


def ways(logical: str | None, mesh: Mesh | AbstractMesh | Mapping[str, int]) -> int:
    """Into how many parts a mesh splits a logical axis."""
    sizes = axis_sizes(mesh)
    return math.prod(sizes.get(axis, 1) for axis in mesh_axes(logical))


def row_ways() -> int:
    """Over how many devices the mesh in use (`jax.set_mesh`) splits rows; 1 outside a mesh."""
    return ways("batch", jax.sharding.get_abstract_mesh())


def spec(*logical: str | None, among: tuple[str, ...] = AXES) -> PartitionSpec:
    """The mesh axes of an array whose axes are named `logical`, without those that are not `among` the axes of a mesh.

    Raises ConfigError where two logical axes want the same mesh axis.
    """
    parts = [tuple(axis for axis in mesh_axes(name) if axis in among) for name in logical]
    flat = [axis for part in parts for axis in part]
    for axis in flat:
        if flat.count(axis) > 1:
            both = [name for name, part in zip(logical, parts, strict=True) if axis in part]
            raise ConfigError(f"the axes {' and '.join(map(str, both))} of one array both lie on mesh.{axis}; RULES in "
                              "parallel/rules.py must give them different ones.")
    return PartitionSpec(*(part or None for part in parts))


def fitting(shape: tuple[int, ...], *logical: str | None) -> PartitionSpec:
    """As `spec`, on the mesh in use, without mesh axes that do not divide an axis of `shape`: a prompt has any length."""
    mesh = jax.sharding.get_abstract_mesh()
    names = [name if size % ways(name, mesh) == 0 else None for size, name in zip(shape, logical, strict=True)]
    return spec(*names, among=tuple(axis_sizes(mesh)))


def constrain(x: Array, *logical: str | None) -> Array:
    """Tell the compiler how x is split; without a mesh (`jax.set_mesh`), or without axes of ours in it, x is left alone."""
    mesh = jax.sharding.get_abstract_mesh()
    if not axis_sizes(mesh):
        return x
    wanted = fitting(x.shape, *logical)
    if set(mesh.axis_names) != set(AXES):  # axes of another project may split what we do not
        wanted = PartitionSpec(*(axes or PartitionSpec.UNCONSTRAINED for axes in wanted))
    return jax.lax.with_sharding_constraint(x, wanted)


def constrain_last(x: Array, logical: str, *, tokens: str = "seq") -> Array:
    """`constrain` for rows (B, T, ...) whose last axis is named; an array with other leading axes is left to the compiler."""
    return constrain(x, "batch", tokens, logical) if x.ndim == 3 else x


def named_sharding(mesh: Mesh, *logical: str | None) -> NamedSharding:
    """How an array whose axes are named `logical` lies on a mesh."""
    return NamedSharding(mesh, spec(*logical, among=tuple(mesh.axis_names)))
