"""The kinds of raw data, one per source of Table 1, and the recipe that cleans each."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from llama_jax.clean.stages import Stage, Workplace

Recipe = Callable[[Workplace, Any], list[Stage]]
"""(place, the options of the command) -> the stages that clean one kind, the last of which writes the documents."""


JSON_LINES = tuple(f".{name}{compression}" for name in ("jsonl", "json") for compression in ("", ".gz", ".bz2", ".xz", ".zst"))
"""Ends of the names of files of JSON lines."""


class Kind(NamedTuple):
    """One kind of raw data."""

    formats: str
    """The files that it reads, for messages."""
    suffixes: tuple[str, ...]
    """Ends of the names of these files, in lower case."""
    source_trees: bool = False
    """Whether folders are source trees, each of which is read as a whole, beside files of JSON lines."""


KINDS = {
    "commoncrawl": Kind("WARC and WET files", (".warc", ".warc.gz", ".wet", ".wet.gz")),
    "c4": Kind("JSON lines with `text`", JSON_LINES),
    "github": Kind("source trees, and JSON lines with `content` or `text`", (), source_trees=True),
    "wikipedia": Kind("MediaWiki XML dumps", (".xml", ".bz2", ".gz")),
    "books": Kind("plain texts of Project Gutenberg, also inside .zip", (".txt", ".txt.gz", ".zip")),
    "arxiv": Kind("sources of papers: .tex, .gz of one, .tar and .tar.gz", (".tex", ".gz", ".tar", ".tgz", ".pdf")),
    "documents": Kind("JSON lines with `text`, such as an output of this command",
                      tuple(suffix for suffix in JSON_LINES if suffix.startswith(".jsonl"))),  # not its report.json
    "stackexchange": Kind("Posts.xml of the data dumps, also inside .7z", ("posts.xml", ".7z")),
}


def load_recipe(kind: str) -> Recipe:
    """The recipe of a kind: `recipe` of the module llama_jax.clean.KIND."""
    return import_module(f"llama_jax.clean.{kind}").recipe
