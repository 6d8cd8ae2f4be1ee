"""Which files a cleaning command reads."""

import os
from pathlib import Path

from llama_jax.clean.items import InputFile
from llama_jax.clean.kinds import Kind
from llama_jax.errors import ConfigError, DataError


def find_input_files(paths: tuple[str, ...], kind: Kind) -> list[InputFile]:
    """The files that `paths` name: files themselves, and files of the kind in folders and all folders below, sorted by name.

    Hidden files and folders, and links to folders, are left out.

    Raises:
        DataError: a path does not exist, or there is nothing to read.
        ConfigError: a file is named twice.
    """
    if not paths:
        raise ConfigError(f"there is nothing to clean; name {kind.formats} after --input.")
    files = [file for path in paths for file in _files_at(Path(path), kind)]
    seen: dict[Path, str] = {}
    for file in files:
        real = file.path.resolve()
        if real in seen:
            raise ConfigError(f"the inputs name {file.path} twice; name every file once.")
        seen[real] = file.name
    return sorted(files, key=lambda file: (file.name, str(file.path)))


def _files_at(path: Path, kind: Kind) -> list[InputFile]:
    if not path.exists():
        raise DataError(f"input {path} does not exist.")
    if path.is_file():
        return [InputFile(path, path.name)]
    found = []
    for folder, subfolders, names in os.walk(path):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for file in (Path(folder, name) for name in names if not name.startswith(".")):
            if file.is_file() and (not kind.suffixes or file.name.lower().endswith(kind.suffixes)):
                found.append(InputFile(file, str(file.relative_to(path))))
    if not found:
        raise DataError(f"{path} holds nothing to read; wanted are {kind.formats}.")
    return found
