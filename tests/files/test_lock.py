"""One writer of a folder: who is refused, what a killed holder leaves, and locks of other hosts."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_jax.data.prepare import prepare_data
from llama_jax.errors import DataError
from llama_jax.files import lock
from llama_jax.files.lock import LOCK_FILE, only_writer
from llama_jax.formats.new_folder import new_folder

ROOT = Path(__file__).parents[2]

HOLD = """
import sys, time
from pathlib import Path
from llama_jax.errors import LlamaError
from llama_jax.files.lock import only_writer
try:
    with only_writer(Path(sys.argv[1])):
        print("holds", flush=True)
        time.sleep(float(sys.argv[2]))
except LlamaError as error:
    print(error)
"""


def hold(folder: Path, seconds: float = 60) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder), str(seconds)], cwd=ROOT, text=True, stdout=subprocess.PIPE)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    process = hold(tmp_path)
    try:
        assert process.stdout.readline() == "holds\n"
        with pytest.raises(DataError, match=rf"another command is at work on {tmp_path}; wait for it, or name another --output "
                                            rf"\(process {process.pid} on .*, since \d{{4}}-\d\d-\d\d"), only_writer(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK_FILE).exists()
        with only_writer(tmp_path):
            assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    finally:
        process.kill()
        process.communicate()
    assert not [*tmp_path.iterdir()], "a lock that was released leaves nothing"


def test_of_ten_processes_at_once_one_works(tmp_path):
    """Also where the folder and the lock file are made meanwhile."""
    folder = tmp_path / "new" / "run"
    processes = [hold(folder) for _ in range(10)]
    try:
        said = [process.stdout.readline() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert said.count("holds\n") == 1, said
    assert sum(line.startswith(f"another command is at work on {folder}; ") for line in said) == 9, said


HAND_OVER = """
import os, sys
from pathlib import Path
from llama_jax.errors import LlamaError
from llama_jax.files.lock import only_writer
done = 0
while done < 30:
    try:
        with only_writer(Path(sys.argv[1])):
            os.close(os.open(sys.argv[1] + "/inside", os.O_CREAT | os.O_EXCL))
            os.unlink(sys.argv[1] + "/inside")
            done += 1
    except LlamaError:
        pass
"""


def test_the_folder_passes_from_hand_to_hand(tmp_path):
    """A holder removes its lock file while others open it: never do two hold the folder, and each gets its turn."""
    command = [sys.executable, "-c", HAND_OVER, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors


def test_what_prepare_and_convert_make_has_one_writer(tmp_path, tokenizer):
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 50)
    shards, weights = tmp_path / "shards", tmp_path / "weights"
    with only_writer(tmp_path / "other", file=tmp_path / ".weights.lock"):
        process = hold(shards)
        try:
            assert process.stdout.readline() == "holds\n"
            with pytest.raises(DataError, match=f"at work on {shards}; wait for it"):
                prepare_data([str(tmp_path / "text.txt")], tokenizer, output=shards, workers=1)
            said = f"at work on {weights}; wait for it, or name another folder"
            with pytest.raises(DataError, match=said), new_folder(weights, needed=1):
                pass
        finally:
            process.kill()
            process.communicate()
    prepare_data([str(tmp_path / "text.txt")], tokenizer, output=shards, workers=1)
    (tmp_path / ".weights.1.unfinished").mkdir()  # as a killed process leaves it
    with new_folder(weights, needed=1) as folder:
        (folder / "w").write_text("w")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["shards", "text.txt", "weights"]
    assert not (shards / LOCK_FILE).exists()


def test_inside_itself_it_does_nothing(tmp_path):
    with only_writer(tmp_path), only_writer(tmp_path / "."):
        assert [file.name for file in tmp_path.iterdir()] == [LOCK_FILE]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot make the folder"), only_writer(tmp_path / "file" / "run"):
        pass


def foreign_lock(folder: Path) -> Path:
    """The lock of a process on another host."""
    file = folder / LOCK_FILE
    file.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "2026-01-01 00:00:00", "machine": "m", "started": "5"}))
    return file


def test_a_lock_of_another_host_is_taken_over_when_it_is_silent(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "_SILENT_SECONDS", 1.5)
    foreign_lock(tmp_path)
    with only_writer(tmp_path):
        pass
    assert "is the lock of process 1 on elsewhere, since 2026-01-01 00:00:00; looking for 2 seconds" in capsys.readouterr().err


def test_a_lock_of_another_host_that_gives_signs_of_life_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_SILENT_SECONDS", 10)
    file, ended = foreign_lock(tmp_path), threading.Event()

    def live():
        while not ended.wait(0.2):
            os.utime(file)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        said = rf"process 1 on elsewhere.*If that process is gone, remove {file}"
        with pytest.raises(DataError, match=said), only_writer(tmp_path):
            pass
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("alive", [True, False])
def test_a_file_system_without_locks(tmp_path, monkeypatch, alive):
    """The text decides: a process of this host is looked up."""
    monkeypatch.setattr(lock, "_lock", lambda handle: None)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    text = {"host": "here", "pid": process.pid, "since": "2026-01-01 00:00:00", "machine": lock.this_machine(),
            "started": lock.start_of_process(process.pid)}
    (tmp_path / LOCK_FILE).write_text(json.dumps(text))
    if not alive:
        process.communicate(b"\n")
    try:
        if alive:
            with pytest.raises(DataError, match=f"process {process.pid} on here"), only_writer(tmp_path):
                pass
        else:
            with only_writer(tmp_path):
                pass
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null", b'{"pid": "x"}'])
def test_a_damaged_lock_file_hinders_nobody(tmp_path, monkeypatch, content):
    monkeypatch.setattr(lock, "_SILENT_SECONDS", 0.1)
    (tmp_path / LOCK_FILE).write_bytes(content)
    with only_writer(tmp_path):
        pass


def test_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.05)
    with only_writer(tmp_path):
        first = (tmp_path / LOCK_FILE).stat().st_mtime_ns
        end = time.monotonic() + 10
        while (tmp_path / LOCK_FILE).stat().st_mtime_ns == first:
            assert time.monotonic() < end
            time.sleep(0.02)
