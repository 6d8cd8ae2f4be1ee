"""Functions with a derivative of their own, inside another project's `shard_map` or beside explicitly sharded types."""

import jax
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def vary_alike(*arrays: Array) -> tuple[Array, ...]:
    """The arrays, all varying over the same axes of a surrounding `shard_map`; unchanged outside of one.

    jax sums the gradient of a replicated array over the devices by itself, but not where a function brings its own derivative:
    with arguments that vary alike, the sum happens before the function, where jax inserts it.
    """
    varying = [jax.typeof(x).manual_axis_type.varying for x in arrays]
    union = frozenset().union(*varying)
    missing = [tuple(sorted(union - own)) for own in varying]
    return tuple(lax.pcast(x, axes, to="varying") if axes else x for x, axes in zip(arrays, missing, strict=True))


def explicit_sharding(x: Array) -> NamedSharding | None:
    """The sharding in the type of x where its mesh has an `AxisType.Explicit`, for what has to be laid out like x; else None."""
    sharding = jax.typeof(x).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def product_sharding(x: Array, w: Array, *, contract: int) -> NamedSharding | None:
    """Sharding of x @ w (see `ops.linear`) where shardings are explicit: rows as in x, outputs as in w; else None.

    Contracted axes may be sharded: the compiler sums over them, or gathers w. A mesh axis that shards rows shards no outputs.
    """
    sharding = explicit_sharding(x)
    if sharding is None:
        return None
    rows, outputs = sharding.spec[: x.ndim - contract], jax.typeof(w).sharding.spec[contract:]
    taken = {axis for axes in rows for axis in _as_tuple(axes)}
    free = [tuple(axis for axis in _as_tuple(axes) if axis not in taken) or None for axes in outputs]
    return NamedSharding(sharding.mesh, PartitionSpec(*rows, *free))


def merged_sharding(x: Array, *, kept: int) -> NamedSharding | None:
    """Sharding of x with all but its last `kept` axes merged into one, where shardings are explicit; else None."""
    sharding = explicit_sharding(x)
    if sharding is None:
        return None
    merged = tuple(axis for axes in sharding.spec[: x.ndim - kept] for axis in _as_tuple(axes))
    return NamedSharding(sharding.mesh, PartitionSpec(merged or None, *sharding.spec[x.ndim - kept:]))


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else axes or ()


def explicit_axes(sharding: NamedSharding) -> tuple[str, ...]:
    """The axes of a sharding's mesh that are `AxisType.Explicit`."""
    kinds = zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)
