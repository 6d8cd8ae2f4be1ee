"""Compares two evaluations: paired differences on the items that both were asked, with standard errors and p-values."""

from pathlib import Path
from typing import Any, NamedTuple

from llama_jax.errors import DataError
from llama_jax.evaluation.results import read_items, read_results
from llama_jax.evaluation.statistics import mean_estimate, paired_difference
from llama_jax.report.tables import DASH, Table


class _Evaluation(NamedTuple):
    """A folder that eval.py wrote, and the content of its results.json."""

    folder: Path
    results: dict[str, Any]


def compare_evaluations(first: Path, second: Path) -> Table:
    """One row per task that both folders of eval.py hold; raises DataError where they share none."""
    a, b = _Evaluation(first, read_results(first)), _Evaluation(second, read_results(second))
    shared = [name for name in a.results["tasks"] if name in b.results["tasks"]]
    if not shared:
        raise DataError(f"{first} and {second} share no task: {', '.join(a.results['tasks'])} and "
                        f"{', '.join(b.results['tasks'])}.")
    names = [a.results["model"]["name"], b.results["model"]["name"]]
    if names[0] == names[1]:
        names = [str(first), str(second)]
    table = Table(f"{names[0]} and {names[1]}, paired", ["task", "metric", *names, "difference", "p-value", "items"])
    for name in shared:
        _add_row(table, name, runs=(a, b))
    table.notes.append("Differences are first minus second over items whose requests are equal in both, ± standard error. "
                       "p-value: two-sided, McNemar's exact test where every item counts 0 or 1, else the normal approximation.")
    return table


def _add_row(table: Table, name: str, *, runs: tuple[_Evaluation, _Evaluation]) -> None:
    """Add one task's row, and notes about items that are left out and about what else differs."""
    tasks = [run.results["tasks"][name] for run in runs]
    title, metric = tasks[0]["title"], tasks[0]["metric"]
    first_items, second_items = (read_items(run.folder, name, sha256=task.get("items_sha256"))
                                 for run, task in zip(runs, tasks, strict=True))
    keys = [key for key, row in first_items.items() if key in second_items and _asked_alike(row, second_items[key])]
    first, second = [], []
    for key in keys:
        x, y = first_items[key]["metrics"].get(metric), second_items[key]["metrics"].get(metric)
        if x is not None and y is not None:
            first.append(x)
            second.append(y)
    left_out = max(len(first_items), len(second_items)) - len(keys)
    table.notes += _notes_on_row(tasks, left_out=left_out, without=len(keys) - len(first))
    if not first:
        table.rows.append([title, metric, DASH, DASH, DASH, DASH, "0"])
        return
    scale, decimals = (100.0, 1) if tasks[0]["percent"] else (1.0, 4)
    difference = paired_difference(first, second)
    error = "" if difference.stderr is None else f" ± {difference.stderr * scale:.{decimals}f}"
    means = [f"{mean_estimate(values).value * scale:.{decimals}f}" for values in (first, second)]
    p_value = DASH if difference.p_value is None else f"{difference.p_value:.3g}"
    table.rows.append([title, metric, *means, f"{difference.value * scale:+.{decimals}f}{error}", p_value,
                       f"{difference.count:,}"])


def _asked_alike(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether two lines of per-item files have the same requests and the same gold answer."""
    return first["sha256"] == second["sha256"] and first["gold"] == second["gold"]


def _notes_on_row(tasks: list[dict[str, Any]], *, left_out: int, without: int) -> list[str]:
    """Sentences about what differs between two runs of a task.

    Args:
        left_out: Items that were not asked alike in both runs.
        without: Items that lack the metric in one of them.
    """
    title, metrics = tasks[0]["title"], [task["metric"] for task in tasks]
    scorers = [task.get("command", {}).get("scorer", "") for task in tasks]
    notes = []
    if left_out:
        notes.append(f"{title}: {left_out:,} items were not asked alike in both runs and are left out.")
    if without:
        notes.append(f"{title}: {without:,} items have no {metrics[0]} in one of the runs and are left out.")
    if metrics[0] != metrics[1]:
        notes.append(f"{title}: the runs report different metrics, {metrics[0]} and {metrics[1]}; compared is {metrics[0]}.")
    if scorers[0] != scorers[1]:
        notes.append(f"{title}: scored by different scorers, {scorers[0] or 'unknown'} and {scorers[1] or 'unknown'}.")
    return notes
