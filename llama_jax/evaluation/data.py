"""Records of evaluation data sets: read from the official files below --data_dir, or through the `datasets` library."""

import csv
import gzip
import io
import json
import zlib
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.bounded import ExpandedFile
from llama_jax.files.json_kinds import JsonKind, json_fault


class MissingDataFile(DataError):
    """A file of a data set does not exist; the hub may have its records."""


class OfficialFiles:
    """The official files of one task below a data folder. The hash of every file that is read is kept.

    Every method raises DataError with a sentence that names the file and says what to do.
    """

    def __init__(self, folder: Path | str, origin: str = ""):
        """`origin` says where the files come from, for the error about a missing file."""
        self.folder, self.origin = Path(folder), origin
        self.hashes: dict[str, str] = {}
        """sha256 of every file that was read, by its path below the folder."""

    def read_bytes(self, name: str) -> bytes:
        """Content of folder/name, decompressed where the name ends with .gz."""
        file = self.folder / name
        try:
            if not name.endswith(".gz"):
                content = file.read_bytes()
                self.hashes[name] = sha256(content).hexdigest()
                return content
            with file.open("rb") as stream:
                self.hashes[name] = file_digest(stream, "sha256").hexdigest()
            with ExpandedFile(gzip.open(file, "rb"), file) as stream:
                return stream.read()
        except FileNotFoundError:
            raise MissingDataFile(f"{file} is missing; get it from {self.origin} and put it there.") from None
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}; get it anew from "
                            f"{self.origin}.") from None

    def note_hash(self, file: Path) -> None:
        """Keep the hash of a file that other code reads."""
        try:
            with file.open("rb") as stream:
                self.hashes[str(file)] = file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"cannot read {file}: {error.strerror}.") from None

    def read_text(self, name: str) -> str:
        """Content as UTF-8, without a byte order mark."""
        try:
            return self.read_bytes(name).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError(f"{self.folder / name} is not UTF-8; get it anew from {self.origin}.") from None

    def read_lines(self, name: str) -> list[str]:
        """Lines that are not empty, stripped of white space."""
        return [line.strip() for line in self.read_text(name).split("\n") if line.strip()]

    def read_jsonl(self, name: str, fields: dict[str, JsonKind] | None = None) -> list[dict]:
        """The objects of a JSON lines file, each of which must have `fields`."""
        rows = []
        for number, line in enumerate(self.read_text(name).split("\n"), 1):
            if line.strip():
                rows.append(self._parse_object(line, f"{self.folder / name}, line {number}", fields=fields or {}))
        return self._not_empty(rows, name)

    def read_json(self, name: str, fields: dict[str, JsonKind]) -> dict:
        """The one object of a JSON file, which must have `fields`."""
        return self._parse_object(self.read_text(name), str(self.folder / name), fields=fields)

    def read_table(self, name: str, *columns: str, delimiter: str = ",", header: bool = True) -> list[dict]:
        """Rows of a CSV or TSV file. Without a header its columns are named by `columns`; with one it must have them."""
        text = io.StringIO(self.read_text(name), newline="")
        reader = csv.DictReader(text, None if header else list(columns), delimiter=delimiter, strict=True)
        rows = []
        try:
            for row in reader:
                if any(row.get(column) is None for column in columns) or None in row:
                    raise DataError(f"{self.folder / name}, line {reader.line_num}: expected the columns "
                                    f"{', '.join(columns)}; the file is cut short or another.")
                rows.append(row)
        except csv.Error as error:
            raise DataError(f"{self.folder / name}, line {reader.line_num}: {error}; get it anew from "
                            f"{self.origin}.") from None
        return self._not_empty(rows, name)

    def matching(self, pattern: str) -> list[str]:
        """Paths below the folder that match a glob pattern, without hidden files and folders; 2.txt comes before 10.txt."""
        found = [file for file in self.folder.glob(pattern)
                 if not any(part.startswith(".") for part in file.relative_to(self.folder).parts)]
        found.sort(key=lambda file: [(len(part), part) for part in file.parts])
        if not found:
            raise MissingDataFile(f"{self.folder / pattern} names no file; get them from {self.origin} and put them there.")
        return [str(file.relative_to(self.folder)) for file in found]

    def exists(self, name: str) -> bool:
        """Whether folder/name is a file."""
        return (self.folder / name).is_file()

    def require(self, condition: Any, message: str, *, file: str, record: int) -> None:
        """Raise DataError with `message` about a record of a file (counted from 1) unless `condition` holds."""
        if not condition:
            raise DataError(f"{self.folder / file}, record {record}: {message}; get it anew from {self.origin}.")

    def _parse_object(self, text: str, where: str, *, fields: dict[str, JsonKind]) -> dict:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}); the file is cut short: get it anew from {self.origin}.") from None
        if fault := json_fault(row, fields):
            raise DataError(f"{where}: {fault}; get it anew from {self.origin}.")
        return row

    def _not_empty(self, rows: list[dict], name: str) -> list[dict]:
        if not rows:
            raise DataError(f"{self.folder / name} holds no record; get it anew from {self.origin}.")
        return rows


class HubRows:
    """Records through the `datasets` library, called as rows(path, config, split)."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}
        """The library's fingerprint of every split that was read, by "hub:path/config/split"."""

    def __call__(self, path: str, config: str | None, split: str) -> list[dict]:
        """Rows of a split. Raises DataError where the library or the network is missing."""
        try:
            import datasets
        except ModuleNotFoundError:
            raise DataError('the `datasets` library is missing; install it with pip install -e ".[hub]".') from None
        try:
            rows = datasets.load_dataset(path, config, split=split)
        except Exception as error:  # the library raises errors of its own, of the hub and of the network
            raise DataError(f"the hub did not give {path} ({config}, {split}): {type(error).__name__}: "
                            f"{str(error).splitlines()[0] if str(error) else ''}") from None
        self.hashes[f"hub:{path}/{config}/{split}"] = rows._fingerprint
        return list(rows)
