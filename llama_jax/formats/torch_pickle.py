"""The list of tensors in a file of torch.save: a pickle, read by an interpreter that knows data alone and so cannot run code.

Python's own unpickler is not used, even restricted to a few names: a few bytes make it allocate gigabytes (a memo index of 2^31),
and tuples nested in tuples make it hash for hours. Here every instruction costs a small constant, names are texts, and what an
instruction may refer to was made by an earlier one. The instructions are those of the module `pickletools`.
"""

import math
import pickle
import pickletools
from typing import Any, NamedTuple

import numpy as np

from llama_jax.formats.base import STORED_DTYPES

TORCH_STORAGES = {"FloatStorage": "float32", "BFloat16Storage": "bfloat16", "HalfStorage": "float16"}
"""The dtypes that torch's storage classes hold."""
MAX_PICKLE_BYTES = 4 << 20
"""Largest list of tensors that is read; the largest LLaMA's is under 1 MiB."""
_MAX_AXES, _MAX_NUMBER, _MAX_NAME = 8, 1 << 62, 1000
"""Axes of a tensor, any number in the list, and characters of a name."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
             "SHORT_BINSTRING", "BINSTRING", "BINBYTES", "SHORT_BINBYTES"}
"""Instructions that push their argument."""
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = {"PROTO", "FRAME"}


class TensorRecord(NamedTuple):
    """Where a tensor lies in its file."""

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


class UnsupportedTensor(NamedTuple):
    """A tensor of a dtype that weights cannot have."""

    storage: str
    """torch's storage class."""


class ForbiddenGlobal(Exception):
    """A pickle names a function or class that tensors do not need."""


class _Storage(NamedTuple):
    kind: str
    key: str
    count: int


class _Global(NamedTuple):
    name: str


def read_tensor_list(data: bytes) -> dict[str, Any]:
    """The state dict that `data` describes: names with a TensorRecord, an UnsupportedTensor, or a value that is no tensor.

    Raises:
        ForbiddenGlobal: It names a function or class that tensors do not need; nothing of it is looked up.
        ValueError: It is damaged, or not as torch.save writes it.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "STOP":
            [values] = stack
            if type(values) is not dict:
                raise ValueError(f"it should hold tensors by name, and holds a {type(values).__name__}")
            return values
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name not in _IGNORED:
            _run_instruction(name, argument, stack=stack, marks=marks)
    raise ValueError("it does not end")


def _run_instruction(name: str, argument: Any, *, stack: list[Any], marks: list[int]) -> None:
    """The instructions that build containers, and those that stand for tensors."""
    if name == "EMPTY_DICT":
        stack.append({})
    elif name == "EMPTY_LIST":
        stack.append([])
    elif name in _TUPLES or name == "TUPLE":
        items = _pop(stack, _TUPLES[name]) if name in _TUPLES else _pop_to_mark(stack, marks)
        stack.append(tuple(items))
    elif name in ("APPEND", "APPENDS"):
        items = _pop(stack, 1) if name == "APPEND" else _pop_to_mark(stack, marks)
        if type(stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        stack[-1].extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = _pop(stack, 2) if name == "SETITEM" else _pop_to_mark(stack, marks)
        _set_items(stack[-1], zip(items[::2], items[1::2], strict=True))
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        module, attribute = argument.split(" ") if name == "GLOBAL" else _pop(stack, 2)
        stack.append(_Global(_allowed_name(module, attribute)))
    elif name == "BINPERSID":
        stack.append(_storage_of(stack.pop()))
    elif name == "REDUCE":
        function, arguments = _pop(stack, 2)
        stack.append(_reduce(function, arguments))
    elif name == "BUILD":  # attributes, such as the _metadata of a state dict, which say nothing of tensors
        _, target = stack.pop(), stack[-1]
        if type(target) is not dict:
            raise ValueError("it sets attributes of what is no state dict")
    else:
        raise ValueError(f"it holds the instruction {name}, which no list of tensors needs")


def _pop(stack: list[Any], count: int) -> list[Any]:
    if count > len(stack):
        raise ValueError("it takes more than there is")
    return [stack.pop() for _ in range(count)][::-1]


def _pop_to_mark(stack: list[Any], marks: list[int]) -> list[Any]:
    begin = marks.pop()
    items = stack[begin:]
    del stack[begin:]
    return items


def _allowed_name(module: Any, attribute: Any) -> str:
    """The name of a function or class that tensors need; raises ForbiddenGlobal for any other."""
    if type(module) is not str or type(attribute) is not str:
        raise ValueError("it names a function by what is no text")
    if (module, attribute) == ("collections", "OrderedDict") or (
        module == "torch._utils" and attribute in ("_rebuild_tensor_v2", "_rebuild_parameter")
    ):
        return attribute
    if module == "torch" and attribute.isidentifier() and attribute.endswith("Storage"):
        return attribute
    raise ForbiddenGlobal(f"{module:.100}.{attribute:.100}")


def _set_items(target: Any, items: Any) -> None:
    if type(target) is not dict:
        raise ValueError("it sets items of what is no state dict")
    for key, value in items:
        # names alone: anything else would have to be hashed, and nested tuples take for ever
        if type(key) is not str or len(key) > _MAX_NAME:
            raise ValueError("it should hold tensors by name, and holds a key that is no name")
        target[key] = value


def _storage_of(described: Any) -> _Storage:
    if type(described) is not tuple or len(described) != 5:
        raise ValueError("a storage is not described as torch does it")
    kind, storage, key, _, count = described
    good = type(kind) is str and kind == "storage" and type(key) is str and len(key) <= _MAX_NAME
    if not (good and isinstance(storage, _Global) and _is_count(count)):
        raise ValueError("a storage is not described as torch does it")
    return _Storage(storage.name, key, count)


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < _MAX_NUMBER


def _reduce(function: Any, arguments: Any) -> Any:
    """The value that a call stands for; the function is a name, and nothing is called."""
    if not isinstance(function, _Global) or type(arguments) is not tuple:
        raise ValueError("it calls what is no function")
    if function.name == "OrderedDict":
        values: dict[str, Any] = {}
        for pair in arguments[0] if arguments else ():
            _set_items(values, [pair])
        return values
    if function.name == "_rebuild_parameter":  # a parameter is its tensor
        return arguments[0]
    if function.name == "_rebuild_tensor_v2":
        storage, offset, shape, stride = arguments[:4]
        return _tensor_of(storage, offset, shape=shape, stride=stride)
    raise ValueError(f"it calls {function.name}, which is no function")


def _tensor_of(storage: Any, offset: Any, *, shape: Any, stride: Any) -> TensorRecord | UnsupportedTensor:
    """A tensor as a view of a storage; raises ValueError where the view reaches beyond it, or repeats its elements."""
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    if storage.kind not in TORCH_STORAGES:
        return UnsupportedTensor(storage.kind)
    numbers_given = type(shape) is tuple and type(stride) is tuple and len(shape) == len(stride) <= _MAX_AXES
    if not numbers_given or not all(map(_is_count, (offset, *shape, *stride))):
        raise ValueError("a tensor's place is not given in numbers")
    size = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if size else 0
    # the second: a stride of 0 makes terabytes out of one number
    if last >= max(storage.count, 1) or size > storage.count:
        raise ValueError(f"a tensor of shape {shape} reaches beyond its storage")
    return TensorRecord(storage.key, STORED_DTYPES[TORCH_STORAGES[storage.kind]], storage.count, offset, shape, stride)


def state_dict_pickle(shapes: dict[str, tuple[int, ...]], dtype: np.dtype) -> bytes:
    """The pickle that torch.save would write for contiguous tensors by name, the n-th in a storage called n."""
    storage = next(name for name, held in TORCH_STORAGES.items() if held == dtype.name)
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
    return pickle.BINUNICODE + len(text.encode()).to_bytes(4, "little") + text.encode()


def _integer(number: int) -> bytes:
    data = pickle.encode_long(number)
    return pickle.BININT + number.to_bytes(4, "little") if number < 1 << 31 else pickle.LONG1 + bytes([len(data)]) + data


def _integers(numbers: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(map(_integer, numbers)) + pickle.TUPLE
