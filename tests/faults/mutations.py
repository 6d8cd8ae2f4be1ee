"""Seeded damage to bytes, JSON values and zip archives. Every function takes a `random.Random`, so that a seed is a case."""

import hashlib
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

WORDS = ["", "a", "../../x", "/etc/passwd", "\0", "\ud800", "a" * 5000, "nan", "\u202e", "1e999", "x\ny", "%s%n", "__class__"]
NUMBERS = [0, 1, -1, 2, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308,
           float("inf"), float("-inf"), float("nan")]
PLAIN = [None, True, False, [], {}, [[]], [{}], {"": 0}, *NUMBERS, *WORDS]
_EDGES = [struct.pack(order + kind, value) for order in "<>" for kind in "IQ"
          for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)]


def damage_bytes(data: bytes, rng: Random) -> bytes:
    """A few bytes of damage: flips, cuts, holes, copies, edges of number formats."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at, length = rng.randrange(len(out) + 1), rng.choice([1, 1, 2, 8, 100, 5000])
        kind = rng.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.choice([0, 0xFF, 0x7F, 0x80, rng.randrange(256)])
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = rng.randbytes(length)
        elif kind == 4:
            out[at : at + length] = bytes(length)
        elif kind == 5:
            del out[at:]
        elif kind == 6:
            out[at:at] = out[max(0, at - length) : at]
        else:
            edge = rng.choice(_EDGES)
            out[at : at + len(edge)] = edge
    return bytes(out)


def odd_value(rng: Random, value: Any = None) -> Any:
    """A value of another kind, or at the edge of its kind."""
    kind = rng.randrange(8)
    if kind == 0:
        return [value]
    if kind == 1:
        return {"a": value}
    if kind == 2 and isinstance(value, int | float):
        return rng.choice([-value, value + 1, value * 10**9, str(value), float(value)])
    if kind == 3 and isinstance(value, str):
        return rng.choice([value + "x", value[:-1], value * 100, value.upper(), list(value)[:50]])
    if kind == 4:
        deep: Any = value
        for _ in range(rng.choice([5, 50, 300])):
            deep = [deep]
        return deep
    return rng.choice(PLAIN)


def damage_json(values: Any, rng: Random) -> Any:
    """A copy of a JSON value in which one to three places are something else, missing, or new."""
    values = json.loads(json.dumps(values))
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(_places(values))
        if not places:
            return odd_value(rng, values)
        holder, key = rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(WORDS)] = holder.pop(key)
        elif kind == 2 and isinstance(holder, dict):
            holder[rng.choice(["unknown", *WORDS])] = odd_value(rng)
        else:
            holder[key] = odd_value(rng, holder[key])
    return values


def _places(value: Any):
    """Every (container, key) in a JSON value."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def damage_json_file(data: bytes, rng: Random) -> bytes:
    """Damage to the values, or to the text, of a JSON file."""
    kind = rng.randrange(12)
    if kind == 0:
        return damage_bytes(data, rng)
    if kind == 1:
        return b"[" * rng.choice([10, 1000, 100_000]) + data
    if kind == 2:
        return data.rstrip().removesuffix(b"}") + b', "' + rng.choice([b"a", b"format", b"model"]) + b'": ' + b"1" * 5000 + b"}"
    text = json.dumps(damage_json(json.loads(data), rng))
    if kind == 3:
        return text.replace(": ", ": " + rng.choice(["", "[", "-", "0x", "1e400, ", '"a": ']), 1).encode()
    return text.encode()


def damage_json_lines(data: bytes, rng: Random) -> bytes:
    """Damage to a file of JSON lines: to one line, or to the order and number of lines."""
    lines = data.splitlines(keepends=True)
    if not lines or rng.randrange(8) == 0:
        return damage_bytes(data, rng)
    at = rng.randrange(len(lines))
    kind = rng.randrange(8)
    if kind == 0:
        lines.append(lines[at])
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines[at] = lines[at].rstrip(b"\n")
    else:
        lines[at] = damage_json_file(lines[at], rng).replace(b"\n", b" ") + b"\n"
    return b"".join(lines)


def damage_answers(data: bytes, rng: Random) -> bytes:
    """Damage to a file of answers; half of the time its lines have the checksums of what they say, as a forger writes them."""
    damaged = damage_json_lines(data, rng)
    if rng.randrange(2):
        return damaged
    lines = []
    for line in damaged.splitlines():
        try:
            row = json.loads(line)
            del row["sha256"]
            lines.append(json.dumps(row | {"sha256": hashlib.sha256(json.dumps(row).encode()).hexdigest()}).encode())
        except (ValueError, TypeError, KeyError, RecursionError):
            lines.append(line)
    return b"\n".join(lines) + b"\n"


def damage_safetensors(data: bytes, rng: Random) -> bytes:
    """Damage to the header of a safetensors file, whose length is then right again; or to its bytes."""
    length = int.from_bytes(data[:8], "little")
    if rng.randrange(3) == 0:
        return damage_bytes(data, rng)
    header = damage_json_file(data[8 : 8 + length], rng)
    claimed = len(header) if rng.randrange(8) else rng.choice([0, 2**20, 2**40, 2**63])
    return claimed.to_bytes(8, "little") + header + data[8 + length :]


def damage_zip(data: bytes, rng: Random) -> bytes:
    """Damage to one member of a zip archive, whose checksum is then right again; or to the archive's bytes."""
    if rng.randrange(3) == 0:
        return damage_bytes(data, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        target = rng.choice([name for name in names if name.endswith(".pkl")] * 3 + names)
        for name in names:
            content = old.read(name)
            if name == target:
                content = random_pickle(rng, content) if name.endswith(".pkl") else damage_bytes(content, rng)
            method = zipfile.ZIP_DEFLATED if rng.randrange(10) == 0 else zipfile.ZIP_STORED
            new.writestr(zipfile.ZipInfo(name), content, method)
    return out.getvalue()


_NUMBER_OPCODES = [pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.BININT, pickle.LONG4,
                   pickle.LONG1]
_PLAIN_OPCODES = [pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.MARK, pickle.TUPLE, pickle.TUPLE1,
                  pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND, pickle.APPENDS,
                  pickle.SETITEM, pickle.SETITEMS, pickle.BUILD, pickle.REDUCE,
                  pickle.NEWOBJ, pickle.STOP, pickle.POP, pickle.DUP, pickle.NONE, pickle.BINPERSID, pickle.FROZENSET,
                  pickle.EMPTY_SET, pickle.STACK_GLOBAL, pickle.MEMOIZE, b"ccollections\nOrderedDict\n", b"cos\nsystem\n",
                  b"cbuiltins\neval\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", pickle.BINUNICODE +
                  struct.pack("<I", 3) + b"abc"]


def random_pickle(rng: Random, content: bytes) -> bytes:
    """A pickle with other instructions somewhere, among them those that make Python's own unpickler allocate or hang."""
    kind = rng.randrange(5)
    if kind == 0:
        return damage_bytes(content, rng)
    if kind == 1:  # nested tuples, each twice in the next: 2^n steps for whoever hashes or prints them
        doubled = pickle.EMPTY_TUPLE + (pickle.DUP + pickle.TUPLE2) * rng.choice([10, 60, 10_000])
        return b"\x80\x02" + pickle.EMPTY_DICT + doubled + pickle.NONE + pickle.SETITEM + pickle.STOP
    if kind == 2:  # every memo index, and every length
        number = rng.choice([0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
        return b"\x80\x02}" + rng.choice(_NUMBER_OPCODES) + struct.pack("<I", number) + content[2:]
    at, others = rng.randrange(len(content) + 1), b"".join(rng.choices(_PLAIN_OPCODES, k=rng.choice([1, 3, 30])))
    return content[:at] + others + content[at + rng.choice([0, 0, 1, 5]) :]


Damage = Callable[[bytes, Random], bytes]

DAMAGE_BY_SUFFIX: dict[str, Damage] = {".json": damage_json_file, ".jsonl": damage_json_lines, ".pth": damage_zip,
                                       ".safetensors": damage_safetensors}
"""How a file is damaged, by its suffix; every other one by its bytes."""
