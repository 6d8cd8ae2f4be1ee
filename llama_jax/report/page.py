"""Renders tables on the terminal, and pages of text, plots and tables as Markdown and as one HTML file that needs no other."""

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
p.note, pre { font-size: .87em; color: #444; } img { max-width: 100%; } p, li { max-width: 60em; }
"""


class Plot(NamedTuple):
    """A picture of a page."""

    name: str
    """File name without ".png", and the alternative text."""
    png: bytes
    caption: str = ""
    """What the picture shows, printed below it."""


class Passage(NamedTuple):
    """Sentences of a page under a heading of their own."""

    title: str
    """Heading; empty: none."""
    sentences: Sequence[str]
    """Paragraphs, or items of a list."""
    listed: bool = False


Part = Table | Plot | Passage
"""What a page is made of, in the order in which it is read."""


def print_tables(console: Console, tables: Sequence[Table]) -> None:
    """Print tables on the terminal, highlighted rows in bold."""
    for table in tables:
        printed = RichTable()
        for place, name in enumerate(table.header):
            printed.add_column(Text(name), justify="left" if place == 0 else "right")
        for place, row in enumerate(table.rows):
            printed.add_row(*map(Text, row), style="bold" if place in table.highlighted else None)
        console.print(Text(table.title, style="bold"), printed, *map(Text, table.notes), "", sep="\n")


def markdown_page(title: str, parts: Sequence[Part], *, details: str = "") -> str:
    """A page as Markdown; `details` is JSON that stands at its end, and plots are files beside it."""
    found = [f"# {title}", *map(_markdown_part, parts)]
    if details:
        found.append(f"## Settings\n\n```json\n{details}\n```")
    return "\n\n".join(found) + "\n"


def _markdown_part(part: Part) -> str:
    if isinstance(part, Plot):
        return "\n\n".join([f"![{part.name}]({part.name}.png)", *filter(None, [part.caption])])
    if isinstance(part, Table):
        return "\n\n".join([f"## {part.title}", _markdown_table(part), *part.notes])
    sentences = [sentence.replace("<", "&lt;") for sentence in part.sentences]
    text = "\n".join(f"- {sentence}" for sentence in sentences) if part.listed else "\n\n".join(sentences)
    return f"## {part.title}\n\n{text}" if part.title else text


def _markdown_table(table: Table) -> str:
    lines = [_markdown_row(table.header), "|" + "|".join([":--", *["--:"] * (len(table.header) - 1)]) + "|"]
    for place, row in enumerate(table.rows):
        lines.append(_markdown_row([f"**{cell}**" for cell in row] if place in table.highlighted else row))
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def html_page(title: str, parts: Sequence[Part], *, details: str = "") -> str:
    """A page as HTML, with its style and its plots inside the file."""
    found = [f"<h1>{escape(title)}</h1>", *map(_html_part, parts)]
    if details:
        found.append(f"<h2>Settings</h2>\n<pre>{escape(details)}</pre>")
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(found) + "\n</body></html>\n")


def _html_part(part: Part) -> str:
    if isinstance(part, Plot):
        caption = f'<p class="note">{escape(part.caption)}</p>' if part.caption else ""
        data = base64.b64encode(part.png).decode()
        return f'<img alt="{escape(part.name)}" src="data:image/png;base64,{data}">{caption}'
    if isinstance(part, Table):
        notes = "".join(f'<p class="note">{escape(note)}</p>' for note in part.notes)
        return f"<h2>{escape(part.title)}</h2>\n{_html_table(part)}{notes}"
    head = f"<h2>{escape(part.title)}</h2>\n" if part.title else ""
    if part.listed:
        return f"{head}<ul>\n" + "\n".join(f"<li>{escape(sentence)}</li>" for sentence in part.sentences) + "\n</ul>"
    return head + "\n".join(f"<p>{escape(sentence)}</p>" for sentence in part.sentences)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = ""
    for place, row in enumerate(table.rows):
        mark = " class=own" if place in table.highlighted else ""
        body += f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def write_page(folder: Path, name: str, *, title: str, parts: Sequence[Part], details: str = "") -> None:
    """Write a page as `name`.md and `name`.html, and its plots as PNG files beside them; the folder is made if missing."""
    make_folder(folder)
    for part in parts:
        if isinstance(part, Plot):
            write_atomic(folder / f"{part.name}.png", part.png)
    write_atomic(folder / f"{name}.md", markdown_page(title, parts, details=details).encode())
    write_atomic(folder / f"{name}.html", html_page(title, parts, details=details).encode())
