"""The main text of web pages, by trafilatura: without menus, headers and footers."""

import logging
import re
from collections import Counter
from functools import cache
from typing import Any

from lxml import etree

from llama_jax.clean.items import Dropped
from llama_jax.clean.warc import PLAIN

MIN_CHARACTERS = 300
"""Shortest text in characters that is kept (CCNet's min_len)."""

_PARAGRAPH_TEXT = etree.XPath(".//text()[ancestor::p or ancestor::pre or ancestor::li]"
                              "[not(ancestor::a or ancestor::nav or ancestor::aside or ancestor::footer)]")
_CONTAINERS = ("div", "article", "section", "main", "center", "form", "table", "tbody", "tr", "td")
_LEAST_OF_NAMED_PART = 0.15
"""Share of a page's paragraphs below which an element that is named as its main part is not believed to be that."""
_MOST = 0.98
"""Share of a page's paragraphs that the element holds which is taken in its place."""


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
    extract, load_html, named_parts = _trafilatura()
    page = load_html(_collapse_whitespace(html))
    if page is None:
        raise Dropped("no main text")
    for figure in page.iter("figure"):
        if figure.find(".//pre") is not None:
            figure.tag = "div"  # figures are removed with what is in them, and some hold code
    _name_main_part(page, named_parts)
    text = extract(page, include_comments=False, deduplicate=False)  # deduplication would remember earlier pages
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


def _name_main_part(page: etree._Element, named_parts: list[etree.XPath]) -> None:
    """Mark the smallest element that holds most paragraphs as the main part, where no element is named so, or a small one.

    trafilatura finds the main part by names and classes. Where it finds none, it takes paragraphs one by one, without headings
    and lists; and of a page with several posts it takes the first.
    """
    body = page.find("body")
    if body is None:
        return
    length: Counter[etree._Element] = Counter()
    for text in _PARAGRAPH_TEXT(body):
        for element in text.getparent().iterancestors():
            length[element] += len(text.strip())
    named = next((found[0] for path in named_parts if (found := path(page))), None)
    if not length[body] or (named is not None and length[named] >= _LEAST_OF_NAMED_PART * length[body]):
        return
    part = body
    while inner := [child for child in part if child.tag in _CONTAINERS and length[child] >= _MOST * length[body]]:
        part = inner[0]
    if part is body:
        part = body.makeelement("div")
        part.text, body.text = body.text, None
        part.extend(list(body))
        body.append(part)
    part.tag = "div"
    part.set("itemprop", "articleBody")  # which is looked for first


def _table_row(line: str) -> str:
    """A row without its empty cells and its outer bars; empty for the rule below a table's head."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    return " | ".join(cell for cell in cells if cell.strip("-"))


@cache
def _trafilatura() -> tuple[Any, Any, list[etree.XPath]]:
    """Its functions to extract text and to parse HTML, and the paths by which it looks for the main part, in order."""
    from trafilatura import extract, load_html
    from trafilatura.xpaths import BODY_XPATH

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it logs pages that it cannot read; they are counted
    return extract, load_html, BODY_XPATH
