"""Books (paper, section 2.1): texts of Project Gutenberg without its header and footer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.clean.items import RawDocument, decode_text, open_raw
from llama_jax.clean.stages import Stage, Workplace


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean books."""
    return [place.stage("books", place.read(read_book), place.write())]


def read_book(file: Path) -> Iterator[RawDocument]:
    """A file is one book."""
    with open_raw(file) as stream:
        yield RawDocument(decode_text(stream.read()), "")
