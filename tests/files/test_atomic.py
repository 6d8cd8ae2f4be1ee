"""A file is written whole or not at all, and a path that cannot be written is an error before the work."""

import os
import threading
from pathlib import Path

import pytest

from llama_jax.errors import DataError
from llama_jax.files.atomic import check_writable, write_atomic
from llama_jax.files.jsonl import write_jsonl


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_what_breaks_off_leaves_what_was_there(tmp_path, error):
    def rows():
        yield {"n": 1}
        raise error

    (tmp_path / "x.jsonl").write_text("before\n")
    with pytest.raises(DataError if error is OSError else error):
        write_jsonl(tmp_path / "x.jsonl", rows())
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"] and (tmp_path / "x.jsonl").read_text() == "before\n"


def test_pipes_devices_and_links_stay_what_they_are(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_jsonl(tmp_path / "pipe", [{"n": 1}])
    reader.join(10)
    assert found == [b'{"n": 1}\n'] and (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to("real")
    write_atomic(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"x"
    (tmp_path / "null").symlink_to(os.devnull)
    write_atomic(tmp_path / "null", b"x")
    assert Path(os.devnull).is_char_device()


def test_what_cannot_be_written_is_told_before_the_work(tmp_path):
    check_writable(tmp_path / "new/x.jsonl")
    assert [file.name for file in tmp_path.rglob("*")] == ["new"]
    for file, sentence in ((tmp_path / "new", "it is a folder"), (tmp_path / "new" / ("x" * 300), "cannot write .*too long"),
                           (Path(__file__) / "x", "cannot make the folder")):
        with pytest.raises(DataError, match=sentence):
            check_writable(file)
        with pytest.raises(DataError):
            write_jsonl(file, [])
