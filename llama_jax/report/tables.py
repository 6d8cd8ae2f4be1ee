"""A table of text cells, which `llama_jax.report.page` prints on the terminal, as Markdown and as HTML."""

from dataclasses import dataclass, field

from llama_jax.terminal import compact

DASH = "–"
"""Stands in a cell that has no value."""


@dataclass
class Table:
    """One table; the first column holds names, the others numbers."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    highlighted: set[int] = field(default_factory=set)
    """Indices of the rows that stand out: the user's own among published ones."""
    notes: list[str] = field(default_factory=list)
    """Sentences below the table."""


def transposed(table: Table) -> Table:
    """The table with its rows as columns; no row is highlighted."""
    header, *rows = map(list, zip(table.header, *table.rows, strict=True))
    return Table(table.title, header, rows, notes=table.notes)


def format_value(value: float, stderr: float | None = None, *, scale: float = 1.0, decimals: int = 1) -> str:
    """A number as a cell, with its standard error where it has one: "75.0 ± 1.0". Both are multiplied by `scale`."""
    figures = [value] if stderr is None else [value, stderr]
    return " ± ".join(compact(figure * scale, f".{decimals}f") for figure in figures)
