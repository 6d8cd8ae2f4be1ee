"""Records that the storage refuses wait in memory, and none is lost, doubled or torn once it takes them again."""

import errno
import os
import resource
import signal
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import StorageError
from llama_jax.files.appended import AppendedFile
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.files.storage import check_room, reason_of

from .faulty import Fault, failing


@contextmanager
def files_of_at_most(size: int):
    """Writes beyond `size` bytes of a file fail, as on a full disk: part of a record may be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(records=st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(0, 300)), max_size=12))
def test_nothing_is_lost_doubled_or_torn(tmp_path_factory, records):
    """Each record under a limit of its own: the file always holds whole writes, and at the end all of them."""
    file = AppendedFile(tmp_path_factory.mktemp("x") / "new/x.jsonl")
    for record, limit in records:
        with files_of_at_most(limit):
            file.append(record)
        assert bool(file.failure) == bool(file._waiting)
        if file.failure:
            assert file.failure == os.strerror(errno.EFBIG)
    file.flush(durable=True)
    assert file.failure == "" and file.file.read_bytes() == b"".join(record for record, _ in records)


def test_a_record_written_in_part_is_cut_off_first(tmp_path):
    file = AppendedFile(tmp_path / "x")
    file.append(b"one\n")
    with files_of_at_most(6):
        file.append(b"two\n")
        assert (tmp_path / "x").read_bytes() == b"one\ntw"
        file.append(b"three\n")
    file.append(b"four\n")
    assert (tmp_path / "x").read_bytes() == b"one\ntwo\nthree\nfour\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("operation", ["open", "rename", "mkdir"])
def test_a_failed_write_leaves_what_was_there(tmp_path, operation, number):
    write_atomic(tmp_path / "x", b"before")
    with failing(Fault(tmp_path, operation, number=number)) as fault, pytest.raises(StorageError) as caught:
        make_folder(tmp_path / "new")
        write_atomic(tmp_path / "x", b"after")
    assert fault.raised == 1 and caught.value.reason == os.strerror(number) and os.strerror(number) in str(caught.value)
    assert (tmp_path / "x").read_bytes() == b"before" and not list(tmp_path.glob("*.tmp"))


def test_room_is_checked(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(StorageError, match=r"bytes are needed and [\d,]+ are free"):
        check_room(tmp_path, 1 << 60)
    with pytest.raises(StorageError, match="No such file"):
        check_room(tmp_path / "none", 1)


def test_reasons_in_plain_words():
    assert reason_of(OSError(errno.ENOSPC, "No space left on device", "/x")) == "No space left on device"
    told = ValueError("RESOURCE_EXHAUSTED: Error writing \"w/0.0\" in OCDBT database: Failed to write 7 bytes to file 4: "
                      "No space left on device [os_error_code='28']\nsource locations")
    assert reason_of(told) == "No space left on device"
    assert reason_of(StorageError("cannot write x: y.", "y")) == "y"
    assert reason_of(RuntimeError("first.\nsecond")) == "first" and reason_of(TimeoutError()) == "TimeoutError"
