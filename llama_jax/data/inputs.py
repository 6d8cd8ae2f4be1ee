"""What `prepare` reads: files, folders, embedded texts and data sets of the Hugging Face hub, each with a fingerprint."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_jax.data.hub import HUB_PREFIX, HubSplit
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, DataError

_END_BYTES = 1 << 16
"""Bytes at each end of an input file that its fingerprint hashes."""

TextInput = Path | HubSplit
"""A file, or a split of a data set of the hub."""


def find_inputs(*names: str) -> list[TextInput]:
    """The inputs that `names` stand for: what `find_text_files` finds, then the splits hf://datasets/OWNER/NAME[/CONFIG][:SPLIT].

    Raises:
        DataError: there is nothing to read at a path.
        ConfigError: a name of the hub cannot be read, or an input is named twice.
    """
    hub = [HubSplit.parse(name) for name in names if name.startswith(HUB_PREFIX)]
    twice = [split.name for split, times in Counter(hub).items() if times > 1]
    if twice:
        raise ConfigError(f"the inputs name {', '.join(twice)} twice; name every data set once.")
    return [*find_text_files(*(name for name in names if not name.startswith(HUB_PREFIX))), *hub]


def read_input(source: TextInput, *, text_key: str = "text", separator: str = "") -> Iterator[str]:
    """Yield the documents of an input that are not blank, as `read_documents` has it; raises DataError as that does."""
    if isinstance(source, HubSplit):
        return source.documents(text_key)
    return read_documents(source, text_key=text_key, separator=separator)


def fingerprint_inputs(sources: Sequence[TextInput]) -> dict:
    """Tells whether two preparations have the same inputs.

    Of a file: its name, its size and a hash of both ends. Of a split of the hub: its name, its number of files and a hash of
    their addresses and versions.
    """
    return {"files": [source.fingerprint() if isinstance(source, HubSplit)
                      else [source.name, source.stat().st_size, _hash_of_ends(source)] for source in sources]}


def _hash_of_ends(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            begin = stream.read(_END_BYTES)
            stream.seek(max(file.stat().st_size - _END_BYTES, 0))
            return hashlib.sha256(begin + stream.read(_END_BYTES)).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
