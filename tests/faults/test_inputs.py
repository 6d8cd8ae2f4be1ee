"""A short part of the bad inputs of `python -m tests.faults inputs`, and every case that once failed."""

import io
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest

from llama_jax.errors import DataError
from llama_jax.formats.torch_pickle import read_tensor_list, state_dict_pickle
from llama_jax.formats.torchfile import TorchFile
from tests.faults.inputs import FINE, run_cases
from tests.faults.targets import TARGETS

LATE = {"run"}
"""Kinds whose cases take seconds each: the long runs alone have them."""
QUICK = [kind for kind in TARGETS if kind not in LATE]
ONCE_FAILED = [tuple(line.split()) for line in Path(__file__).with_name("once_failed.txt").read_text().splitlines()]
"""(kind, number) of cases that ended in a traceback, a crash, a hang or in too much memory before they were mended."""


def failures(cases, seconds: float = float("inf")) -> list[str]:
    outcomes = run_cases(cases, seconds=seconds)
    assert outcomes
    return [f"{one.kind} {one.number}: {one.ended} {one.text}" for one in outcomes if one.ended not in FINE]


def test_a_few_of_each_kind():
    once = [(kind, int(number)) for kind, number in ONCE_FAILED]
    assert not failures([*once, *((kind, number) for kind in QUICK for number in range(500, 504))])


@pytest.mark.slow
def test_many_of_each_kind():
    """For two minutes at most; the same in every run as far as it gets."""
    cases = [(kind, number) for number in range(1000, 1200) for kind in QUICK]
    assert not failures(sorted(cases, key=lambda case: (case[1] // 20, case[0])), seconds=100)


def zip_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(f"x/{name.replace('_', '.') if name == 'data_pkl' else name}", content)
    return path


PICKLES = {
    # nested tuples as a key, each twice in the next: 2^60 steps to hash
    "doubled key": b"\x80\x02}" + b")" + (pickle.DUP + pickle.TUPLE2) * 60 + pickle.NONE + pickle.SETITEM + b".",
    # 200,000 tuples in each other: a hash of it overflows the C stack
    "deep key": b"\x80\x02}" + b")" + pickle.TUPLE1 * 200_000 + pickle.NONE + pickle.SETITEM + b".",
    "name of a nested tuple": b"\x80\x02}" + b")" + pickle.TUPLE1 * 100_000 + pickle.NONE + pickle.STACK_GLOBAL + b".",
    "no end": b"\x80\x02}",
    "nothing to take": b"\x80\x02" + pickle.TUPLE3,
    "no mark": b"\x80\x02}" + pickle.SETITEMS,
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_exhaust_pythons_unpickler(tmp_path, name):
    begin = time.monotonic()
    with pytest.raises(DataError, match="is damaged, or not in torch's zip format"):
        TorchFile(zip_of(tmp_path / "x.pth", data_pkl=PICKLES[name]))
    assert time.monotonic() - begin < 20


def test_a_memo_index_is_no_size():
    """Python's unpickler makes a table of 2^32 places for it."""
    assert read_tensor_list(b"\x80\x02}r\xff\xff\xff\xff.") == {}


def test_sizes_of_members_are_checked_before_they_are_read(tmp_path):
    with pytest.raises(DataError, match="holds x/byteorder of 100,000,000 bytes"):
        TorchFile(zip_of(tmp_path / "a.pth", byteorder=bytes(100_000_000), data_pkl=b"\x80\x02}."))
    with pytest.raises(DataError, match=r"holds x/data.pkl of 100,000,000 bytes"):
        TorchFile(zip_of(tmp_path / "b.pth", data_pkl=bytes(100_000_000)))


def test_a_compressed_storage_is_refused(tmp_path):
    """10 MB of zeros in 10 kB: what is compressed could be of any size."""
    import numpy as np

    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("x/data.pkl", state_dict_pickle({"a": (2_500_000,)}, np.dtype(np.float32)))
        out.writestr("x/data/0", bytes(10_000_000))
    with pytest.raises(DataError, match="is compressed or larger than the file"):
        TorchFile(path).read("a")


def test_a_stride_of_zero_does_not_multiply_a_number():
    import numpy as np

    good = state_dict_pickle({"x": (2,)}, np.dtype(np.float32))
    number = lambda n: pickle.BININT + struct.pack("<i", n)  # noqa: E731
    many = good.replace(b"(" + number(2) + b"t(" + number(1) + b"t", b"(" + number(1 << 30) + b"t(" + number(0) + b"t")
    assert many != good
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        read_tensor_list(many)


def test_pickles_of_torch_itself_are_read():
    """Protocol 4's instructions too, which `pickle_protocol=4` of torch.save writes."""
    values = {"a": 1, "b": [1, 2.5, None, True], "c": ({"d": "e"}, ())}
    for protocol in (2, 3, 4):
        stream = io.BytesIO()
        pickle.dump(values, stream, protocol)
        assert read_tensor_list(stream.getvalue()) == values
