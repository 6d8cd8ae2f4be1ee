"""Functions with a derivative of their own, inside another project's `shard_map` or beside explicitly sharded types."""

import jax
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding


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


def explicit_axes(sharding: NamedSharding) -> tuple[str, ...]:
    """The axes of a sharding's mesh that are `AxisType.Explicit`."""
    kinds = zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)
