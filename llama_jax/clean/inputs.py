"""Which files a cleaning command reads."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llama_jax.clean.items import InputFile, is_hidden
from llama_jax.clean.kinds import JSON_LINES, Kind
from llama_jax.errors import ConfigError, DataError


def find_input_files(paths: tuple[str, ...], kind: Kind) -> list[InputFile]:
    """The inputs that `paths` name, sorted by name: files, and files of the kind in folders and all folders below.

    Of a kind that reads source trees, a folder that holds any file but JSON lines is one input, with all folders in it. Hidden
    files and folders, and links to folders, are left out.

    Raises:
        DataError: a path does not exist or cannot be read, or there is nothing to read.
        ConfigError: a file is named twice.
    """
    if not paths:
        raise ConfigError(f"there is nothing to clean; name {kind.formats} after --input.")
    files = [file for path in paths for file in _files_at(Path(path), kind)]
    seen: set[Path] = set()
    for file in files:
        real = file.path.resolve()
        if real in seen:
            raise ConfigError(f"the inputs name {file.path} twice; name every file once.")
        seen.add(real)
    for file in files:
        if above := next((folder for folder in file.path.resolve().parents if folder in seen), None):
            raise ConfigError(f"the inputs name {file.path} twice, also as part of {above}; name every file once.")
    times = Counter(file.name for file in files)
    files = [replace(file, name=_printable(str(file.path))) if times[file.name] > 1 else file for file in files]
    return sorted(files, key=lambda file: (file.name, str(file.path)))


def _files_at(path: Path, kind: Kind) -> list[InputFile]:
    if not path.exists():
        raise DataError(f"input {path} does not exist.")
    if path.is_file():
        return [InputFile(path, _printable(path.name))]
    try:
        found = [InputFile(file, _printable(str(file.relative_to(path)) if file != path else path.resolve().name))
                 for file in _inputs_below(path, kind)]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}.") from None
    if not found:
        raise DataError(f"{path} holds nothing to read; wanted are {kind.formats}.")
    return found


def _inputs_below(folder: Path, kind: Kind) -> Iterator[Path]:
    entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
    files = [entry for entry in entries if entry.is_file()]
    suffixes = JSON_LINES if kind.source_trees else kind.suffixes
    if kind.source_trees and not all(file.name.lower().endswith(suffixes) for file in files):
        yield folder
        return
    yield from (Path(file.path) for file in files if file.name.lower().endswith(suffixes))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _inputs_below(Path(entry.path), kind)


def _printable(name: str) -> str:
    """A file's name as text; bytes of it that are not UTF-8 become question marks."""
    return name.encode(errors="replace").decode()
