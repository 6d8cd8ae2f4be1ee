"""The core of cleaning: counts add up, the output is the same whatever happens on the way, and failures are sentences."""

import bz2
import errno
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard
from rich.console import Console

from llama_jax.clean import items, steps
from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.items import DamagedInput, Dropped, decode_text, open_raw, read_lines
from llama_jax.clean.report import collect_counts, counts_table, print_examples
from llama_jax.clean.stages import Workplace, remove_intermediate, run_stages
from llama_jax.errors import ConfigError, DataError
from tests.clean.lines import LINES, clean_lines, read_numbered, recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path) -> Path:
    """Five files, of which one is empty, with every way to be dropped."""
    folder = tmp_path / "source"
    (folder / "below").mkdir(parents=True)
    (folder / "a.txt").write_text("good\ntoo short\n\nagain good\nsaid twice\n")
    (folder / "b.txt").write_bytes(b"caf\xe9\nunheard of\nwith a \0 in it\n")
    (folder / "c.txt").write_text("")
    (folder / "below" / "d.txt.gz").write_bytes(gzip.compress("größer\n".encode() * 3))
    (folder / "e.txt").write_text("last line without an end")
    (folder / ".hidden.txt").write_text("hidden\n")
    (folder / "other.csv").write_text("other\n")
    return folder


def counts_of(output: Path) -> dict:
    return {(step.stage, step.step): step for step in collect_counts(output)}


def test_counts(tmp_path, source, documents, untimed):
    output = clean_lines(source, tmp_path / "out")
    assert [record["text"] for record in documents(output)] == [
        "GOOD", "AGAIN GOOD", "CAFÉ", "GRÖSSER", "GRÖSSER", "GRÖSSER", "LAST LINE WITHOUT AN END"]
    assert [record["id"] for record in documents(output)] == [
        "a.txt/0", "a.txt/3", "b.txt/0", "below/d.txt.gz/0", "below/d.txt.gz/1", "below/d.txt.gz/2", "e.txt/0"]
    assert documents(output)[1]["metadata"] == {"line": 3}
    counts = counts_of(output)
    assert list(counts) == [("first", "read"), ("first", "louder"), ("second", "not twice")]
    read, louder, twice = counts.values()
    assert (read.documents_in, read.documents_out, read.dropped) == (12, 11, {"binary": [1, 0]})
    assert read.other == {"files": 5}
    assert (louder.documents_in, louder.documents_out) == (11, 8)
    assert louder.dropped == {"empty": [1, 0], "louder failed: KeyError": [1, 10], "short": [1, 9]}
    ascii_text = "goodtoo shortagain goodsaid twicecafunheard oflast line without an end"
    assert read.bytes_out == louder.bytes_in == len(ascii_text) + len("é".encode()) + 3 * len("größer".encode())
    assert (twice.documents_in, twice.documents_out, twice.dropped) == (8, 7, {"twice": [1, 10]})
    assert twice.bytes_out == sum(len(record["text"].encode()) for record in documents(output))
    offered = {"settings.json", "report.json", *(f"{number:05d}.jsonl.zst" for number in (0, 1, 2, 4))}  # 3 is empty
    assert set(untimed(output)) == offered
    assert json.loads((output / "report.json").read_text())[0]["step"] == "read"


def test_table_and_examples(tmp_path, source):
    output = clean_lines(source, tmp_path / "out")
    console = Console(width=60, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(counts_table(collect_counts(output)))
    rows = [line.split() for line in console.export_text().splitlines()]
    assert ["louder", "11", "0.00", "8", "0.00"] in rows and ["dropped:", "short", "1", "0.00"] in rows
    print_examples(output, collect_counts(output), number=1, console=console)
    text = console.export_text()
    console.file.close()
    assert "louder: kept" in text and "louder: dropped, short" in text and "not twice: dropped, twice" in text
    assert any("good" in line and "GOOD" in line for line in text.splitlines()), "before and after stand side by side"
    assert re.search(r"(?m)^read: dropped, .*\n  \S+\n(?! *[│╭])", text), "what was dropped unread is a name, not an empty box"
    assert "again" not in text and text.count("b.txt/0") <= 1, "one example each"


def test_workers(tmp_path, source, untimed):
    alone = untimed(clean_lines(source, tmp_path / "one", workers=1))
    assert untimed(clean_lines(source, tmp_path / "four", workers=4)) == alone
    assert untimed(clean_lines(source, tmp_path / "one", workers=3)) == alone, "the same command again"


def test_intermediate_files_go(tmp_path, source, untimed):
    output = clean_lines(source, tmp_path / "out")
    before = untimed(output)
    remove_intermediate(output)
    assert {entry.name for entry in (output / ".work").iterdir() if entry.is_dir()} == {"stages", "examples"}
    assert untimed(clean_lines(source, output)) == before


def start(source: Path, output: Path, *, workers: int = 2) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "tests.clean.lines", str(source), str(output), str(workers)], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def processes_of(session: int) -> list[int]:
    """Processes of a session that have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def wait_for_end(session: int) -> list[int]:
    end = time.monotonic() + 20
    while (left := processes_of(session)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to see what processes are left")
def test_kill_at_any_time(tmp_path, source, untimed):
    for number in range(6):
        (source / f"slow{number}.txt").write_text("sleep 0.2\n" + f"line {number}\n" * 2000 + "sleep 0.2\nsaid twice\n")
    whole = untimed(clean_lines(source, tmp_path / "whole", workers=2))
    chance = random.Random(7)
    kills = 0
    output = tmp_path / "killed"
    for _ in range(30):
        process = start(source, output)
        time.sleep(chance.uniform(0.5, 3.5))
        done = process.poll() is not None
        process.kill()
        process.communicate()
        if done:
            break
        kills += 1
        assert not wait_for_end(process.pid), "workers end with the command"
    process = start(source, output)
    errors = process.communicate()
    assert process.returncode == 0, errors
    assert kills and untimed(output) == whole


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to see what processes are left")
def test_interrupt(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.txt").write_text("sleep 60\n")
    process = start_through_main(folder, tmp_path / "out")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted; the same command goes on" and "Traceback" not in errors, errors
    assert not wait_for_end(process.pid)


AS_A_COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell runs the tests in the background, deaf to it
from pathlib import Path
from llama_jax import __main__ as entry
from llama_jax.cli import clean
from tests.clean.lines import clean_lines
clean.run_clean = lambda asked: clean_lines(Path(asked.input[0]), Path(asked.output), workers=2)
sys.exit(entry.main(["clean", "--source", "books", "--input", sys.argv[1], "--output", sys.argv[2]]))
"""


def start_through_main(folder: Path, output: Path) -> subprocess.Popen:
    """Start as a user does, so that main says how an interruption ends; returns when the workers are at work."""
    process = subprocess.Popen([sys.executable, "-c", AS_A_COMMAND, str(folder), str(output)], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    logs = output / ".work" / "stages" / "0-first" / "logs"
    end = time.monotonic() + 60
    while not (logs / "task_00001.log").exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    return process


def test_other_settings_or_input(tmp_path, source, untimed):
    output = clean_lines(source, tmp_path / "out")
    before = untimed(output)
    (source / "a.txt").write_text("gone\n")
    with pytest.raises(DataError, match=r"out holds documents of other input or settings: a\.txt has changed\. Remove it, or"):
        clean_lines(source, output)
    (source / "a.txt").unlink()
    with pytest.raises(DataError, match=r"a\.txt is missing"):
        clean_lines(source, output)
    (source / "z.txt").write_text("new\n")
    place = Workplace(find_input_files((str(source),), LINES), output)
    with pytest.raises(DataError, match=r'files|a\.txt is missing; language was null and is "de"'):
        run_stages(recipe(place), place, settings={"source": "lines", "language": "de"})
    assert untimed(output) == before
    (source / "z.txt").unlink()
    (source / "a.txt").write_text("good\ntoo short\n\nagain good\nsaid twice\n")
    place = Workplace(find_input_files((str(source),), LINES), output)
    later = {"source": "lines", "added_later": ""}
    assert run_stages(recipe(place), place, settings=later), "an option that came later and is not used"
    assert untimed(output) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all my work")
    with pytest.raises(DataError, match="mine is not empty, and not an output of this command"):
        clean_lines(source, tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (output / "settings.json").write_text("{half")
    with pytest.raises(DataError, match=r"settings\.json is damaged"):
        clean_lines(source, output)


def test_two_commands_at_once(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.txt").write_text("sleep 30\n")
    (folder / "b.txt").write_text("sleep 30\n")
    process = start(folder, tmp_path / "out")
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "out/.work/stages/0-first/logs/task_00000.log").exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        with pytest.raises(DataError, match=r"another command is at work on .*out; wait for it"):
            clean_lines(folder, tmp_path / "out")
    finally:
        process.kill()
        process.communicate()


def test_a_worker_that_the_system_ends(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.txt").write_text("sleep 60\n")
    process = start(folder, tmp_path / "out")
    locks = tmp_path / "out/.work/stages/0-first/logs/task_00001.log"
    end = time.monotonic() + 60
    while not locks.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    workers = [pid for pid in processes_of(process.pid) if pid != process.pid]
    os.kill(max(workers), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 3 and "Traceback" not in errors
    assert "the system ended its process, mostly because memory ran out; fewer --workers need less" in errors
    assert not wait_for_end(process.pid)


DAMAGE = {
    "cut.txt.gz": lambda text: gzip.compress(text, mtime=0)[:-20],
    "cut.txt.bz2": lambda text: bz2.compress(text)[:-20],
    "cut.txt.zst": lambda text: zstandard.ZstdCompressor().compress(text)[:-20],
    "no.txt.gz": lambda text: b"this is no gzip file at all",
    "no.txt.bz2": lambda text: b"nor is this one of bzip2",
    "no.txt.zst": lambda text: b"nor this one of zstandard",
    "no.txt.xz": lambda text: b"nor this one of xz, but long enough",
}


def test_damaged_files(tmp_path, documents, untimed):
    folder = tmp_path / "source"
    folder.mkdir()
    chance = random.Random(3)
    text = "".join(f"line {chance.random()}\n" for _ in range(20_000)).encode()
    for name, damage in DAMAGE.items():
        (folder / name).write_bytes(damage(text))
    (folder / "whole.txt").write_text("whole\n")
    for empty in ("empty.txt", "empty.txt.gz", "empty.txt.zst"):
        (folder / empty).write_bytes(b"")
    output = clean_lines(folder, tmp_path / "out")
    untimed(output)
    damaged = counts_of(output)["first", "read"].damaged
    assert {what.partition(":")[0] for what in damaged} == set(DAMAGE)
    assert all("damaged ." in what for what in damaged), damaged
    records = documents(output)
    assert sum(record["id"].startswith("cut.txt.gz") for record in records) > 10_000, "what came before the damage stays"
    assert "WHOLE" in [record["text"] for record in records]


def test_nothing_but_damage_is_still_counted(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "no.txt.gz").write_bytes(b"no gzip")
    counts = counts_of(clean_lines(folder, tmp_path / "out"))
    assert list(counts["first", "read"].damaged) and counts["second", "not twice"].documents_out == 0


def test_unreadable_folder(tmp_path, source, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot read .*: Permission denied"):
        clean_lines(source, tmp_path / "out")


def test_disk_full(tmp_path, source, monkeypatch, untimed):
    whole = untimed(clean_lines(source, tmp_path / "whole"))

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(steps.WriteDocuments, "_write", refuse)
        with pytest.raises(DataError, match=r"first, task 0 of 5 failed: No space left on device .*The same command goes on\."):
            clean_lines(source, tmp_path / "out")
    assert untimed(clean_lines(source, tmp_path / "out")) == whole


def test_output_that_cannot_be_made(tmp_path, source):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot make the folder .*: Not a directory"):
        clean_lines(source, tmp_path / "file" / "out")


def test_inputs(tmp_path, source):
    with pytest.raises(DataError, match="does not exist"):
        find_input_files((str(tmp_path / "nowhere"),), LINES)
    with pytest.raises(ConfigError, match="nothing to clean"):
        find_input_files((), LINES)
    with pytest.raises(ConfigError, match=r"name .*a\.txt twice"):
        find_input_files((str(source), str(source / "a.txt")), LINES)
    (source / "loop").symlink_to(source)
    (source / "link.txt").symlink_to(source / "nowhere")
    assert [file.name for file in find_input_files((str(source),), LINES)] == [
        "a.txt", "b.txt", "below/d.txt.gz", "c.txt", "e.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing to read; wanted are text files"):
        find_input_files((str(tmp_path / "empty"),), LINES)
    (tmp_path / "empty" / "a.txt").write_text("another of that name\n")
    both = find_input_files((str(source), str(tmp_path / "empty")), LINES)
    assert len({file.name for file in both}) == 6, "ids of documents stay apart"


def test_encodings():
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        assert decode_text("naïve".encode(encoding)) == "naïve"
    for data, reason in ((b"a\0b", "binary"), (b"\x81\x8d", "unknown encoding")):
        with pytest.raises(Dropped, match=reason):
            decode_text(data)


def test_long_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "MAX_BYTES", 8 << 20)
    (tmp_path / "a.txt").write_bytes(b"first\r\n" + b"x" * (30 << 20) + b"\nlast\n" + b"y" * (9 << 20))
    with open_raw(tmp_path / "a.txt") as stream:
        lines = list(read_lines(stream))
    assert [line if isinstance(line, bytes) else str(line) for line in lines] == [
        b"first", "a line of more than 8 MiB", b"last", "a line of more than 8 MiB"]


BOMB = """
import resource, sys
from pathlib import Path
from tests.clean.lines import clean_lines
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clean_lines(Path(sys.argv[1]), Path(sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.slow
def test_bomb_in_bounded_memory(tmp_path):
    (tmp_path / "source").mkdir()
    gigabyte = gzip.compress(bytes(1 << 30), 1)
    (tmp_path / "source" / "zeros.txt.gz").write_bytes(gigabyte * 10)
    del gigabyte
    done = subprocess.run([sys.executable, "-c", BOMB, str(tmp_path / "source"), str(tmp_path / "out")], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300, "megabytes"
    assert counts_of(tmp_path / "out")["first", "read"].dropped == {"a line of more than 64 MiB": [1, 0]}


def test_what_json_cannot_hold(tmp_path, documents):
    source = tmp_path / "a.txt"
    source.write_text("text\n")
    place = Workplace(find_input_files((str(source),), LINES), tmp_path / "out")
    stage = place.stage("first", place.read(read_numbered), place.edit("odd", odd_metadata), place.write())
    assert run_stages([stage], place, settings={})
    metadata = {"line": 0, "title": "?", "big": str(1 << 70), "list": ["?", 1.5, None]}
    assert documents(tmp_path / "out") == [{"text": "half a pair: ?", "id": "a.txt/0", "metadata": metadata}]


def odd_metadata(text, metadata):
    metadata |= {"title": "\ud800", "big": 1 << 70, "list": ("\udfff", 1.5, None)}
    return "half a pair: \ud83d"


def test_imports_are_light():
    def printed(program: str) -> str:
        return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout

    program = "import sys, llama_jax.clean.stages; print('jax' in sys.modules, 'datatrove' in sys.modules)"
    assert printed(program) == "False True\n"
    program = ("import sys; from llama_jax.__main__ import main\ntry: main(['clean', '--help'])\n"
               "except SystemExit: print('datatrove' in sys.modules, 'jax' in sys.modules)")
    assert printed(program).endswith("False False\n")


def test_damage_names_the_file(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"no")
    with pytest.raises(DamagedInput, match=r"damaged \.gz: Not a gzipped file"), open_raw(tmp_path / "a.gz") as stream:
        stream.read()
