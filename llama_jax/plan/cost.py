"""Time, collectives and energy of a run, by arithmetic on a Config, a mesh and a machine."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llama_jax.config import Config
from llama_jax.model.accounting import train_flops_per_token
from llama_jax.ops.attention import FUSED
from llama_jax.plan.fleet import Fleet
from llama_jax.plan.hlo import Collective
from llama_jax.plan.memory import Sizes, layer_activations, layer_count, micro_rows, shard_count, split

PUE = 1.1
"""Power usage effectiveness of section 6 of the paper."""

TONNES_PER_MWH = 0.385
"""tCO2eq a MWh, section 6: the average of the United States."""


@dataclass(frozen=True)
class Cost:
    """Predicted seconds of one step, what they consist of, and what the run then costs."""

    compute: float
    """Matmuls, recomputed ones included, at the share of the peak that a large matmul reaches."""
    memory: float
    """Traffic of device memory that no matmul hides: elementwise work, unfused scores, weights, the optimizer."""
    hidden: float
    """Collectives over data, fsdp and sequence, which XLA overlaps with the layers."""
    exposed: float
    """Collectives over tensor, which the next matmul waits for."""
    tokens: int
    """Of a step."""
    model_flops: float
    """Of a step, without recomputation."""
    steps: int
    fleet: Fleet
    peak: float
    """FLOP/s of the whole fleet in the model's dtype."""

    @property
    def seconds(self) -> float:
        """Of a step: kernels one after the other, under them or beyond them the overlapped collectives."""
        return max(self.compute + self.memory, self.hidden) + self.exposed

    @property
    def bound(self) -> str:
        """What to improve first: compute, memory or network."""
        network = self.exposed + max(0.0, self.hidden - self.compute - self.memory)
        parts = {"compute": self.compute, "memory": self.memory, "network": network}
        return max(parts, key=parts.get)

    @property
    def tokens_per_second(self) -> float:
        """Of the whole fleet."""
        return self.tokens / self.seconds

    @property
    def mfu(self) -> float:
        """Model FLOP/s over the data sheet's."""
        return self.model_flops / self.seconds / self.peak

    @property
    def energy(self) -> "Energy":
        """Of the whole run."""
        return energy(self.steps * self.seconds / 3600 * self.fleet.count, self.fleet.machine.watts)


@dataclass(frozen=True)
class Energy:
    """What a run takes by the formula of section 6 and Table 15; None where no power is published."""

    device_hours: float
    megawatt_hours: float | None
    tonnes: float | None
    """tCO2eq."""


def energy(device_hours: float, watts: float | None) -> Energy:
    """Wh = hours x W x PUE; tCO2eq = MWh x 0.385."""
    megawatt_hours = None if watts is None else device_hours * watts * PUE / 1e6
    return Energy(device_hours, megawatt_hours, None if watts is None else megawatt_hours * TONNES_PER_MWH)


def days(tokens: float, tokens_per_second: float) -> float:
    """Days to see `tokens`."""
    return tokens / tokens_per_second / 86_400


def hardware_flops_per_token(config: Config) -> float:
    """Model FLOPs and what the remat policy computes again: the whole forward pass, or its attention alone."""
    c, T = config.model, config.data.sequence_length
    model = train_flops_per_token(c, T)
    attention = 2.0 * c.num_layers * T * c.num_heads * c.head_size
    head = 2.0 * c.dim * c.vocab_size
    return model + {"none": 0.0, "linear": attention, "offload": attention, "full": model / 3 - head}[c.remat]


def matmul_flops(config: Config, devices: int) -> float:
    """FLOPs of one device's step in matmuls with parameters, recomputed ones included: what is left without attention."""
    c, T = config.model, config.data.sequence_length
    passes = 4 / 3 if c.remat == "full" else 1.0
    attention = 6.0 * c.num_layers * T * c.num_heads * c.head_size
    head = 6.0 * c.dim * c.vocab_size
    layers = train_flops_per_token(c, T) - attention - head
    return (layers * passes + head) * config.training.batch_size * T / devices


def traffic(config: Config, mesh: Sizes, attention: str) -> float:
    """Bytes that one device's memory moves in a step besides what matmuls hide.

    Activations: each tensor of a block is written and read about once forward and once backward. Scores, where attention is
    not fused: 12 bytes each forward (float32 out and in, weights out and in), again where it is recomputed, 26 backward.
    """
    c, t = config.model, config.training
    size = 2 if c.dtype == "bfloat16" else 4
    rows, T = micro_rows(config, mesh), config.data.sequence_length
    activations = c.num_layers * layer_activations(config, mesh, "none") * (4 if c.remat == "none" else 5)
    scores = rows * T * T / 2 / split("seq", mesh) * c.num_heads / split("heads", mesh) * c.num_layers
    scores *= 0 if attention in FUSED else 38 if c.remat == "none" else 50
    weights = c.num_layers * layer_count(c, mesh) * (2 * size + 3 * 4)
    return t.accumulation_steps * (activations + scores + weights) + 36.0 * shard_count(c, mesh)


def collectives(config: Config, mesh: Sizes) -> list[tuple[str, Collective]]:
    """(mesh axes, collective) of one step on one device, as the layout asks for them.

    fsdp: each layer's weights are gathered forward and backward, its float32 gradients scattered, every micro-batch; the head
    once. data: the gradients' shards are summed. tensor: a block ends in two sums forward and two backward; where the tokens
    of the residual stream lie over `tensor`, each is a scatter and a gather.
    """
    c, t = config.model, config.training
    size, times, T = 2 if c.dtype == "bfloat16" else 4, t.accumulation_steps, config.data.sequence_length
    shards, copies, ways = split("embed", mesh), mesh["data"], mesh["tensor"]
    head, layers = c.dim * c.vocab_size // split("vocab", mesh), c.num_layers * layer_count(c, mesh)
    block = micro_rows(config, mesh) * T // split("seq", mesh) * c.dim * size
    found = [
        ("fsdp", Collective("all-gather", shards, times * (14 * c.num_layers + 1), times * size * (2 * layers + head))),
        ("fsdp", Collective("reduce-scatter", shards, times * (7 * c.num_layers + 1), times * 4 * (layers + head))),
        ("data", Collective("all-reduce", copies, times * 7 * c.num_layers, times * 4 * shard_count(c, mesh))),
    ]
    again = 1 if c.remat == "full" else 0
    if split("stream", mesh) // split("seq", mesh) > 1:
        sums = times * c.num_layers * (4 + again)
        found += [("tensor", Collective("reduce-scatter", ways, sums, sums * block)),
                  ("tensor", Collective("all-gather", ways, sums + 2 * times * c.num_layers,
                                        (sums + 2 * times * c.num_layers) * block))]
    else:
        sums = times * c.num_layers * (4 + again)
        found += [("tensor", Collective("all-reduce", ways, sums, sums * block))]
    if split("seq", mesh) > 1:  # keys and values of the whole row, forward, recomputed and backward
        whole = micro_rows(config, mesh) * T * 2 * c.num_kv_heads * c.head_size // split("kv_heads", mesh) * size
        found += [("sequence", Collective("all-gather", split("seq", mesh), 6 * times * c.num_layers,
                                          3 * times * c.num_layers * whole)),
                  ("sequence", Collective("reduce-scatter", split("seq", mesh), 2 * times * c.num_layers,
                                          times * c.num_layers * whole))]
    return [(axis, collective) for axis, collective in found if collective.devices > 1]


def seconds_of(axis: str, collective: Collective, mesh: Sizes, fleet: Fleet) -> float:
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


def cost(config: Config, mesh: Sizes, fleet: Fleet, attention: str) -> Cost:
    """The prediction; `attention` is the backend that runs."""
    machine, c = fleet.machine, config.model
    peak = machine.bfloat16_flops if c.dtype == "bfloat16" else machine.float32_flops
    tokens = config.training.batch_size * config.data.sequence_length
    network = list(_network(config, mesh, fleet))
    return Cost(
        compute=hardware_flops_per_token(config) * tokens / fleet.count / (peak * machine.matmul_share),
        memory=traffic(config, mesh, attention) / machine.memory_bandwidth,
        hidden=sum(seconds for axis, seconds in network if axis != "tensor"),
        exposed=sum(seconds for axis, seconds in network if axis == "tensor"),
        tokens=tokens, model_flops=train_flops_per_token(c, config.data.sequence_length) * tokens,
        steps=config.training.num_steps, fleet=fleet, peak=peak * fleet.count,
    )


def _network(config: Config, mesh: Sizes, fleet: Fleet) -> Iterator[tuple[str, float]]:
    for axis, collective in collectives(config, mesh):
        yield axis, seconds_of(axis, collective, mesh, fleet)
