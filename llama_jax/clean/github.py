"""GitHub (paper, section 2.1): code under Apache, BSD and MIT licences, without licence headers, every file once."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.clean.duplicates import drop_whole, find_duplicates
from llama_jax.clean.items import (
    VENDORED,
    DamagedInput,
    Dropped,
    RawDocument,
    decode_text,
    is_hidden,
)
from llama_jax.clean.json_records import read_records
from llama_jax.clean.licences import is_licence_file, licence_of_files, permit_named
from llama_jax.clean.source_files import MAX_SOURCE_BYTES, check_lines, language_of, strip_header
from llama_jax.clean.stages import Stage, Workplace

_TEXT_FIELDS = ("content", "text", "code")
_LICENCE_FIELDS = ("license", "licenses", "max_stars_repo_licenses")
_PATH_FIELDS = ("path", "max_stars_repo_path")
_REPOSITORY_FIELDS = ("repo_name", "repository", "max_stars_repo_name")


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean code: files of permitted licences and readable lines, without headers, each content once."""
    stages, unique = find_duplicates(place, "duplicates", place.read(read_code), place.edit("lines", check_lines),
                                     place.edit("headers", strip_header), keys=whole_text, drop=drop_whole)
    return [*stages, place.stage("unique", *unique, place.write())]


def whole_text(text: str) -> list[str]:
    """The one key of a document: all of it."""
    return [text]


def read_code(path: Path) -> Iterator[RawDocument | Dropped]:
    """The source files of a folder, or of a file of JSON lines."""
    return _read_tree(path, path, licence=Dropped("no licence")) if path.is_dir() else read_records(path, _of_record)


def _read_tree(folder: Path, root: Path, *, licence: str | Dropped) -> Iterator[RawDocument | Dropped]:
    """The files below `folder`; `licence` is that of the folder above, which holds where this one has none of its own."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DamagedInput(f"cannot read {folder.relative_to(root)}: {error.strerror}") from None
    entries = [entry for entry in entries if not is_hidden(entry.name) and not entry.is_symlink()]
    files = [Path(entry.path) for entry in entries if entry.is_file()]
    if licences := [file for file in files if is_licence_file(file.name)]:
        licence = _licence_of(licences)
    for file in files:
        if file in licences:
            continue
        path = file.relative_to(root).as_posix().encode(errors="replace").decode()
        try:
            if isinstance(licence, Dropped):
                raise licence
            metadata = {"repo_name": root.name, "path": path, "license": licence, "language": language_of(path)}
            yield RawDocument(_read_source(file), path, metadata)
        except Dropped as dropped:
            yield Dropped(str(dropped), id=path)
    for entry in entries:
        if entry.is_dir() and entry.name.lower() not in VENDORED:
            yield from _read_tree(Path(entry.path), root, licence=licence)


def _licence_of(files: list[Path]) -> str | Dropped:
    try:
        return licence_of_files({file.name: decode_text(file.read_bytes()[:MAX_SOURCE_BYTES]) for file in files})
    except Dropped as dropped:
        return Dropped(str(dropped))


def _read_source(file: Path) -> str:
    """The text of one file; raises Dropped where it is no text, or too large."""
    if file.stat().st_size > MAX_SOURCE_BYTES:
        raise Dropped(f"larger than {MAX_SOURCE_BYTES >> 20} MiB")
    return unix_lines(decode_text(file.read_bytes()))


def unix_lines(text: str) -> str:
    """The same text with line ends of Unix."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _of_record(record: dict[str, Any], number: int) -> RawDocument:
    text = _first(record, _TEXT_FIELDS)
    if not isinstance(text, str):
        raise Dropped("no `content`, as of binary and large files" if "content" in record else "no `content` or `text`")
    permit_named(_first(record, _LICENCE_FIELDS))
    path, repository = _first(record, _PATH_FIELDS), _first(record, _REPOSITORY_FIELDS)
    metadata = {"repo_name": repository, "path": path, "license": _first(record, _LICENCE_FIELDS)}
    metadata = {field: value for field, value in metadata.items() if value is not None}
    if isinstance(path, str):
        metadata["language"] = language_of(path)
    if len(text) > MAX_SOURCE_BYTES:
        raise Dropped(f"larger than {MAX_SOURCE_BYTES >> 20} MiB")
    name = "/".join(part for part in (repository, path) if isinstance(part, str))
    return RawDocument(unix_lines(text), name or str(number), metadata)


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first of some fields that a record has."""
    return next((record[name] for name in names if record.get(name) is not None), None)
