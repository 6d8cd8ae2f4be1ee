"""Whose an output folder is: the input and settings that its documents are made from."""

import hashlib
import json
from pathlib import Path
from typing import Any

from llama_jax.clean.items import InputFile, walk_tree
from llama_jax.errors import DataError
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.files.lock import LOCK_FILE

SETTINGS_FILE = "settings.json"
"""File in an output folder with what its documents are made from: the source's kind, its options and the input files."""


def claim_output(output: Path, settings: dict[str, Any], *, files: list[InputFile]) -> None:
    """Write what an output folder is made from; raises DataError where it holds documents of other work, and changes nothing."""
    asked = {**settings, "files": [identify_input(file) for file in files]}
    asked = json.loads(json.dumps(asked))  # lists for tuples, as in the file
    held = output / SETTINGS_FILE
    make_folder(output)
    if held.exists():
        before = _read_settings(held)
        # an option that came after the output was made, and is not used, changes nothing
        names = [name for name in sorted({*before, *asked}) if name in before or asked[name]]
        if changed := [name for name in names if before.get(name) != asked.get(name)]:
            told = "; ".join(_what_changed(name, before.get(name), now=asked.get(name)) for name in changed)
            raise DataError(f"{output} holds documents of other input or settings: {told}. Remove it, or name another --output.")
    elif any(file.name not in (f"{SETTINGS_FILE}.tmp", LOCK_FILE) for file in output.iterdir()):
        raise DataError(f"{output} is not empty, and not an output of this command; name another --output.")
    else:
        write_atomic(held, (json.dumps(asked, indent=1, sort_keys=True) + "\n").encode())


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        raise DataError(f"{file} is damaged, so that nobody can say what lies beside it; remove the folder, or name another "
                        "--output.") from None


def _what_changed(name: str, before: Any, *, now: Any) -> str:
    """One clause about a setting, or about the first input file, that is not what it was."""
    if name != "files":
        return f"{name} was {json.dumps(before)} and is {json.dumps(now)}"
    old, new = ({file[0]: file for file in files or ()} for files in (before, now))
    if gone := [file for file in old if file not in new]:
        return f"{gone[0]} is missing" + (f", and {len(gone) - 1:,} more" if gone[1:] else "")
    if came := [file for file in new if file not in old]:
        return f"{came[0]} is new" + (f", and {len(came) - 1:,} more" if came[1:] else "")
    return f"{next(file for file in new if old[file] != new[file])} has changed"


def identify_input(file: InputFile) -> list[str | int]:
    """[name, size in bytes, digest]: the digest is of both ends of a file; of a folder, of the names and ends of all files."""
    if not file.path.is_dir():
        return [file.name, file.bytes, digest_of_ends(file.path)]
    digest = hashlib.sha256()
    for part in walk_tree(file.path):
        name = str(part.relative_to(file.path)).encode(errors="replace")
        digest.update(b"%s %d %s\n" % (name, part.stat().st_size, digest_of_ends(part).encode()))
    return [file.name, file.bytes, digest.hexdigest()[:16]]


def digest_of_ends(file: Path, size: int = 1 << 16) -> str:
    """A hash of the first and last `size` bytes of a file, which with its size tells it from another of the same name."""
    try:
        with file.open("rb") as stream:
            begin = stream.read(size)
            stream.seek(max(0, file.stat().st_size - size))
            return hashlib.sha256(begin + stream.read(size)).hexdigest()[:16]
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}.") from None
