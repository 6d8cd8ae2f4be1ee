"""Files of torch.save (the zip format) without torch: a reader that executes nothing, and a writer that streams."""

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from llama_jax.errors import DataError
from llama_jax.formats.torch_pickle import (
    MAX_PICKLE_BYTES,
    ForbiddenGlobal,
    TensorRecord,
    UnsupportedTensor,
    read_tensor_list,
    state_dict_pickle,
)

_MAX_BYTEORDER = 16
"""Bytes of the member that says "little" or "big"."""
_ALIGNMENT = 64
"""Storages begin at multiples of so many bytes, so that torch can map them into memory."""
_LOCAL_HEADER_BYTES, _ZIP64_EXTRA_BYTES = 30, 20


class TorchFile:
    """The tensors of a state dict that torch.save wrote, read one at a time; raises DataError where the file is damaged."""

    def __init__(self, path: Path):
        self.path = path
        with self._errors_named():
            self._zip, self._bytes = zipfile.ZipFile(path), path.stat().st_size
            member = next((name for name in self._zip.namelist() if name.endswith("data.pkl")), None)
            if member is None:
                raise DataError(f"{path} holds no tensors (no data.pkl); torch.save in its zip format should have written it.")
            self._root = member.removesuffix("data.pkl")
            order = self._root + "byteorder"
            if order in self._zip.namelist() and self._read_small(order, _MAX_BYTEORDER) != b"little":
                raise DataError(f"{path} was written on a big-endian machine; save it again on another.")
            values = read_tensor_list(self._read_small(member, MAX_PICKLE_BYTES))
            self._records = {name: value for name, value in values.items()
                             if isinstance(value, TensorRecord | UnsupportedTensor)}

    def _read_small(self, member: str, most: int) -> bytes:
        """A member beside the tensors; raises DataError where the zip says that it is larger than `most` bytes."""
        if (size := self._zip.getinfo(member).file_size) > most:
            raise DataError(f"{self.path} holds {member} of {size:,} bytes; no model has such a large one.")
        return self._zip.read(member)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Turn what zipfile and pickle raise about a file into a DataError that names it."""
        try:
            yield
        except ForbiddenGlobal as error:
            raise DataError(f"{self.path} asks to run {error}, which no file of weights needs; nothing was run. Do not trust "
                            "this file.") from None
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}.") from None
        except DataError:
            raise
        except Exception as error:  # whatever a damaged zip or pickle makes their readers raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise DataError(f"{self.path} is damaged, or not in torch's zip format ({reason}); get it again, or save it again "
                            "with a newer torch.") from None

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """(shape, dtype) of the tensors by name; raises DataError where one has a dtype that weights cannot have."""
        records = {name: self._record(name) for name in self._records}
        return {name: (record.shape, record.dtype) for name, record in records.items()}

    def _record(self, name: str) -> TensorRecord:
        record = self._records[name]
        if isinstance(record, UnsupportedTensor):
            raise DataError(f"{name} in {self.path} is a {record.storage.removesuffix('Storage')} tensor; weights should be "
                            "float32, bfloat16 or float16.")
        return record

    def read(self, name: str) -> np.ndarray:
        """Read one tensor; raises DataError where its bytes do not have the zip's checksum."""
        record = self._record(name)
        with self._errors_named():
            member = self._zip.getinfo(f"{self._root}data/{record.key}")
            if member.file_size != record.count * record.dtype.itemsize:
                raise ValueError(f"storage {record.key} does not have the size of its tensors")
            # torch never compresses; where nothing is compressed, memory holds no more than the file does
            if member.compress_type != zipfile.ZIP_STORED or member.file_size > self._bytes:
                raise ValueError(f"storage {record.key} is compressed or larger than the file")
            data = np.empty(record.count, record.dtype)
            view, at = memoryview(data.view(np.uint8)), 0
            with self._zip.open(member) as stream:
                while at < len(view):
                    if not (count := stream.readinto(view[at:])):
                        raise ValueError(f"storage {record.key} ends early")
                    at += count
                stream.read(1)  # zipfile compares the checksum when it meets the end
        steps = tuple(step * data.itemsize for step in record.stride)
        return np.lib.stride_tricks.as_strided(data[record.offset :], record.shape, steps)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()


class TorchWriter:
    """Writes a state dict that torch.load(weights_only=True) reads, one tensor after another.

    `shapes` are the shapes of all tensors by name, which `write` must then be given one by one.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[int, ...]], *, dtype: np.dtype):
        self._path, self._shapes, self._dtype = path, shapes, dtype
        self._numbers = {name: number for number, name in enumerate(shapes)}

    def __enter__(self) -> "TorchWriter":
        self._stream = open(self._path, "wb")
        self._zip = zipfile.ZipFile(self._stream, "w", zipfile.ZIP_STORED)
        try:
            self._add_member("data.pkl", state_dict_pickle(self._shapes, self._dtype))
            self._add_member("byteorder", b"little")
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            try:
                self._add_member("version", b"3\n")
                self._zip.close()
                self._stream.close()
            except BaseException:
                self._abandon()
                raise
        else:
            self._abandon()

    def _abandon(self) -> None:
        """Close a file that cannot be finished, ignoring further errors."""
        self._zip.fp = None  # else the zip writes its directory when it is collected, and fails again
        with suppress(OSError):
            self._stream.close()

    def _add_member(self, name: str, content: bytes | memoryview) -> None:
        """Add a file to the zip, its content aligned by an extra field that readers skip."""
        info = zipfile.ZipInfo(f"{self._path.stem}/{name}")
        begin = self._stream.tell() + _LOCAL_HEADER_BYTES + len(info.filename.encode()) + _ZIP64_EXTRA_BYTES + 4
        padding = -begin % _ALIGNMENT
        info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
        with self._zip.open(info, "w", force_zip64=True) as stream:
            stream.write(content)

    def write(self, name: str, array: np.ndarray) -> None:
        """Write the tensor `name`, which is cast to the file's dtype."""
        array = np.ascontiguousarray(array, self._dtype)
        self._add_member(f"data/{self._numbers[name]}", memoryview(array.reshape(-1).view(np.uint8)))
