"""The device mesh of a run, and checks that a model and its batches divide over it."""

import math
from collections.abc import Mapping

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh

from llama_jax.config import MeshConfig, ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.parallel.rules import AXES, mesh_axes, ways


def mesh_shape(config: MeshConfig, count: int) -> tuple[int, ...]:
    """Sizes of the mesh axes AXES on `count` devices, with -1 resolved; raises ConfigError where their product is not `count`."""
    sizes = [getattr(config, axis) for axis in AXES]
    known = abs(math.prod(sizes))
    if -1 in sizes and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    if math.prod(sizes) != count:
        asked = " x ".join(f"{axis} {getattr(config, axis)}" for axis in AXES)
        raise ConfigError(f"the mesh {asked} does not fill {count} device(s); set "
                          f"{', '.join(f'--mesh.{axis}' for axis in AXES)} so that they multiply to it (one may be -1).")
    return tuple(sizes)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Make a mesh with the axes AXES over `devices` (default: all); raises ConfigError where sizes do not multiply to that."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(mesh_shape(config, len(devices)), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def abstract_mesh(sizes: Mapping[str, int]) -> AbstractMesh:
    """The mesh with these sizes of its axes, axis -> devices, for devices that need not be here."""
    return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def check_model(config: ModelConfig, mesh: Mesh | AbstractMesh) -> None:
    """Raise ConfigError where an axis of the parameters does not divide by the mesh axes that split it."""
    fields = {"num_heads": "heads", "num_kv_heads": "kv_heads", "ffn_dim": "mlp", "vocab_size": "vocab", "dim": "embed"}
    for name, logical in fields.items():
        _check_divides(f"model.{name}", getattr(config, name), logical=logical, mesh=mesh)


def check_batch(batch_size: int, accumulation_steps: int, *, mesh: Mesh | AbstractMesh) -> None:
    """Raise ConfigError where a micro-batch does not divide over the devices that split rows."""
    rows = batch_size // accumulation_steps
    if rows % ways("batch", mesh):
        raise ConfigError(f"a micro-batch of {rows} sequences (training.batch_size {batch_size} / "
                          f"training.accumulation_steps {accumulation_steps}) does not divide over "
                          f"mesh.data x mesh.fsdp = {ways('batch', mesh)}.")


def check_length(length: int, mesh: Mesh | AbstractMesh) -> None:
    """Raise ConfigError where the tokens of a row do not divide over the devices that split the residual stream."""
    _check_divides("data.sequence_length", length, logical="stream", mesh=mesh)


def _check_divides(name: str, size: int, *, logical: str, mesh: Mesh | AbstractMesh) -> None:
    axes = [axis for axis in mesh_axes(logical) if mesh.shape[axis] > 1] or mesh_axes(logical)[:1]
    if size % ways(logical, mesh):
        product = " x ".join(f"mesh.{axis}" for axis in axes)
        raise ConfigError(f"{name} = {size} does not divide by {product} = {ways(logical, mesh)}; choose a {product} that "
                          "divides it.")
