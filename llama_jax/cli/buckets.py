"""Places in buckets (gs://, s3://) among the options of a command, which works on copies on this machine."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_jax.files.remote import BucketFolder, fetched, is_remote, push_for_good

_READ = ("checkpoint", "source", "tokenizer", "data_dir", "input", "compare", "prompt_file", "evaluation_data", "reference")
"""Options that name what a command reads."""
_WRITTEN = ("output", "heldout_output", "target", "json")
"""Options that name what a command writes."""
_RETRY_SECONDS = 60.0


@contextmanager
def local_options(asked: Any) -> Iterator[Any]:
    """The options with places in buckets replaced by copies on this machine; what was written is uploaded at the end.

    It is uploaded also where the command fails, so that the same command goes on from there on another machine. Raises as
    `BucketFolder` and `fetched` do.
    """
    changed: dict[str, Any] = {}
    written: list[BucketFolder] = []
    for name in _READ:
        value = getattr(asked, name, None)
        if isinstance(value, str):
            changed[name] = fetched(value)
        elif isinstance(value, tuple | list):
            changed[name] = type(value)(fetched(part) for part in value)
    for name in _WRITTEN:
        value = getattr(asked, name, None)
        if isinstance(value, str) and is_remote(value):
            folder = BucketFolder(value)
            folder.pull()
            changed[name] = str(folder.local)
            written.append(folder)
    changed = {name: value for name, value in changed.items() if value != getattr(asked, name)}
    try:
        yield dataclasses.replace(asked, **changed) if changed else asked
    finally:
        for folder in written:
            push_for_good(folder, retry_seconds=_RETRY_SECONDS)
            print(f"{folder.local} is uploaded to {folder.url}", file=sys.stderr)
