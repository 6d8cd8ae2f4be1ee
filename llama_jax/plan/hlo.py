"""Reads the HLO text of a compiled program: its collectives with the bytes they carry, its matmul FLOPs, its custom kernels.

What a loop's body does counts as often as the loop runs; the compilers' own cost estimates count it once.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_COLLECTIVE_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
          "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(_COLLECTIVE_KINDS)})(-start)?\(")
_MATMUL = re.compile(r" = \w+\[([\d,]*)\]\S* (dot|convolution)\(([^)]*)\)")
_VALUE = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = \w+\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|true_computation|false_computation|called_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")


@dataclass(frozen=True)
class Collective:
    """All collectives of one kind over groups of one size that one device takes part in during a step."""

    kind: str
    """all-gather, all-reduce, reduce-scatter, all-to-all or collective-permute."""
    devices: int
    """Devices per group."""
    count: int
    """Number of them per step."""
    bytes: int
    """Bytes of the whole arrays that are gathered or reduced, summed over the step."""

    @property
    def sent(self) -> float:
        """Bytes that one device sends in a ring: (n - 1) / n of the arrays, twice that for an all-reduce."""
        share = 1.0 if self.kind == "collective-permute" else (self.devices - 1) / self.devices
        return self.bytes * share * (2 if self.kind == "all-reduce" else 1)


def collectives_of_program(text: str) -> list[Collective]:
    """Collectives per step of a compiled program (HLO text), those with the most bytes first."""
    totals: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    seen = set()
    for instruction in _executed_instructions(text):
        line = instruction.line
        match = _COLLECTIVE.search(line)
        if not match:
            continue
        channel, devices = re.search(r"channel_id=(\d+)", line), _group_size(line)
        # the parts of one asynchronous collective are several instructions with one channel
        key = (channel[1] if channel else line.split(" = ")[0].strip(), instruction.loop)
        if key not in seen and devices > 1:
            seen.add(key)
            total = totals[match[2], devices]
            total[0] += instruction.times
            total[1] += instruction.times * _payload(match, devices)
    found = [Collective(kind, devices, count=count, bytes=size) for (kind, devices), (count, size) in totals.items()]
    return sorted(found, key=lambda collective: -collective.bytes)


def matmul_flops_of_program(text: str) -> float:
    """FLOPs per step, on one device, of the dots of a compiled program (HLO text) and of the convolutions that TPUs make of them.

    What custom calls compute is not counted, and a loop whose length is not known at compile time counts once.
    """
    total = 0.0
    for instruction in _executed_instructions(text):
        line, shapes = instruction.line, instruction.shapes
        match = _MATMUL.search(line)
        if not match:
            continue
        result = _sizes(match[1])
        left, right = (shapes.get(name, []) for name in re.findall(r"%([\w.\-]+)", match[3])[:2])
        if match[2] == "dot":
            batch_dims = re.search(r"lhs_batch_dims=\{([\d,]*)\}", line)
            batch = math.prod(left[int(n)] for n in batch_dims[1].split(",")) if batch_dims and left else 1
        else:
            dilation = re.search(r"lhs_dilate=([\dx]+)", line)
            batch = math.prod(int(n) for n in dilation[1].split("x")) if dilation else 1
        # B x M x K and B x K x N give B x M x N: the product of their sizes is B^3 (M N K)^2
        total += instruction.times * 2 * math.sqrt(math.prod(result) * math.prod(left) * math.prod(right) / batch)
    return total


def custom_calls_of_program(text: str) -> list[str]:
    """Names of the custom calls of a compiled program (HLO text), such as cuDNN's attention or a Pallas kernel."""
    return sorted(set(re.findall(r'custom_call_target="([^"]+)"', text)))


class _Instruction(NamedTuple):
    """One instruction that a step executes."""

    line: str
    times: int
    """How often a step executes it."""
    loop: str
    """The body of the innermost loop that it is in; empty outside of loops."""
    shapes: dict[str, list[int]]
    """Shapes of the values of its computation."""


def _executed_instructions(text: str) -> Iterator[_Instruction]:
    """Every instruction that a step executes, those of called computations and loop bodies included."""
    computations, entry = _computations(text)
    shapes = {name: {match[1]: _sizes(match[2]) for line in lines if (match := _VALUE.match(line))}
              for name, lines in computations.items()}

    def visit(name: str, times: int, *, loop: str) -> Iterator[_Instruction]:
        for line in computations.get(name, ()):
            yield _Instruction(line, times, loop, shapes[name])
            if " while(" in line:
                body = re.search(r"body=%?([\w.\-]+)", line)[1]
                yield from visit(body, times * _trip_count(line, computations), loop=body)
                continue
            branches = [branch.strip(" %") for names in _BRANCHES.findall(line) for branch in names.split(",")]
            for called in _CALLED.findall(line) + branches:
                yield from visit(called, times, loop=loop)

    return visit(entry, 1, loop="")


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """(lines of every computation by its name, the name of the entry computation)."""
    computations: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        match = _COMPUTATION.match(line)
        if match:
            current = computations.setdefault(match[1], [])
            if line.startswith("ENTRY"):
                entry = match[1]
        elif current is not None:
            current.append(line)
    return computations, entry


def _trip_count(line: str, computations: dict[str, list[str]]) -> int:
    """How often a while loop runs: as the compiler annotates it, else the constant its condition compares with, else 1."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    if known:
        return int(known[1])
    name = re.search(r"condition=%?([\w.\-]+)", line)[1]
    inner = [called for line in computations.get(name, ()) for called in re.findall(r"calls=%?([\w.\-]+)", line)]
    condition = "\n".join(line for part in (name, *inner) for line in computations.get(part, ()))
    bound = re.search(r" compare\(.*%([\w.\-]+)\), direction=LT", condition)
    constant = bound and re.search(rf"%{re.escape(bound[1])} = .* constant\((\d+)\)", condition)
    return int(constant[1]) if constant else 1


def _group_size(line: str) -> int:
    """Devices per group, from any of the forms in which XLA writes replica groups."""
    if "source_target_pairs" in line:
        return 2
    if match := re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line):
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", match[1])}
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part) if part else sizes[axis] for axis, part in axes)
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return match[1].count(",") + 1
    return 1


def _payload(match: re.Match, devices: int) -> int:
    """Bytes of the whole array (the larger of operand and result) of one collective.

    The type of an instruction is that of its result. For an asynchronous start it is a tuple of operand and result.
    """
    kind, asynchronous = match[2], bool(match[3])
    types = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", re.sub(r"\{[^{}]*\}", "", match[1]))
    total = sum(_BYTES.get(dtype, 1) * math.prod(_sizes(dims)) for dtype, dims in types)
    if kind in ("all-gather", "reduce-scatter"):
        if asynchronous:  # one device's part and the whole
            return total * devices // (devices + 1)
        return total * devices if kind == "reduce-scatter" else total
    if asynchronous and kind != "all-reduce":
        return total // 2
    return total


def _sizes(dims: str) -> list[int]:
    """The sizes in an HLO shape: "16,32" gives [16, 32]."""
    return [int(size) for size in dims.split(",") if size]
