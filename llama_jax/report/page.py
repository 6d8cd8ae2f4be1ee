"""Renders tables on the terminal, as Markdown, and as one HTML file that needs no other."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.report.tables import Table

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 74em; margin: 2em auto; padding: 0 1em; color: #1c1c1c; }
h1 { font-size: 1.5em; } h2 { font-size: 1.05em; margin: 2em 0 .4em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: .2em .55em; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; font-weight: 600; }
tr.own td { font-weight: 600; background: #eef4fb; }
p.note, pre { font-size: .87em; color: #444; } img { max-width: 100%; }
"""


class Plot(NamedTuple):
    """A picture of a page."""

    name: str
    """File name without ".png", and the alternative text."""
    png: bytes


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Print tables on the terminal, highlighted rows in bold."""
    for table in tables:
        printed = RichTable()
        for place, name in enumerate(table.header):
            printed.add_column(Text(name), justify="left" if place == 0 else "right")
        for place, row in enumerate(table.rows):
            printed.add_row(*map(Text, row), style="bold" if place in table.highlighted else None)
        console.print(Text(table.title, style="bold"), printed, *map(Text, table.notes), "", sep="\n")


def markdown_page(title: str, tables: Sequence[Table], *, details: str = "", plot: Plot | None = None) -> str:
    """A page as Markdown; `details` is JSON that stands at its end, and the plot is a file beside it."""
    parts = [f"# {title}"]
    if plot:
        parts.append(f"![{plot.name}]({plot.name}.png)")
    for table in tables:
        parts += [f"## {table.title}", _markdown_table(table), *table.notes]
    if details:
        parts.append(f"## Settings\n\n```json\n{details}\n```")
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [_markdown_row(table.header), "|" + "|".join([":--", *["--:"] * (len(table.header) - 1)]) + "|"]
    for place, row in enumerate(table.rows):
        lines.append(_markdown_row([f"**{cell}**" for cell in row] if place in table.highlighted else row))
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html_page(title: str, tables: Sequence[Table], *, details: str = "", plot: Plot | None = None) -> str:
    """A page as HTML, with its style and its plot inside the file."""
    parts = [f"<h1>{escape(title)}</h1>"]
    if plot:
        parts.append(f'<img alt="{plot.name}" src="data:image/png;base64,{base64.b64encode(plot.png).decode()}">')
    for table in tables:
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
        parts.append(f"<h2>{escape(table.title)}</h2>\n{_html_table(table)}{notes}")
    if details:
        parts.append(f"<h2>Settings</h2>\n<pre>{escape(details)}</pre>")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n")


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = ""
    for place, row in enumerate(table.rows):
        mark = " class=own" if place in table.highlighted else ""
        body += f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def write_page(
    folder: Path, name: str, *, title: str, tables: Sequence[Table], details: str = "", plot: Plot | None = None
) -> None:
    """Write a page as `name`.md and `name`.html, and its plot as a PNG file beside them; the folder is made if missing."""
    make_folder(folder)
    if plot:
        write_atomic(folder / f"{plot.name}.png", plot.png)
    write_atomic(folder / f"{name}.md", markdown_page(title, tables, details=details, plot=plot).encode())
    write_atomic(folder / f"{name}.html", html_page(title, tables, details=details, plot=plot).encode())
