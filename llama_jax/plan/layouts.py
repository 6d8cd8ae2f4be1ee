"""The choice of mesh, micro-batch and rematerialisation policy: the configured one, the nearest one, or the fastest that fits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp

from llama_jax.config import Config, MeshConfig
from llama_jax.errors import ConfigError
from llama_jax.model.positions import described_by_position
from llama_jax.ops.attention import choose
from llama_jax.ops.spec import AttentionSpec, described_by_training
from llama_jax.parallel.attention import is_sliced
from llama_jax.parallel.mesh import abstract_mesh, check_batch, check_length, check_model, mesh_shape
from llama_jax.parallel.rules import AXES
from llama_jax.plan.cost import Cost, predict_cost
from llama_jax.plan.fleet import Fleet, torus_shape
from llama_jax.plan.machines import MACHINES, Machine
from llama_jax.plan.memory import Memory, Sizes, estimate_memory

SEARCHED = ("none", "linear", "full")
"""Rematerialisation policies that the search tries; offload is slower than linear where linear fits, and is left to the user."""

MARGIN = 1.05
"""Memory beyond the arithmetic's that must be free; compilers have needed 8% less to 8% more than it says (docs/PLANS.md)."""


@dataclass(frozen=True)
class LayoutChoice:
    """One way to run a config on a fleet of devices, with its memory and cost; its mesh has no -1."""

    config: Config
    fleet: Fleet
    attention: str
    """Attention backend."""
    memory: Memory
    cost: Cost

    @property
    def mesh(self) -> Sizes:
        """Mesh axis -> devices."""
        return {axis: getattr(self.config.mesh, axis) for axis in AXES}

    @property
    def fits(self) -> bool:
        """Whether the arithmetic says that it fits, with MARGIN to spare."""
        return self.memory.total * MARGIN <= self.fleet.machine.usable

    @property
    def micro_batch(self) -> int:
        """Sequences of one micro-batch on one device."""
        t = self.config.training
        return t.batch_size // t.accumulation_steps // (self.config.mesh.data * self.config.mesh.fsdp)


def configured_layout(config: Config, fleet: Fleet) -> LayoutChoice:
    """The layout that the config describes; raises ConfigError where its mesh does not fit the devices or the shapes."""
    sizes = dict(zip(AXES, mesh_shape(config.mesh, fleet.count), strict=True))
    check_layout(config, sizes)
    config = replace(config, mesh=MeshConfig(**sizes))
    attention, _ = attention_of(config, sizes, machine=fleet.machine)
    memory = estimate_memory(config, sizes, attention=attention, kind=fleet.machine.kind)
    return LayoutChoice(config, fleet, attention, memory, predict_cost(config, sizes, fleet=fleet, attention=attention))


def check_layout(config: Config, sizes: Sizes) -> None:
    """Raise the ConfigError that training would raise for a mesh of these sizes."""
    mesh = abstract_mesh(sizes)
    check_model(config.model, mesh)
    check_batch(config.training.batch_size, config.training.accumulation_steps, mesh=mesh)
    check_length(config.data.sequence_length, mesh)


class DescribedDevice(NamedTuple):
    """The properties of a device that decide its attention backend, for a device that is not here."""

    platform: str
    device_kind: str
    compute_capability: str | None


def attention_of(config: Config, sizes: Sizes, *, machine: Machine) -> tuple[str, str]:
    """The attention backend of a step on that machine, and why; raises ConfigError where the one asked for cannot serve."""
    c = config.model
    device = DescribedDevice("cuda" if machine.kind == "gpu" else "tpu", machine.title, machine.capability or None)
    mesh = abstract_mesh(sizes)
    described = described_by_training(config.training.separate_documents) | described_by_position(c)
    return choose(config.compute.attention, AttentionSpec(
        device=device, length=config.data.sequence_length, head_dim=c.head_size, dtype=jnp.dtype(config.compute.dtype),
        described=described, sliced=is_sliced(c.num_heads, c.num_kv_heads, mesh=mesh)))


def micro_batch_choices(choice: LayoutChoice) -> list[LayoutChoice]:
    """All choices with the same mesh and policy, one per number of accumulation steps, the largest micro-batch first."""
    t = choice.config.training
    ways = choice.config.mesh.data * choice.config.mesh.fsdp
    counts = [n for n in range(1, t.batch_size // ways + 1) if t.batch_size % (n * ways) == 0]
    return [configured_layout(replace(choice.config, training=replace(t, accumulation_steps=n)), choice.fleet) for n in counts]


def one_sequence(choice: LayoutChoice) -> LayoutChoice:
    """The choice with one sequence per micro-batch and device, which needs the least memory on its mesh under its policy."""
    t, mesh = choice.config.training, choice.config.mesh
    training = replace(t, accumulation_steps=t.batch_size // (mesh.data * mesh.fsdp))
    return configured_layout(replace(choice.config, training=training), choice.fleet)


def largest_micro_batch(choice: LayoutChoice) -> LayoutChoice | None:
    """The choice with the largest micro-batch that fits; None where not even the smallest does."""
    return next((other for other in micro_batch_choices(choice) if other.fits), None)


def fastest_layout(config: Config, fleet: Fleet) -> LayoutChoice | None:
    """The fastest of all meshes x micro-batches x rematerialisation policies that fits; None where none does."""
    choices = [other for choice in layouts(config, fleet) for other in micro_batch_choices(choice) if other.fits]
    return min(choices, key=lambda choice: (choice.cost.seconds, choice.memory.total), default=None)


def layouts(config: Config, fleet: Fleet) -> Iterator[LayoutChoice]:
    """Every mesh that the shapes allow with every rematerialisation policy, without gradient accumulation.

    The tensor and sequence axes stay where the links are fast: inside a host of GPUs, within 16 TPU chips.
    """
    inner = fleet.machine.link_devices if fleet.machine.kind == "gpu" else 16
    powers = [2**n for n in range(fleet.count.bit_length()) if fleet.count % 2**n == 0]
    training = replace(config.training, accumulation_steps=1)
    for tensor, sequence, data in product(powers, powers, powers):
        if tensor * sequence > inner or fleet.count % (tensor * sequence * data):
            continue
        mesh = MeshConfig(data=data, fsdp=fleet.count // (tensor * sequence * data), tensor=tensor, sequence=sequence)
        for remat in SEARCHED:
            try:
                compute = replace(config.compute, remat=remat)
                yield configured_layout(replace(config, mesh=mesh, training=training, compute=compute), fleet)
            except ConfigError:
                break  # the shapes refuse this mesh


def settle_layout(config: Config, fleet: Fleet, *, search: bool) -> LayoutChoice:
    """The layout to plan: the configured one where it fits, else with smaller micro-batches, else the fastest that fits.

    With `search` the fastest in any case. Where nothing fits, the one that needs the least memory (its `fits` is False).
    """
    if search:
        found = fastest_layout(config, fleet)
        return found or leanest_layout(config, fleet)
    choice = configured_layout(config, fleet)
    if choice.fits:
        return choice
    return largest_micro_batch(choice) or fastest_layout(config, fleet) or leanest_layout(config, fleet)


def leanest_layout(config: Config, fleet: Fleet) -> LayoutChoice:
    """The choice that needs the least memory; raises ConfigError where the shapes allow no mesh at all."""
    choices = [one_sequence(choice) for choice in layouts(config, fleet)]
    if not choices:
        raise ConfigError(f"no mesh of {fleet.count} devices divides the model's heads, widths and the batch of "
                          f"{config.training.batch_size} sequences; change the number of devices or --training.batch_size.")
    return min(choices, key=lambda choice: choice.memory.total)


def smallest_fleets(config: Config, fleet: Fleet) -> list[Fleet]:
    """The smallest fleets on which the config fits: more of this machine, or as many of another."""
    found = []
    for name in (fleet.machine.name, *(name for name in MACHINES if name != fleet.machine.name)):
        counts = [fleet.count * 2**n for n in range(12)] if name == fleet.machine.name else [fleet.count]
        for count in counts:
            other = Fleet(MACHINES[name], count)
            try:
                if other.machine.kind == "tpu":
                    torus_shape(other)  # raises ConfigError for a number of chips that no slice has
                if any(one_sequence(choice).fits for choice in layouts(config, other)):
                    found.append(other)
                    break
            except ConfigError:
                break
    return found
