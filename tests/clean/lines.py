"""A kind of raw data for tests of the core: lines of text files, in two stages; run as a script, it is a command of its own."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.items import Dropped, RawDocument, decode_text, open_raw, read_lines
from llama_jax.clean.kinds import Kind
from llama_jax.clean.report import collect_counts, write_report
from llama_jax.clean.stages import Stage, Workplace, run_stages
from llama_jax.errors import exit_code_of

LINES = Kind("text files", (".txt", ".txt.gz", ".txt.bz2", ".txt.xz", ".txt.zst"))


def read_numbered(file: Path) -> Iterator[RawDocument | Dropped]:
    """Every line is a document."""
    with open_raw(file) as stream:
        for number, line in enumerate(read_lines(stream)):
            try:
                yield line if isinstance(line, Dropped) else RawDocument(decode_text(line), str(number), {"line": number})
            except Dropped as dropped:
                yield dropped


def louder(text: str, metadata: dict[str, Any]) -> str:
    """In capitals; a few words have effects of their own."""
    if text.startswith("sleep "):
        time.sleep(float(text.split()[1]))
    if text == "unheard of":
        raise KeyError(text)
    if text == "too short":
        raise Dropped("short")
    return text.upper()


def not_twice(text: str, metadata: dict[str, Any]) -> str:
    if text.endswith("TWICE"):
        raise Dropped("twice")
    return text


def recipe(place: Workplace, options: Any = None) -> list[Stage]:
    """Two stages."""
    return [place.stage("first", place.read(read_numbered), place.edit("louder", louder), place.write("loud")),
            place.stage("second", place.read_again("loud"), place.edit("not twice", not_twice), place.write())]


def clean_lines(source: Path, output: Path, *, workers: int = 1, **options) -> Path:
    """Clean the text files of a folder; returns `output`."""
    place = Workplace(find_input_files((str(source),), LINES), output.absolute())
    run_stages(recipe(place), place, settings={"source": "lines"}, workers=workers, **options)
    write_report(output, collect_counts(output))
    return output


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: clean_lines(Path(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]))))
