"""CommonCrawl (paper, section 2.1): web archives by CCNet's steps, with the main text of pages instead of all text.

Main text by trafilatura, lines deduplicated over all pages, language, and perplexity by an n-gram model of Wikipedia.
"""

import logging
import re
from functools import cache
from typing import Any

from llama_jax.clean.items import Dropped
from llama_jax.clean.language import keep_languages
from llama_jax.clean.lines import HashLines, RemoveLines, deduplicate_lines_stage
from llama_jax.clean.perplexity import PERPLEXITY_FILE, TrainPerplexity, check_perplexity_options, keep_buckets, perplexity_steps
from llama_jax.clean.stages import Stage, Workplace
from llama_jax.clean.warc import PLAIN, read_warc

MIN_CHARACTERS = 300
"""Shortest text in characters that is kept (CCNet's min_len)."""


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean web archives."""
    language = keep_languages(options.languages, threshold=options.language_threshold, model=options.language_model)
    with_perplexity = check_perplexity_options(options)
    stages = [
        place.stage("text", place.read(read_warc), place.edit("main text", main_text), HashLines(place.folder("lines")),
                    place.write("text")),
        deduplicate_lines_stage(place),
    ]
    filters = [place.edit("language", language)]
    if options.perplexity_text:
        train = TrainPerplexity(options.perplexity_text, place.output / PERPLEXITY_FILE, examples=place.examples())
        stages.append(place.stage("train perplexity", train, tasks=1))
    if with_perplexity:
        filters += perplexity_steps(place, options)
    pages = [place.read_again("text"), RemoveLines(place.folder("lines"), examples=place.examples()), *filters]
    if with_perplexity and not options.perplexity_thresholds:
        stages.append(place.stage("pages", *pages, place.write("measured")))
        choose = keep_buckets(options.buckets, counted=place.folder("counted"))
        pages = [place.read_again("measured"), place.edit("buckets", choose)]
    return [*stages, place.stage("kept pages", *pages, place.write())]


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
