"""What cleaning did to the documents, step by step: counts by reason as JSON and as a table, and examples to read."""

import glob
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from llama_jax.clean.stages import WORK
from llama_jax.clean.steps import CountedStep
from llama_jax.files.atomic import write_atomic

REPORT_FILE = "report.json"
"""File in an output folder with the counts of every step."""
_MOST_DAMAGED = 10
"""How many damaged files the table names."""


@dataclass
class StepCounts:
    """What one step of a stage did to all documents, in documents and bytes of UTF-8."""

    stage: str
    step: str
    documents_in: int = 0
    bytes_in: int = 0
    documents_out: int = 0
    bytes_out: int = 0
    dropped: dict[str, list[int]] = field(default_factory=dict)
    """Reason -> [documents, bytes]."""
    damaged: dict[str, int] = field(default_factory=dict)
    """Input file, and what is wrong with it -> number of times."""
    other: dict[str, int] = field(default_factory=dict)
    """Further counts of this step, such as removed lines."""
    seconds: float = 0.0
    """Processor time that was measured, over all tasks."""


def collect_counts(output: Path) -> list[StepCounts]:
    """The counts of every step that ran, over all finished tasks, in order."""
    folders = sorted((output / WORK / "stages").iterdir(), key=lambda folder: int(folder.name.partition("-")[0]))
    result = []
    for folder in folders:
        tasks = [json.loads(file.read_text()) for file in sorted((folder / "stats").glob("*.json"))]
        for steps in zip(*tasks, strict=True):
            if steps[0]["name"].startswith(f"{CountedStep.type}: "):
                result.append(_of_step(folder.name.partition("-")[2], steps))
    return result


def _of_step(stage: str, tasks: tuple[dict[str, Any], ...]) -> StepCounts:
    """Add what datatrove saved of one step for every task."""
    totals: Counter[str] = Counter()
    for task in tasks:
        for name, value in task["stats"].items():
            totals[name] += round(_total(value))
    counts = StepCounts(stage, tasks[0]["name"].partition(": ")[2])
    counts.seconds = round(sum(_total(task["time_stats"]) for task in tasks), 3)
    for name, total in sorted(totals.items()):
        kind, _, rest = name.partition("/")
        if kind == "dropped":
            counts.dropped[rest] = [total, totals[f"dropped_bytes/{rest}"]]
        elif kind == "damaged":
            counts.damaged[rest] = total
        elif name in ("documents_in", "bytes_in", "documents_out", "bytes_out"):
            setattr(counts, name, total)
        elif kind != "dropped_bytes":
            counts.other[name] = total
    return counts


def _total(value: float | dict[str, float]) -> float:
    """The sum of a statistic, which datatrove saves as a number where its mean is 1 or nothing was counted."""
    return value["total"] if isinstance(value, dict) else value


def write_report(output: Path, counts: list[StepCounts]) -> None:
    """Write the counts as report.json."""
    write_atomic(output / REPORT_FILE, (json.dumps([asdict(step) for step in counts], indent=1) + "\n").encode())


def counts_table(counts: list[StepCounts]) -> Table:
    """The counts as a table for the terminal: a line per step, and below it one per reason."""
    table = Table(box=None, pad_edge=False)
    table.add_column("step")
    for title in ("documents", "MB", "kept", "MB kept"):
        table.add_column(title, justify="right")
    for step in counts:
        table.add_row(Text(step.step), f"{step.documents_in:,}", f"{step.bytes_in / 1e6:,.2f}", f"{step.documents_out:,}",
                      f"{step.bytes_out / 1e6:,.2f}")
        for reason, (documents, size) in sorted(step.dropped.items(), key=lambda entry: (-entry[1][0], entry[0])):
            known_size = f"{size / 1e6:,.2f}" if size else ""  # a reader drops many before it has their text
            table.add_row(Text(f"  dropped: {reason}"), f"{documents:,}", known_size, "", "")
        for what in list(step.damaged)[:_MOST_DAMAGED]:
            table.add_row(Text(f"  {what}"))
        if len(step.damaged) > _MOST_DAMAGED:
            table.add_row(Text(f"  and {len(step.damaged) - _MOST_DAMAGED:,} more damaged files, see {REPORT_FILE}"))
        for name, number in step.other.items():
            if name != "files":
                table.add_row(Text(f"  {name.replace('_', ' ')}"), f"{number:,}", "", "", "")
    return table


def print_examples(output: Path, counts: list[StepCounts], *, number: int, console: Console) -> None:
    """Print up to `number` examples of every step and reason: the text before and after it, side by side."""
    for step in counts:
        groups: dict[str, list[dict[str, str]]] = {}
        for file in sorted((output / WORK / "examples" / step.stage).glob(f"{glob.escape(step.step)}.?????.json")):
            for example in json.loads(file.read_text()):
                group = groups.setdefault(example["reason"], [])
                if len(group) < number:
                    group.append(example)
        for reason, examples in sorted(groups.items()):
            console.print(Text(f"{step.step}: dropped, {reason}" if reason else f"{step.step}: kept", style="bold"))
            for example in examples:
                console.print(_side_by_side(example) if example["before"] else Text(f"  {example['id']}"))


def _side_by_side(example: dict[str, str]) -> Panel:
    if example["reason"] or example["before"] == example["after"]:
        return Panel(Text(example["before"]), title=Text(example["id"]), title_align="left")
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(ratio=1)
    table.add_column(ratio=1)
    table.add_row(Text(example["before"]), Text(example["after"]))
    return Panel(table, title=Text(example["id"]), title_align="left")
