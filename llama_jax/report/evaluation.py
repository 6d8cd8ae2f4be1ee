"""The report of an evaluation: the paper's tables with the user's row, every normalisation, breakdowns, and what was asked.

Every function here takes the content of `results.json` (`llama_jax.evaluation.results.read_results`) as `results`.
"""

import json
from pathlib import Path
from typing import Any

from llama_jax.evaluation.choices import NORMALISATIONS
from llama_jax.evaluation.results import estimate_from_json
from llama_jax.evaluation.task import Estimate
from llama_jax.report.page import Plot, write_page
from llama_jax.report.plot import Bar, Marks, bar_plot
from llama_jax.report.published import PUBLISHED_TABLES, PublishedColumn, PublishedTable, published_table
from llama_jax.report.tables import DASH, Table, format_value

_MARKED_ROWS = {"LLaMA 7B": "#e08a2e", "LLaMA 65B": "#a03030"}
"""Published models that the plot marks, and their colours."""


def write_evaluation_report(folder: Path, results: dict[str, Any]) -> None:
    """Write report.md, report.html and scores.png."""
    details = json.dumps({"settings": results["settings"], "model": results["model"]}, indent=1, ensure_ascii=False)
    png = _scores_plot(results)
    plots = [Plot("scores", png)] if png else []
    write_page(folder, "report", title=f"Evaluation of {results['model']['name']}", parts=[*plots, *evaluation_tables(results)],
               details=details)


def evaluation_tables(results: dict[str, Any]) -> list[Table]:
    """The tables of an evaluation's report, without those in which no cell has a value."""
    found = [_paper_table(table, results) for table in PUBLISHED_TABLES
             if any(_column_estimate(column, results) for column in table.columns)]
    extra = [_other_table(results), _normalisation_table(results), *_breakdown_tables(results), _asked_table(results)]
    return [*found, *(table for table in extra if table.rows)]


def _cell(estimate: Estimate, *, scale: float = 100.0, decimals: int = 1) -> str:
    return format_value(estimate.value, estimate.stderr, scale=scale, decimals=decimals)


def _column_estimate(column: PublishedColumn, results: dict[str, Any]) -> Estimate | None:
    """The user's value of a column of a paper's table; None where its task or metric was not evaluated."""
    task = results["tasks"].get(column.task)
    if task is None:
        return None
    tag, _, value = column.metric.partition("=")
    numbers = task["by"].get(tag, {}).get(value, {}) if value else task["numbers"]
    found = numbers.get(task["metric"] if value or not column.metric else column.metric)
    return estimate_from_json(found) if found else None


def _paper_table(published: PublishedTable, results: dict[str, Any]) -> Table:
    """Published rows, then the user's; where models are columns, the user's is one more column."""
    table = published_table(published)
    cells, partial = [results["model"]["name"]], {}
    for column in published.columns:
        estimate = _column_estimate(column, results)
        if estimate is None:
            cells.append(DASH)
            continue
        cell, task = _cell(estimate, scale=published.scale, decimals=published.decimals), results["tasks"][column.task]
        if task["items"] < task["size"]:
            cell += " †"
            partial[column.task] = f"{task['title']} {task['items']:,} of {task['size']:,}"
        cells.append(cell)
    if published.models_across:
        for row, cell in zip([table.header, *table.rows], cells, strict=True):
            row.append(cell)
    else:
        table.highlighted.add(len(table.rows))
        table.rows.append(cells)
    if partial:
        table.notes.append(f"† not all items: {', '.join(partial.values())}.")
    if results["settings"]["protocol"] != "llama":
        table.notes.append(f"Asked by the protocol {results['settings']['protocol']}, not by the paper's.")
    return table


def _other_table(results: dict[str, Any]) -> Table:
    """All metrics of the tasks that are in none of the paper's tables."""
    shown = {column.task for published in PUBLISHED_TABLES for column in published.columns}
    table = Table("Other tasks", ["task", "metric", "value"])
    for name, task in results["tasks"].items():
        if name in shown:
            continue
        for metric, numbers in task["numbers"].items():
            percent = task["percent"] and metric == task["metric"]
            scale, decimals = _scale_and_decimals(percent)
            table.rows.append([task["title"], metric, _cell(estimate_from_json(numbers), scale=scale, decimals=decimals)])
    return table


def _scale_and_decimals(percent: bool) -> tuple[float, int]:
    """How a metric is printed: shares in percent with one decimal, other numbers as they are with four."""
    return (100.0, 1) if percent else (1.0, 4)


def _normalisation_table(results: dict[str, Any]) -> Table:
    """Accuracy under every normalisation of a choice's log-probability, side by side."""
    names = [f"acc_{name}" for name in NORMALISATIONS]
    table = Table("Every normalisation of the same scores", ["task", *NORMALISATIONS])
    for task in results["tasks"].values():
        if all(name in task["numbers"] for name in names):
            cells = [_cell(estimate_from_json(task["numbers"][name])) for name in names]
            cells = [f"{cell} *" if name == task["metric"] else cell for name, cell in zip(names, cells, strict=True)]
            table.rows.append([task["title"], *cells])
    table.notes.append('* reported. raw: log P(c | context); char, byte, token: divided by the length of c; answer: less '
                       'log P(c | "Answer:"), for RACE "A:".')
    return table


def _breakdown_tables(results: dict[str, Any]) -> list[Table]:
    """A task's headline metric for each value of each of its tags."""
    found = []
    for task in results["tasks"].values():
        scale, decimals = _scale_and_decimals(task["percent"])
        for tag, values in task["by"].items():
            table = Table(f"{task['title']} by {tag}", [tag, task["metric"], "items"])
            for value, numbers in values.items():
                if own := numbers.get(task["metric"]):
                    cell = _cell(estimate_from_json(own), scale=scale, decimals=decimals)
                    table.rows.append([value, cell, f"{own['count']:,}"])
            found.append(table)
    return found


def _asked_table(results: dict[str, Any]) -> Table:
    """Counts, truncation and hashes: two runs with equal hashes asked the same of the same data."""
    table = Table("What was asked", ["task", "items", "of", "lost context", "seconds", "tokens", "prompts", "data"])
    for task in results["tasks"].values():
        lost = f"{task['truncated_items']:,} items, {task['truncated_tokens']:,} tokens" if task["truncated_items"] else DASH
        data = ", ".join(f"{name} {value[:12]}" for name, value in list(task["data"].items())[:3])
        more = len(task["data"]) - 3
        table.rows.append([task["title"], f"{task['items']:,}", f"{task['size']:,}", lost,
                           f"{task['seconds']:.1f}", f"{task['tokens']:,}", task["prompts_sha256"][:12],
                           data + (f", {more} more" if more > 0 else "")])
    table.notes.append("All hashes are in results.json. Seconds and tokens are of the last session.")
    return table


def _scores_plot(results: dict[str, Any]) -> bytes:
    """PNG with a bar per task whose headline metric is a share, and the paper's 7B and 65B as marks; empty without a bar."""
    shown = [(name, task) for name, task in results["tasks"].items() if task["percent"] and task["value"] is not None]
    if not shown:
        return b""
    published = _published_headlines()
    bars = [Bar(task["title"], 100 * task["value"], 100 * (task["stderr"] or 0)) for _, task in shown]
    marks = []
    for row, color in _MARKED_ROWS.items():
        values = {place: published[name, row] for place, (name, _) in enumerate(shown) if (name, row) in published}
        marks.append(Marks(f"{row}, paper", color, values))
    return bar_plot(bars, results["model"]["name"], marks=marks)


def _published_headlines() -> dict[tuple[str, str], float]:
    """The published headline metric of a task, in percent, by (task, model): from the first table that has the task."""
    found: dict[tuple[str, str], float] = {}
    seen: set[str] = set()
    for table in PUBLISHED_TABLES:
        for place, column in enumerate(table.columns):
            if column.metric or column.task in seen:
                continue
            seen.add(column.task)
            for row, values in table.rows:
                if values[place] is not None:
                    found[column.task, row] = values[place] * (100 / table.scale)
    return found
