"""The main text of web pages, by trafilatura: without menus, headers and footers."""

import logging
import re
from functools import cache
from typing import Any

from llama_jax.clean.items import Dropped
from llama_jax.clean.warc import PLAIN

MIN_CHARACTERS = 300
"""Shortest text in characters that is kept (CCNet's min_len)."""


def main_text(text: str, metadata: dict[str, Any]) -> str:
    """The readable part of a page: HTML without menus, headers and footers; the texts of WET files stay as they are.

    Takes `content_type` from the metadata. Raises Dropped for pages without such a part, and for less than MIN_CHARACTERS.
    """
    if metadata.pop("content_type", "") != PLAIN:
        text = extract_html(text)
    text = "\n".join(line.rstrip() for line in text.splitlines() if line and not line.isspace())
    if len(text) < MIN_CHARACTERS:
        raise Dropped(f"under {MIN_CHARACTERS} characters")
    return text


def extract_html(html: str) -> str:
    """The main text of an HTML page by trafilatura, a line per paragraph, list item or row of a table.

    Raises Dropped where there is none.
    """
    # without its own deduplication, which remembers earlier pages
    text = _trafilatura()(_collapse_whitespace(html), include_comments=False, deduplicate=False)
    if not text:
        raise Dropped("no main text")
    lines = [_table_row(line) if line.lstrip().startswith("|") else line for line in text.splitlines()]
    if "<pre" not in html.lower():  # where indentation has a meaning
        lines = [" ".join(line.split()) for line in lines]
    return "\n".join(lines)


def _collapse_whitespace(html: str) -> str:
    """One space for every run of whitespace outside of <pre>, as browsers show it; trafilatura would keep the line breaks."""
    parts, preformatted = [], False
    for part in re.split(r"(</?pre\b)", html, flags=re.IGNORECASE):
        if part.lower() in ("<pre", "</pre"):
            preformatted = part.lower() == "<pre"
        parts.append(part if preformatted else re.sub(r"[ \t\r\n\f]+", " ", part))
    return "".join(parts)


def _table_row(line: str) -> str:
    """A row without its empty cells and its outer bars; empty for the rule below a table's head."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    return " | ".join(cell for cell in cells if cell.strip("-"))


@cache
def _trafilatura() -> Any:
    from trafilatura import extract

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it logs pages that it cannot read; they are counted
    return extract
