"""Two evaluations side by side: paired differences on the items that both were asked, and how far chance explains them."""

from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.evaluation.results import read_items, read_results
from llama_jax.evaluation.statistics import mean_estimate, paired_difference
from llama_jax.report.tables import DASH, Table


def compare_evaluations(first: Path, second: Path) -> Table:
    """One row a task that both folders of eval.py hold; raises DataError where they share none."""
    a, b = read_results(first), read_results(second)
    shared = [name for name in a["tasks"] if name in b["tasks"]]
    if not shared:
        raise DataError(f"{first} and {second} share no task: {', '.join(a['tasks'])} and {', '.join(b['tasks'])}.")
    names = [report["model"]["name"] for report in (a, b)]
    names = names if names[0] != names[1] else [str(first), str(second)]
    grid = Table(f"{names[0]} and {names[1]}, paired", ["task", "metric", *names, "difference", "p-value", "items"])
    for name in shared:
        _add_row(grid, name, [(first, a), (second, b)])
    grid.notes.append("Differences are first less second over items whose requests are equal in both, ± standard error. "
                      "p-value: two-sided, McNemar's exact test for rights and wrongs, else the normal approximation.")
    return grid


def _add_row(grid: Table, name: str, runs: list[tuple[Path, dict[str, Any]]]) -> None:
    """One task's row, and notes about items that are left out and about what else differs."""
    tasks = [report["tasks"][name] for _, report in runs]
    title, metric = tasks[0]["title"], tasks[0]["metric"]
    items = [read_items(folder, name, sha256=task.get("items_sha256")) for (folder, _), task in zip(runs, tasks, strict=True)]
    keys = [key for key, row in items[0].items() if key in items[1] and _asked_alike(row, items[1][key])]
    columns = [[some[key]["metrics"].get(metric) for key in keys] for some in items]
    both = [(x, y) for x, y in zip(*columns, strict=True) if x is not None and y is not None]
    grid.notes += _notes_on_row(tasks, left_out=max(map(len, items)) - len(keys), without=len(keys) - len(both))
    if not both:
        grid.rows.append([title, metric, DASH, DASH, DASH, DASH, "0"])
        return
    scale, decimals = (100.0, 1) if tasks[0]["percent"] else (1.0, 4)
    difference = paired_difference(*map(list, zip(*both, strict=True)))
    error = "" if difference.stderr is None else f" ± {difference.stderr * scale:.{decimals}f}"
    values = [f"{mean_estimate(list(column)).value * scale:.{decimals}f}" for column in zip(*both, strict=True)]
    p_value = DASH if difference.p_value is None else f"{difference.p_value:.3g}"
    grid.rows.append([title, metric, *values, f"{difference.value * scale:+.{decimals}f}{error}", p_value,
                      f"{difference.count:,}"])


def _asked_alike(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two lines of per-item files asked the same and hold the same answer to be right."""
    return first["sha256"] == second["sha256"] and first["gold"] == second["gold"]


def _notes_on_row(tasks: list[dict[str, Any]], *, left_out: int, without: int) -> list[str]:
    """What a reader of one task's row should know; `without` counts items that lack the metric in one of the runs."""
    title, metrics = tasks[0]["title"], [task["metric"] for task in tasks]
    scorers = [task.get("command", {}).get("scorer", "") for task in tasks]
    notes = []
    if left_out:
        notes.append(f"{title}: {left_out:,} items were not asked, or not so, in both runs and are left out.")
    if without:
        notes.append(f"{title}: {without:,} items have no {metrics[0]} in one of the runs and are left out.")
    if metrics[0] != metrics[1]:
        notes.append(f"{title}: the runs report different metrics, {metrics[0]} and {metrics[1]}; compared is {metrics[0]}.")
    if scorers[0] != scorers[1]:
        notes.append(f"{title}: scored by different scorers, {scorers[0] or 'unknown'} and {scorers[1] or 'unknown'}.")
    return notes
