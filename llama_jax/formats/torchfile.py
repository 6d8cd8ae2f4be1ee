"""Files of torch.save (the zip format) without torch: a reader that executes nothing, and a writer that streams."""

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llama_jax.errors import DataError
from llama_jax.formats.base import STORED_DTYPES

_STORAGES = {"FloatStorage": "float32", "BFloat16Storage": "bfloat16", "HalfStorage": "float16"}
"""The dtypes that torch's storage classes hold."""
_MAX_PICKLE_BYTES = 64 << 20
"""Largest pickle of a state dict that is read; the largest LLaMA's is under 1 MiB."""
_ALIGNMENT = 64
"""Storages begin at multiples of so many bytes, so that torch can map them into memory."""
_LOCAL_HEADER_BYTES, _ZIP64_EXTRA_BYTES = 30, 20


class _TensorRecord(NamedTuple):
    """Where a tensor lies in its file. A tuple, so that a pickle cannot change it after it was checked."""

    key: str
    """The storage is the zip's member data/<key>."""
    dtype: np.dtype
    count: int
    """Elements of the storage."""
    offset: int
    """Element of the storage at which the tensor begins."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """Elements of the storage from one index of an axis to the next."""


class _UnsupportedTensor(NamedTuple):
    """A tensor of a dtype that weights cannot have."""

    storage: str
    """torch's storage class."""


class _ForbiddenGlobal(Exception):
    """A pickle names a function or class that tensors do not need."""


class _StateDictUnpickler(pickle.Unpickler):
    """Unpickles a state dict into records of where its tensors lie.

    The only names a pickle can use are OrderedDict, torch's storage classes and torch's two rebuilders of tensors; what they
    stand for here computes records and nothing else, so that no code in a file is ever run.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _RebuildParameter()
        raise _ForbiddenGlobal(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(key, str) or type(count) is not int:
            raise pickle.UnpicklingError("a storage is not described as torch does it")
        return storage, key, count


class _RebuildTensor:
    """Stands for torch._utils._rebuild_tensor_v2; it has no attributes that a pickle could set."""

    __slots__ = ()

    def __call__(self, storage: tuple, offset: int, shape: tuple, stride: tuple, *_: Any) -> _TensorRecord | _UnsupportedTensor:
        name, key, count = storage
        if name not in _STORAGES:
            return _UnsupportedTensor(name)
        if not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
            raise pickle.UnpicklingError("a tensor's place is not given in numbers")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if math.prod(shape) else 0
        if last >= max(count, 1):
            raise pickle.UnpicklingError(f"a tensor of shape {shape} reaches beyond its storage")
        return _TensorRecord(key, STORED_DTYPES[_STORAGES[name]], count, offset, tuple(shape), tuple(stride))


class _RebuildParameter:
    """Stands for torch._utils._rebuild_parameter: a parameter is its tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


class TorchFile:
    """The tensors of a state dict that torch.save wrote, read one at a time; raises DataError where the file is damaged."""

    def __init__(self, path: Path):
        self.path = path
        with self._errors_named():
            self._zip = zipfile.ZipFile(path)
            member = next((name for name in self._zip.namelist() if name.endswith("data.pkl")), None)
            if member is None:
                raise DataError(f"{path} holds no tensors (no data.pkl); torch.save in its zip format should have written it.")
            self._root = member.removesuffix("data.pkl")
            order = self._root + "byteorder"
            if order in self._zip.namelist() and self._zip.read(order) != b"little":
                raise DataError(f"{path} was written on a big-endian machine; save it again on another.")
            if (size := self._zip.getinfo(member).file_size) > _MAX_PICKLE_BYTES:
                raise DataError(f"{path} has a list of tensors of {size:,} bytes; no model has such a long one.")
            values = _StateDictUnpickler(io.BytesIO(self._zip.read(member))).load()
            if not isinstance(values, dict) or not all(isinstance(name, str) for name in dict.keys(values)):
                raise DataError(f"{path} should hold tensors by name, got a {type(values).__name__}.")
            self._records = {name: value for name, value in dict.items(values)
                             if isinstance(value, _TensorRecord | _UnsupportedTensor)}

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Turn what zipfile and pickle raise about a file into a DataError that names it."""
        try:
            yield
        except _ForbiddenGlobal as error:
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

    def _record(self, name: str) -> _TensorRecord:
        record = self._records[name]
        if isinstance(record, _UnsupportedTensor):
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


def state_dict_pickle(shapes: dict[str, tuple[int, ...]], dtype: np.dtype) -> bytes:
    """The pickle that torch.save would write for contiguous tensors by name, the n-th in a storage called n."""
    storage = next(name for name, held in _STORAGES.items() if held == dtype.name)
    out = [pickle.PROTO, b"\x02", pickle.EMPTY_DICT, pickle.MARK]
    for number, (name, shape) in enumerate(shapes.items()):
        stride = tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))
        out += [_string(name), b"ctorch._utils\n_rebuild_tensor_v2\n", pickle.MARK,
                pickle.MARK, _string("storage"), f"ctorch\n{storage}\n".encode(), _string(str(number)), _string("cpu"),
                _integer(math.prod(shape)), pickle.TUPLE, pickle.BINPERSID,
                _integer(0), _integers(shape), _integers(stride), pickle.NEWFALSE,
                b"ccollections\nOrderedDict\n", pickle.EMPTY_TUPLE, pickle.REDUCE, pickle.TUPLE, pickle.REDUCE]
    return b"".join([*out, pickle.SETITEMS, pickle.STOP])


def _string(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text.encode())) + text.encode()


def _integer(number: int) -> bytes:
    data = pickle.encode_long(number)
    return pickle.BININT + struct.pack("<i", number) if number < 1 << 31 else pickle.LONG1 + bytes([len(data)]) + data


def _integers(numbers: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(map(_integer, numbers)) + pickle.TUPLE
