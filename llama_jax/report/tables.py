"""A report as tables of text: the paper's with the user's row, every normalisation, breakdowns, and what was asked."""

from dataclasses import dataclass, field
from typing import Any

from llama_jax.evaluation.results import estimate_of
from llama_jax.evaluation.statistics import NORMALISATIONS
from llama_jax.evaluation.task import Estimate
from llama_jax.report.published import TABLES, Column, Table
from llama_jax.terminal import compact

DASH = "–"


@dataclass
class Grid:
    """One table; its first column is text, the others are numbers."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    own: set[int] = field(default_factory=set)
    """Rows that are the user's."""
    notes: list[str] = field(default_factory=list)


def grids(report: dict[str, Any]) -> list[Grid]:
    """All of them that have something to say."""
    found = [paper_grid(table, report) for table in TABLES if any(estimate(column, report) for column in table.columns)]
    extra = [other_grid(report), normalisation_grid(report), *breakdown_grids(report), asked_grid(report)]
    return [*found, *(grid for grid in extra if grid.rows)]


def number(value: Estimate, scale: float = 100.0, decimals: int = 1) -> str:
    """A value with its standard error."""
    figures = [value.value] if value.stderr is None else [value.value, value.stderr]
    return " ± ".join(compact(figure * scale, f".{decimals}f") for figure in figures)


def estimate(column: Column, report: dict[str, Any]) -> Estimate | None:
    """What fills a column of a paper's table; "tag=value" as metric is the headline's part of that value."""
    task = report["tasks"].get(column.task)
    if task is None:
        return None
    tag, _, value = column.metric.partition("=")
    numbers = task["by"].get(tag, {}).get(value, {}) if value else task["numbers"]
    found = numbers.get(task["metric"] if value or not column.metric else column.metric)
    return estimate_of(found) if found else None


def published_grid(table: Table) -> Grid:
    """A table of the paper as it is there."""
    grid = Grid(f"Table {table.number}. {table.caption}", ["", *(column.title for column in table.columns)])
    starred = table.starred
    for name, values in table.rows:
        cells = [DASH if value is None else f"{value:,.{table.decimals}f}" for value in values]
        stars = ["*" if (name, column.title) in starred else "" for column in table.columns]
        grid.rows.append([name, *(cell + star for cell, star in zip(cells, stars, strict=True))])
    grid.notes += [table.note] if table.note else []
    return turned(grid) if table.models_across else grid


def turned(grid: Grid) -> Grid:
    """The same with its rows as columns."""
    header, *rows = map(list, zip(grid.header, *grid.rows, strict=True))
    return Grid(grid.title, header, rows, notes=grid.notes)


def paper_grid(table: Table, report: dict[str, Any]) -> Grid:
    """Published rows, then the user's; one column more where models are columns."""
    grid = published_grid(table)
    own = [estimate(column, report) for column in table.columns]
    cells, partial = [report["model"]["name"]], {}
    for column, value in zip(table.columns, own, strict=True):
        cells.append(DASH if value is None else number(value, table.scale, table.decimals))
        if value is not None:
            task = report["tasks"][column.task]
            if task["items"] < task["size"]:
                cells[-1] += " †"
                partial[column.task] = f"{task['title']} {task['items']:,} of {task['size']:,}"
    if table.models_across:
        for row, cell in zip([grid.header, *grid.rows], cells, strict=True):
            row.append(cell)
    else:
        grid.own.add(len(grid.rows))
        grid.rows.append(cells)
    if partial:
        grid.notes.append(f"† not all items: {', '.join(partial.values())}.")
    if report["settings"]["protocol"] != "llama":
        grid.notes.append(f"Asked by the protocol {report['settings']['protocol']}, not by the paper's.")
    return grid


def other_grid(report: dict[str, Any]) -> Grid:
    """Every task's headline metric, and all its numbers where no paper's table has it."""
    shown = {column.task for table in TABLES for column in table.columns}
    grid = Grid("Other tasks", ["task", "metric", "value"])
    for name, task in report["tasks"].items():
        for metric, value in task["numbers"].items() if name not in shown else ():
            percent = task["percent"] and metric == task["metric"]
            grid.rows.append([task["title"], metric, number(estimate_of(value), 100.0 if percent else 1.0, 1 if percent else 4)])
    return grid


def normalisation_grid(report: dict[str, Any]) -> Grid:
    """Accuracy of every normalisation, side by side."""
    names = [f"acc_{name}" for name in NORMALISATIONS]
    grid = Grid("Every normalisation of the same scores", ["task", *NORMALISATIONS])
    for task in report["tasks"].values():
        if all(name in task["numbers"] for name in names):
            cells = [number(estimate_of(task["numbers"][name])) for name in names]
            cells[names.index(task["metric"])] += " *"
            grid.rows.append([task["title"], *cells])
    grid.notes.append('* reported. raw: log P(c | context); char, byte, token: divided by the length of c; answer: less '
                      'log P(c | "Answer:"), for RACE "A:".')
    return grid


def breakdown_grids(report: dict[str, Any]) -> list[Grid]:
    """A task's headline for each value of its tags."""
    found = []
    for task in report["tasks"].values():
        for tag, values in task["by"].items():
            grid = Grid(f"{task['title']} by {tag}", [tag, task["metric"], "items"])
            for value, numbers in values.items():
                if own := numbers.get(task["metric"]):
                    scale, decimals = (100.0, 1) if task["percent"] else (1.0, 4)
                    grid.rows.append([value, number(estimate_of(own), scale, decimals), f"{own['count']:,}"])
            found.append(grid)
    return found


def asked_grid(report: dict[str, Any]) -> Grid:
    """Counts, truncation and hashes: two runs with equal hashes asked the same of the same data."""
    grid = Grid("What was asked", ["task", "items", "of", "lost context", "seconds", "tokens", "prompts", "data"])
    for task in report["tasks"].values():
        lost = f"{task['truncated_items']:,} items, {task['truncated_tokens']:,} tokens" if task["truncated_items"] else DASH
        data = ", ".join(f"{name} {value[:12]}" for name, value in list(task["data"].items())[:3])
        more = len(task["data"]) - 3
        grid.rows.append([task["title"], f"{task['items']:,}", f"{task['size']:,}", lost,
                          f"{task['seconds']:.1f}", f"{task['tokens']:,}", task["prompts_sha256"][:12],
                          data + (f", {more} more" if more > 0 else "")])
    grid.notes.append("All hashes are in results.json. Seconds and tokens are of the last session.")
    return grid
