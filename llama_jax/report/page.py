"""Tables of text for people: on the terminal, as Markdown, and as one HTML page with a small picture in it."""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.report.published import TABLES
from llama_jax.report.tables import Grid, grids

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 74em; margin: 2em auto; padding: 0 1em; color: #1c1c1c; }
h1 { font-size: 1.5em; } h2 { font-size: 1.05em; margin: 2em 0 .4em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .2em .55em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; font-weight: 600; }
tr.own td { font-weight: 600; background: #eef4fb; }
p.note, pre { font-size: .87em; color: #444; } img { max-width: 100%; }
"""


def show(console: Console, tables: Sequence[Grid]) -> None:
    """Print tables; the user's rows stand out."""
    for grid in tables:
        table = RichTable()
        for place, name in enumerate(grid.header):
            table.add_column(Text(name), justify="left" if place == 0 else "right")
        for place, row in enumerate(grid.rows):
            table.add_row(*map(Text, row), style="bold" if place in grid.own else None)
        console.print(Text(grid.title, style="bold"), table, *map(Text, grid.notes), "", sep="\n")


def markdown(title: str, tables: Sequence[Grid], details: str = "", picture: str = "") -> str:
    """A page of tables."""
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    parts = [f"# {title}", *([f"![scores]({picture})"] if picture else [])]
    for grid in tables:
        rows = [[f"**{cell}**" if place in grid.own else cell for cell in row] for place, row in enumerate(grid.rows)]
        rule = "|" + "|".join([":--", *["--:"] * (len(grid.header) - 1)]) + "|"
        parts += [f"## {grid.title}", "\n".join([line(grid.header), rule, *map(line, rows)]), *grid.notes]
    return "\n\n".join([*parts, *([f"## Settings\n\n```json\n{details}\n```"] if details else [])]) + "\n"


def html(title: str, tables: Sequence[Grid], details: str = "", picture: bytes = b"") -> str:
    """The same as one file that needs no other."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if picture:
        parts.append(f'<img alt="scores" src="data:image/png;base64,{base64.b64encode(picture).decode()}">')
    for grid in tables:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in grid.header)
        body = "".join(f"<tr{' class=own' if place in grid.own else ''}>"
                       + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for place, row in enumerate(grid.rows))
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in grid.notes)
        parts.append(f"<h2>{escape(grid.title)}</h2>\n<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>{notes}")
    if details:
        parts.append(f"<h2>Settings</h2>\n<pre>{escape(details)}</pre>")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n")


def picture_of(report: dict[str, Any]) -> bytes:
    """PNG: a bar for every task whose headline is a share, with standard errors, and the paper's 7B and 65B as ticks."""
    shown = [(name, task) for name, task in report["tasks"].items() if task["percent"] and task["count"]]
    if not shown:
        return b""
    published: dict[str, dict[str, float | None]] = {}
    for table in TABLES:
        for place, column in enumerate(table.columns):
            if not column.metric and column.task not in published:  # the first table that has a task
                published[column.task] = {row: values[place] for row, values in table.rows if row in ("LLaMA 7B", "LLaMA 65B")}
    scales = {column.task: 100 / table.scale for table in TABLES for column in table.columns}
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.26 * len(shown)), dpi=130)
    places = range(len(shown))
    axes.barh(places, [100 * task["value"] for _, task in shown], xerr=[100 * (task["stderr"] or 0) for _, task in shown],
              height=0.62, color="#4878a8", ecolor="#333333", capsize=2, label=report["model"]["name"])
    for row, colour in (("LLaMA 7B", "#e08a2e"), ("LLaMA 65B", "#a03030")):
        points = [(published[name][row] * scales[name], place) for place, (name, _) in zip(places, shown, strict=True)
                  if published.get(name, {}).get(row) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "|", markersize=11, markeredgewidth=2, color=colour, label=f"{row}, paper")
    axes.set_yticks(places, [task["title"] for _, task in shown])
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="percent")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="upper center", ncols=3)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / figure.get_figheight()))
    data = io.BytesIO()
    figure.savefig(data, format="png")
    plt.close(figure)
    return data.getvalue()


def write_pages(folder: Path, report: dict[str, Any]) -> None:
    """report.md, report.html and scores.png."""
    title, tables = f"Evaluation of {report['model']['name']}", grids(report)
    details = json.dumps({"settings": report["settings"], "model": report["model"]}, indent=1, ensure_ascii=False)
    picture = picture_of(report)
    if picture:
        write_atomic(folder / "scores.png", picture)
    write_text(folder / "report.md", markdown(title, tables, details, "scores.png" if picture else ""))
    write_text(folder / "report.html", html(title, tables, details, picture))


def write_text(file: Path, text: str) -> None:
    """A whole file, in a folder that is made where it is missing."""
    make_folder(file.parent)
    write_atomic(file, text.encode())
