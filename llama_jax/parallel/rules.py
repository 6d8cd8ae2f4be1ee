"""Sharding rules: the table from logical axes to mesh axes, and `constrain`, which tells the compiler how an array is sharded.

Everything here also works inside another project's program: arrays are sharded only over the axes of the mesh in use that AXES
names. Inside a surrounding `shard_map` or `pmap`, and on a mesh with explicit axes, nothing is sharded here at all: the compiler,
or the types of the arrays (`AxisType.Explicit`), decide.
"""

import math
from collections.abc import Mapping

import jax
from jax import Array
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from llama_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor", "sequence")
"""Names of the mesh axes, outermost first."""

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
    "positions": None,  # of learned positions
    "distances": None,  # of relative vectors
}
"""Logical axis -> mesh axes that shard it. Megatron's layout: heads, feed-forward width and vocabulary over `tensor`, and between
them the tokens of the residual stream over the same devices (Shoeybi et al. 2019; Korthikanti et al. 2022)."""


def axis_sizes(mesh: Mesh | AbstractMesh | Mapping[str, int]) -> dict[str, int]:
    """Axis -> size, for those axes of a mesh over which this package shards arrays.

    A mapping from axis to size stands for a mesh of this package and is returned as it is.
    """
    if isinstance(mesh, Mapping):
        return dict(mesh)
    if any(kind != AxisType.Auto for kind in mesh.axis_types or ()):
        return {}
    return {name: mesh.shape[name] for name in mesh.axis_names if name in AXES}


def mesh_in_use() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`; None where there is none, or where none of its axes shards anything for this package."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if any(size > 1 for size in axis_sizes(mesh).values()) else None


def mesh_axes(logical: str | None) -> tuple[str, ...]:
    """The mesh axes that shard a logical axis; empty for None."""
    return as_tuple(RULES[logical] if logical else None)


def as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """One entry of a PartitionSpec or of RULES as a tuple of mesh axes."""
    return (axes,) if isinstance(axes, str) else axes or ()


def ways(logical: str | None, mesh: Mesh | AbstractMesh | Mapping[str, int]) -> int:
    """The number of shards into which a mesh splits a logical axis."""
    sizes = axis_sizes(mesh)
    return math.prod(sizes.get(axis, 1) for axis in mesh_axes(logical))


def row_ways() -> int:
    """The number of shards into which the mesh in use (`jax.set_mesh`) splits the rows of a batch; 1 outside a mesh."""
    return ways("batch", jax.sharding.get_abstract_mesh())


def spec(*logical: str | None, among: tuple[str, ...] = AXES) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes, limited to mesh axes in `among`.

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
    """The PartitionSpec of an array on the mesh in use, where an axis of `shape` that does not divide evenly is not sharded.

    A prompt, for example, has any length.
    """
    mesh = jax.sharding.get_abstract_mesh()
    names = [name if size % ways(name, mesh) == 0 else None for size, name in zip(shape, logical, strict=True)]
    return spec(*names, among=tuple(axis_sizes(mesh)))


def constrain(x: Array, *logical: str | None) -> Array:
    """Constrain the sharding of x by its logical axes; without a mesh (`jax.set_mesh`) that has axes of ours, returns x."""
    mesh = jax.sharding.get_abstract_mesh()
    if not axis_sizes(mesh):
        return x
    wanted = fitting(x.shape, *logical)
    if set(mesh.axis_names) != set(AXES):  # axes of another project may split what we do not
        wanted = PartitionSpec(*(axes or PartitionSpec.UNCONSTRAINED for axes in wanted))
    return jax.lax.with_sharding_constraint(x, wanted)


def constrain_last(x: Array, logical: str, *, tokens: str = "seq") -> Array:
    """Constrain the sharding of rows (B, T, ...) by the logical name of their last axis; other ranks are left to the compiler."""
    return constrain(x, "batch", tokens, logical) if x.ndim == 3 else x


def named_sharding(mesh: Mesh, *logical: str | None) -> NamedSharding:
    """The NamedSharding on a mesh of an array with these logical axes."""
    return NamedSharding(mesh, spec(*logical, among=tuple(mesh.axis_names)))
