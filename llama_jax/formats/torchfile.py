"""torch's zip format without torch: a reader that executes nothing, and a writer that streams."""

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

STORAGES = {"FloatStorage": "float32", "BFloat16Storage": "bfloat16", "HalfStorage": "float16"}
"""torch's storage classes and the dtypes they hold."""
MOST_PICKLE = 64 << 20
"""Bytes of the list of tensors; a model's takes less than one of these 64 MiB."""
ALIGNMENT = 64
"""Bytes at whose multiples storages begin, so that torch can map them."""
LOCAL_HEADER, ZIP64_EXTRA = 30, 20


class Stored(NamedTuple):
    """Where a tensor lies. A tuple: nothing in a file can change it once it is require_finite."""

    key: str
    """Of the storage: the member data/<key>."""
    dtype: np.dtype
    count: int
    """Elements of the storage."""
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Foreign(NamedTuple):
    """A tensor of a dtype that no weights have."""

    storage: str


class _Refused(Exception):
    """A pickle asks for a name that tensors do not need."""


class _Listing(pickle.Unpickler):
    """Reads which tensors there are. Of all Python, a file can name a dict, a storage class and the two rebuilders."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name.endswith("Storage"):
            return name
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor()
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _Parameter()
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, str, int]:
        kind, storage, key, _, count = pid
        if kind != "storage" or not isinstance(key, str) or type(count) is not int:
            raise pickle.UnpicklingError("a storage is not described as torch does it")
        return storage, key, count


class _Tensor:
    """torch's rebuilder of a tensor, to us; without attributes that a file could set."""

    __slots__ = ()

    def __call__(self, storage: tuple, offset: int, shape: tuple, stride: tuple, *_: Any) -> Stored | Foreign:
        name, key, count = storage
        if name not in STORAGES:
            return Foreign(name)
        if not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
            raise pickle.UnpicklingError("a tensor's place is not given in numbers")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if math.prod(shape) else 0
        if last >= max(count, 1):
            raise pickle.UnpicklingError(f"a tensor of shape {shape} reaches beyond its storage")
        return Stored(key, STORED_DTYPES[STORAGES[name]], count, offset, tuple(shape), tuple(stride))


class _Parameter:
    """torch's rebuilder of a parameter, to us: its tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


class TorchFile:
    """The tensors of one file that torch.save wrote."""

    def __init__(self, path: Path):
        self.path = path
        with self._readable():
            self._zip = zipfile.ZipFile(path)
            listing = next((name for name in self._zip.namelist() if name.endswith("data.pkl")), None)
            if listing is None:
                raise DataError(f"{path} holds no tensors (no data.pkl); torch.save in its zip format should have written it.")
            self._root = listing.removesuffix("data.pkl")
            order = self._root + "byteorder"
            if order in self._zip.namelist() and self._zip.read(order) != b"little":
                raise DataError(f"{path} was written on a big-endian machine; save it again on another.")
            if (size := self._zip.getinfo(listing).file_size) > MOST_PICKLE:
                raise DataError(f"{path} has a list of tensors of {size:,} bytes; that is no model.")
            values = _Listing(io.BytesIO(self._zip.read(listing))).load()
            if not isinstance(values, dict) or not all(isinstance(name, str) for name in dict.keys(values)):
                raise DataError(f"{path} should hold tensors by name, got a {type(values).__name__}.")
            self._stored = {name: value for name, value in dict.items(values) if isinstance(value, Stored | Foreign)}

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except _Refused as error:
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
        """(shape, dtype) by name; raises DataError for a dtype that no weights have."""
        for name, stored in self._stored.items():
            if isinstance(stored, Foreign):
                raise DataError(f"{name} in {self.path} is a {stored.storage.removesuffix('Storage')} tensor; weights should be "
                                "float32, bfloat16 or float16.")
        return {name: (stored.shape, stored.dtype) for name, stored in self._stored.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor; its bytes are require_finite against the zip's sum."""
        stored = self._stored[name]
        with self._readable():
            member = self._zip.getinfo(f"{self._root}data/{stored.key}")
            if member.file_size != stored.count * stored.dtype.itemsize:
                raise ValueError(f"storage {stored.key} has not the size of its tensors")
            data = np.empty(stored.count, stored.dtype)
            view, at = memoryview(data.view(np.uint8)), 0
            with self._zip.open(member) as stream:
                while at < len(view):
                    if not (count := stream.readinto(view[at:])):
                        raise ValueError(f"storage {stored.key} ends early")
                    at += count
                stream.read(1)  # the end: here the sum is compared
        steps = tuple(step * data.itemsize for step in stored.stride)
        return np.lib.stride_tricks.as_strided(data[stored.offset :], stored.shape, steps)

    def close(self) -> None:
        """The file."""
        self._zip.close()


class TorchWriter:
    """Writes tensors one after another into a file that torch.load(weights_only=True) reads."""

    def __init__(self, path: Path, shapes: dict[str, tuple[int, ...]], dtype: np.dtype):
        self._path, self._shapes, self._dtype = path, shapes, dtype
        self._numbers = {name: number for number, name in enumerate(shapes)}

    def __enter__(self) -> "TorchWriter":
        self._stream = open(self._path, "wb")
        self._zip = zipfile.ZipFile(self._stream, "w", zipfile.ZIP_STORED)
        try:
            self._member("data.pkl", listing(self._shapes, self._dtype))
            self._member("byteorder", b"little")
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            try:
                self._member("version", b"3\n")
                self._zip.close()
                self._stream.close()
            except BaseException:
                self._abandon()
                raise
        else:
            self._abandon()

    def _abandon(self) -> None:
        """Close what cannot be finished, without another word."""
        self._zip.fp = None
        with suppress(OSError):
            self._stream.close()

    def _member(self, name: str, content: bytes | memoryview) -> None:
        """One file in the zip, its content aligned by an extra field that readers skip."""
        info = zipfile.ZipInfo(f"{self._path.stem}/{name}")
        begin = self._stream.tell() + LOCAL_HEADER + len(info.filename.encode()) + ZIP64_EXTRA + 4
        padding = -begin % ALIGNMENT
        info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
        with self._zip.open(info, "w", force_zip64=True) as stream:
            stream.write(content)

    def write(self, name: str, array: np.ndarray) -> None:
        """One of the tensors that were announced."""
        array = np.ascontiguousarray(array, self._dtype)
        self._member(f"data/{self._numbers[name]}", memoryview(array.reshape(-1).view(np.uint8)))


def listing(shapes: dict[str, tuple[int, ...]], dtype: np.dtype) -> bytes:
    """The pickle of {name: tensor}, tensor n in storage n, as torch.save would write it."""
    storage = next(name for name, held in STORAGES.items() if held == dtype.name)
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
