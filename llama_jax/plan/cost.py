"""Time, collectives and energy of a run, by arithmetic on a Config, a mesh and a machine."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llama_jax.config import Config
from llama_jax.model.accounting import (
    attention_flops_per_token,
    head_parameters,
    layer_matrices,
    train_flops_per_token,
)
from llama_jax.ops.attention import is_fused
from llama_jax.parallel.rules import ways
from llama_jax.plan.fleet import Fleet
from llama_jax.plan.hlo import Collective
from llama_jax.plan.memory import (
    Sizes,
    bytes_per_number,
    gathered_layer_parameters,
    layer_activations,
    micro_rows,
    parameters_per_device,
)

PUE = 1.1
"""Power usage effectiveness of section 6 of the paper."""

TONNES_PER_MWH = 0.385
"""Tonnes of CO2 equivalent per MWh: the average of the United States (section 6)."""


@dataclass(frozen=True)
class Cost:
    """The predicted time of one train step, its parts, and what the whole run costs."""

    compute: float
    """Seconds in matmuls, recomputed ones included, at the share of the peak that a large matmul reaches."""
    memory: float
    """Seconds of memory traffic that no matmul hides: elementwise work, unfused scores, weights, the optimizer."""
    hidden: float
    """Seconds in collectives over data, fsdp and sequence, which XLA overlaps with the layers."""
    exposed: float
    """Seconds in collectives over tensor, which the next matmul waits for."""
    tokens: int
    """Tokens per step."""
    model_flops: float
    """Model FLOPs per step, recomputation not counted."""
    steps: int
    fleet: Fleet
    peak: float
    """Peak FLOP/s of the whole fleet in the compute dtype."""

    @property
    def seconds(self) -> float:
        """Seconds per step: kernels one after the other, overlapped collectives hidden under them as far as they reach."""
        return max(self.compute + self.memory, self.hidden) + self.exposed

    @property
    def bound(self) -> str:
        """The largest part of the step, which to improve first: compute, memory or network."""
        network = self.exposed + max(0.0, self.hidden - self.compute - self.memory)
        parts = {"compute": self.compute, "memory": self.memory, "network": network}
        return max(parts, key=parts.get)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of the whole fleet."""
        return self.tokens / self.seconds

    @property
    def mfu(self) -> float:
        """Model FLOP/s over the peak of the data sheet (model FLOPs utilization)."""
        return self.model_flops / self.seconds / self.peak

    @property
    def energy(self) -> "Energy":
        """Energy of the whole run."""
        return energy(self.steps * self.seconds / 3600 * self.fleet.count, self.fleet.machine.watts)


@dataclass(frozen=True)
class Energy:
    """Energy and emissions of a run by the formula of section 6 and Table 15; None where no power draw is published."""

    device_hours: float
    megawatt_hours: float | None
    tonnes: float | None
    """Tonnes of CO2 equivalent."""


def energy(device_hours: float, watts: float | None) -> Energy:
    """Wh = hours x W x PUE; tCO2eq = MWh x 0.385."""
    megawatt_hours = None if watts is None else device_hours * watts * PUE / 1e6
    return Energy(device_hours, megawatt_hours, None if watts is None else megawatt_hours * TONNES_PER_MWH)


def days(tokens: float, tokens_per_second: float) -> float:
    """Days that a number of tokens takes."""
    return tokens / tokens_per_second / 86_400


def hardware_flops_per_token(config: Config) -> float:
    """Model FLOPs, and those that the rematerialisation policy computes again: the whole forward pass, or its attention alone."""
    model = train_flops_per_token(config.model, config.data.sequence_length)
    attention = attention_flops_per_token(config.model, config.data.sequence_length)
    head = 2.0 * head_parameters(config.model)
    recomputed = {"none": 0.0, "linear": attention, "offload": attention, "full": model / 3 - head}
    return model + recomputed[config.compute.remat]


def matmul_flops(config: Config, devices: int) -> float:
    """FLOPs of one device's step in matmuls with parameters, recomputed ones included: what is left without attention."""
    c, T = config.model, config.data.sequence_length
    passes = 4 / 3 if config.compute.remat == "full" else 1.0
    head = 6.0 * head_parameters(c)
    layers = train_flops_per_token(c, T) - 3.0 * attention_flops_per_token(c, T) - head
    return (layers * passes + head) * config.training.batch_size * T / devices


def traffic(config: Config, mesh: Sizes, *, attention: str) -> float:
    """Bytes that one device's memory moves in a step besides what matmuls hide.

    Activations: each tensor of a block is written and read about once forward and once backward. Scores, where attention is
    not fused: 12 bytes each forward (float32 out and in, weights out and in), again where it is recomputed, 26 backward.
    """
    c, t, remat = config.model, config.training, config.compute.remat
    rows, T = micro_rows(config, mesh), config.data.sequence_length
    activations = c.num_layers * layer_activations(config, mesh, remat="none") * (4 if remat == "none" else 5)
    scores = rows * T * T / 2 / ways("seq", mesh) * c.num_heads / ways("heads", mesh) * c.num_layers
    scores *= 0 if is_fused(attention) else 38 if remat == "none" else 50
    weights = c.num_layers * gathered_layer_parameters(c, mesh) * (2 * bytes_per_number(config) + 3 * 4)
    return t.accumulation_steps * (activations + scores + weights) + 36.0 * parameters_per_device(c, mesh)


def collectives(config: Config, mesh: Sizes) -> list[tuple[str, Collective]]:
    """(mesh axes, collective) of one step on one device, as the layout asks for them.

    fsdp: each layer's matrices are gathered forward and backward and its float32 gradients scattered, in every micro-batch; the
    head once. data: the gradients' shards are summed. tensor: a block ends in two sums forward and two backward; where the
    tokens of the residual stream lie over `tensor`, each of them is a scatter and a gather.
    """
    c, size, times = config.model, bytes_per_number(config), config.training.accumulation_steps
    shards, copies, tensor = ways("embed", mesh), mesh["data"], mesh["tensor"]
    matrices = len(layer_matrices(c)) * c.num_layers
    head, layers = head_parameters(c) // ways("vocab", mesh), c.num_layers * gathered_layer_parameters(c, mesh)
    found = [
        ("fsdp", Collective("all-gather", shards, times * (2 * matrices + 1), times * size * (2 * layers + head))),
        ("fsdp", Collective("reduce-scatter", shards, times * (matrices + 1), times * 4 * (layers + head))),
        ("data", Collective("all-reduce", copies, times * matrices, times * 4 * parameters_per_device(c, mesh))),
    ]
    block = micro_rows(config, mesh) * config.data.sequence_length // ways("seq", mesh) * c.dim * size
    sums = times * c.num_layers * (5 if config.compute.remat == "full" else 4)
    if ways("stream", mesh) > ways("seq", mesh):
        gathers = sums + 2 * times * c.num_layers
        found += [("tensor", Collective("reduce-scatter", tensor, sums, sums * block)),
                  ("tensor", Collective("all-gather", tensor, gathers, gathers * block))]
    else:
        found += [("tensor", Collective("all-reduce", tensor, sums, sums * block))]
    return [(axis, collective) for axis, collective in [*found, *_sequence_collectives(config, mesh)] if collective.devices > 1]


def _sequence_collectives(config: Config, mesh: Sizes) -> list[tuple[str, Collective]]:
    """Keys and values of whole rows, gathered forward, recomputed and backward, and their gradients scattered."""
    c, devices, passes = config.model, ways("seq", mesh), config.training.accumulation_steps * config.model.num_layers
    keys_and_values = 2 * c.num_kv_heads * c.head_size // ways("kv_heads", mesh)
    whole = micro_rows(config, mesh) * config.data.sequence_length * keys_and_values * bytes_per_number(config)
    return [("sequence", Collective("all-gather", devices, 6 * passes, 3 * passes * whole)),
            ("sequence", Collective("reduce-scatter", devices, 2 * passes, passes * whole))]


def seconds_of(axis: str, collective: Collective, *, mesh: Sizes, fleet: Fleet) -> float:
    """Seconds one device spends on a collective over a mesh axis.

    GPUs: what crosses hosts goes through the network cards of the group's members in a host, all of it through NVLink.
    TPUs: an axis is a ring over one side of the torus, the largest axis has the sides that are left.
    """
    machine = fleet.machine
    if machine.kind == "tpu":
        active = sum(size > 1 for size in mesh.values())
        largest = mesh[axis] == max(mesh.values())
        sides = max(1, machine.dimensions - active + 1) if largest else 1
        return collective.sent / (machine.link_bandwidth * sides / machine.dimensions)
    inner = math.prod(size for name, size in mesh.items() if list(mesh).index(name) > list(mesh).index(axis))
    together = max(1, min(collective.devices, machine.link_devices // inner))
    hosts = collective.devices // together
    seconds = collective.sent / machine.link_bandwidth if together > 1 else 0.0
    if hosts > 1:
        passes = 2 if collective.kind == "all-reduce" else 1
        crossing = collective.bytes * passes * (hosts - 1) / hosts
        seconds = max(seconds, crossing / (together * machine.network_bandwidth))
    return seconds


def predict_cost(config: Config, mesh: Sizes, *, fleet: Fleet, attention: str) -> Cost:
    """The predicted cost of a config on a mesh of a fleet; `attention` is the name of the backend."""
    machine, c = fleet.machine, config.model
    peak = machine.bfloat16_flops if config.compute.dtype == "bfloat16" else machine.float32_flops
    tokens = config.training.batch_size * config.data.sequence_length
    network = list(_network(config, mesh, fleet=fleet))
    return Cost(
        compute=hardware_flops_per_token(config) * tokens / fleet.count / (peak * machine.matmul_share),
        memory=traffic(config, mesh, attention=attention) / machine.memory_bandwidth,
        hidden=sum(seconds for axis, seconds in network if axis != "tensor"),
        exposed=sum(seconds for axis, seconds in network if axis == "tensor"),
        tokens=tokens, model_flops=train_flops_per_token(c, config.data.sequence_length) * tokens,
        steps=config.training.num_steps, fleet=fleet, peak=peak * fleet.count,
    )


def _network(config: Config, mesh: Sizes, *, fleet: Fleet) -> Iterator[tuple[str, float]]:
    for axis, collective in collectives(config, mesh):
        yield axis, seconds_of(axis, collective, mesh=mesh, fleet=fleet)
