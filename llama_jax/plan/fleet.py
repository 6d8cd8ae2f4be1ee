"""A fleet: a number of identical accelerators, as `--machine NAME:COUNT` names it, and the torus that a TPU slice forms."""

import math
import re
from dataclasses import dataclass
from itertools import combinations_with_replacement

from llama_jax.errors import ConfigError, nearest
from llama_jax.plan.machines import MACHINE_ALIASES, MACHINES, Machine


@dataclass(frozen=True)
class Fleet:
    """A number of identical accelerators that one run takes."""

    machine: Machine
    count: int
    """Devices as jax counts them: GPUs, or TPU chips."""

    @property
    def title(self) -> str:
        """Count and name for the terminal, with the cloud's own name where that counts cores."""
        m = self.machine
        if m.cores_per_chip > 1:
            return f"{self.count:,} {m.title} chips ({m.name}-{self.count * m.cores_per_chip} where the cloud counts cores)"
        return f"{self.count:,} {m.title}"

    @property
    def hosts(self) -> int:
        """Number of hosts that the devices are in."""
        return -(-self.count // self.machine.chips_per_host)


def parse_machine(text: str) -> Fleet:
    """The fleet that `--machine` names.

    Args:
        text: NAME:COUNT, where COUNT is in devices as jax counts them (GPUs, TPU chips), or a TPU slice as its cloud names it,
            such as v4-2048, which counts cores.

    Raises:
        ConfigError: the name is unknown, or there is no fleet of this size.
    """
    known = f"known machines: {', '.join(MACHINES)}"
    match = re.fullmatch(r"(.+?)(:|-)(\d+)", text.strip().lower())
    separator = match[2] if match else ""
    if not match or (separator == "-" and not re.fullmatch(r"v\d.*", match[1])):
        raise ConfigError(f"--machine wants NAME:COUNT, such as h100:8 or v4:1024, got {text!r}; {known}.")
    name, count = MACHINE_ALIASES.get(match[1], match[1]), int(match[3])
    if name not in MACHINES:
        raise ConfigError(f"unknown machine {match[1]!r}{nearest(match[1], MACHINES)} ({known})".rstrip(".") + ".")
    machine = MACHINES[name]
    cores = machine.cores_per_chip if separator == "-" else 1
    if count < 1 or count % cores:
        raise ConfigError(f"--machine {text}: the count must be a positive multiple of {cores}.")
    fleet = Fleet(machine, count // cores)
    _check_fleet(fleet)
    return fleet


def _check_fleet(fleet: Fleet) -> None:
    """Raise ConfigError where no TPU slice has so many chips, or the GPUs do not fill whole hosts."""
    machine = fleet.machine
    if machine.kind == "tpu":
        torus_shape(fleet)
    elif fleet.count > machine.chips_per_host and fleet.count % machine.chips_per_host:
        raise ConfigError(f"--machine {machine.name}:{fleet.count}: {fleet.count} is not a whole number of hosts of "
                          f"{machine.chips_per_host}.")


def torus_shape(fleet: Fleet) -> tuple[int, ...]:
    """Chips along each side of a TPU slice's torus: of the shapes with this many chips the one with the most even sides.

    Sides are 1, 2 or multiples of 4; v5e and v6e have two of them, v4 and v5p three. Raises ConfigError where no slice has so
    many chips.
    """
    machine, count = fleet.machine, fleet.count
    sides = [side for side in (1, 2, *range(4, 129, 4)) if count % side == 0]
    shapes = [shape for shape in combinations_with_replacement(sides, machine.dimensions) if math.prod(shape) == count]
    if machine.dimensions == 3:  # the only flat slices are those of one host
        shapes = [shape for shape in shapes if shape[0] > 1 or shape in ((1, 1, 1), (1, 2, 2))]
    if count > machine.link_devices or not shapes:
        raise ConfigError(f"there is no {machine.title} slice of {count:,} chips: at most {machine.link_devices:,}, in a "
                          f"torus of {machine.dimensions} sides that are 1, 2 or multiples of 4.")
    best = min(shapes, key=lambda shape: max(shape) / min(shape))
    if best[0] == 1:  # a flat slice is called 2x2x1, not 1x2x2
        return best[::-1]
    return best
