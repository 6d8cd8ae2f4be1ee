"""Which safetensors files of a Hugging Face folder hold its weights, which tensors lie in them, and their checksums."""

import json
import logging
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from llama_jax.errors import DamagedError, DataError
from llama_jax.files.encoding import is_unicode
from llama_jax.files.json_kinds import show_value
from llama_jax.files.json_object import read_json_object

LOG = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
"""All weights in one file."""
INDEX_FILE = "model.safetensors.index.json"
"""Where each tensor lies, for weights in several files."""

IGNORED_SUFFIX = "rotary_emb.inv_freq"
"""How the rotary frequencies are called that old files store in every layer; they are computed from the config."""

_CHECKSUMS = "llama_jax.crc32"
"""Key of a file's metadata, which other readers skip, under which `convert` stores the checksum of every tensor as JSON."""

_OTHER_WEIGHTS = re.compile(r"(model|pytorch_model).*\.(safetensors|bin)(\.index\.json)?")
"""Names that transformers gives to files of weights and to their indexes."""
_MAX_FILE_NAME = 255
_MAX_NAMED = 4
"""Number of unread files that the warning names."""


class StoredTensor(NamedTuple):
    """Where a tensor lies, and what its file says of it."""

    file: Path
    dtype: str
    """Dtype by safetensors' name, such as "BF16"."""
    shape: tuple[int, ...]
    checksum: str | None = None
    """What `tensor_checksum` gave when it was written; None in files of other projects and of earlier versions."""

    def read(self, name: str, *, verify: bool = True) -> np.ndarray:
        """The tensor, which is called `name` in its file; raises DataError where it cannot be read.

        Raises DamagedError where it is to be verified and does not have its checksum.
        """
        try:
            with safe_open(self.file, framework="np") as weights:  # closed at once, so that mapped pages leave memory
                array = weights.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{name} in {self.file} cannot be read ({error}); get the file again.") from None
        if verify and self.checksum is not None and tensor_checksum(array) != self.checksum:
            raise DamagedError(f"{name} in {self.file} is not what was written: its checksum is another; get the file again, or "
                               "convert the weights again.")
        return array


def tensor_checksum(array: np.ndarray) -> str:
    """CRC-32 of a tensor's dtype and bytes, as 8 hexadecimal digits."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return f"{zlib.crc32(data, zlib.crc32(array.dtype.name.encode())):08x}"


def checksums_as_metadata(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The checksums of a file's tensors, as the metadata of the file holds them."""
    return {_CHECKSUMS: json.dumps({name: tensor_checksum(array) for name, array in tensors.items()})}


def find_weight_files(folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """(safetensors files, index from tensor to file name, or None where there is one file); raises DataError.

    WEIGHTS_FILE goes before an index, which an earlier save may have left there: transformers does the same.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [_file_inside(folder, WEIGHTS_FILE)], None
    if not (folder / INDEX_FILE).is_file():
        raise DataError(f"{folder} holds neither {WEIGHTS_FILE} nor {INDEX_FILE}; weights in other formats are not read.")
    names = read_json_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise DataError(f"{folder / INDEX_FILE} has no weight_map from tensors to files; get it again.")
    return [_file_inside(folder, name) for name in sorted(set(names.values()))], names


def _file_inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder; raises DataError where it is absent or leads outside.

    The links of a Hugging Face cache lead from a snapshot to the blobs of the same model, which count as inside.
    """
    if not is_unicode(name) or "\0" in name or len(name) > _MAX_FILE_NAME:
        raise DataError(f"{folder} names the file {show_value(name)}, which is no file's name; get {INDEX_FILE} again.")
    file, home = folder / name, folder.resolve()
    if home.parent.name == "snapshots":
        home = home.parent.parent
    if not Path(os.path.normpath(file)).is_relative_to(os.path.normpath(folder)) or not file.resolve().is_relative_to(home):
        raise DataError(f"{name} leads outside of {folder}; a folder of weights should hold them itself.")
    if not file.is_file():
        raise DataError(f"{folder} names {name}, which is not there; get the missing file.")
    return file


def find_tensors(files: list[Path]) -> dict[str, StoredTensor]:
    """All tensors of these files by name; raises DataError where a file is damaged or two files hold one name."""
    found: dict[str, StoredTensor] = {}
    for file in files:
        for name, stored in _read_header(file).items():
            if name in found and not name.endswith(IGNORED_SUFFIX):
                raise DataError(f"{name} lies in both {found[name].file.name} and {file.name} of {file.parent}; files of two "
                                "models are mixed: get them again.")
            found[name] = stored
    return found


def _read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors in a file by name; raises DataError where it is damaged."""
    try:
        with safe_open(file, framework="np") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
            checksums = json.loads((weights.metadata() or {}).get(_CHECKSUMS, "{}"))
            return {name: StoredTensor(file, part.get_dtype(), tuple(part.get_shape()), checksums.get(name))
                    for name, part in slices.items()}
    except (ValueError, AttributeError):
        raise DamagedError(f"{file} is not what was written: its checksums are damaged; get it again.") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is not a whole safetensors file ({str(error)[:200]}); get it again.") from None


def warn_of_unread_weights(folder: Path, files: list[Path], *, index: dict[str, str] | None) -> None:
    """Log a warning that names other weights in the folder than `files`, which are read."""
    read = {file.name for file in files}
    main = WEIGHTS_FILE
    if index is not None:
        read.add(INDEX_FILE)
        main = INDEX_FILE
    unread = sorted(file.name for file in folder.iterdir() if _OTHER_WEIGHTS.fullmatch(file.name) and file.name not in read)
    unread.sort(key=lambda name: name != INDEX_FILE)  # the index first, as it stands for many files
    named = unread[:_MAX_NAMED]
    if len(unread) > _MAX_NAMED:
        named.append(f"{len(unread) - _MAX_NAMED} more")
    if unread:
        LOG.warning("%s: %s is read; not read, though it lies there: %s.", folder, main, ", ".join(named))
