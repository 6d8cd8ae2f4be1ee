"""The heartbeat file, and the watchdog, which sees a step that hangs and nothing else."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_jax.training import heartbeat
from llama_jax.training.heartbeat import HEARTBEAT_FILE, STACKS_FILE, Heartbeat

ROOT = Path(__file__).parents[2]

HANGS = """
import sys, threading, time
from pathlib import Path
from llama_jax.training import heartbeat
heartbeat._TICK = 0.05
beat = heartbeat.Heartbeat(Path(sys.argv[1]), active=True, hang_seconds=0.5)
with beat.phase("compiling"):
    time.sleep(1)
for step in (1, 2, 3):
    beat.step(step)
    time.sleep(0.2)
with beat.phase("evaluating"):
    time.sleep(1)
print("hangs now", flush=True)
def wait_for_the_device():
    threading.Event().wait()
wait_for_the_device()
"""


def read(workdir: Path) -> dict:
    return json.loads((workdir / HEARTBEAT_FILE).read_text())


def test_a_step_that_hangs_ends_with_all_stacks(tmp_path):
    done = subprocess.run([sys.executable, "-c", HANGS, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "hangs now\n")
    assert done.stderr.splitlines()[-1].startswith("error: no step has ended for ") and "after step 3 was begun" in done.stderr
    for text in (done.stderr, (tmp_path / STACKS_FILE).read_text()):
        assert "in wait_for_the_device" in text and "Current thread" in text
    assert read(tmp_path)["phase"] == "hanging" and read(tmp_path)["step"] == 3


def test_the_file_says_how_far_the_run_is(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "_TICK", 0.01)
    beat = Heartbeat(tmp_path, active=True, hang_seconds=0)

    def wait_for(**values) -> dict:
        end = time.monotonic() + 20
        while True:
            line = read(tmp_path) if (tmp_path / HEARTBEAT_FILE).exists() else {}
            if values.items() <= line.items():
                return line
            assert time.monotonic() < end, line
            time.sleep(0.01)

    assert wait_for(step=0, phase="opening").keys() == {"step", "phase", "time", "alive", "pid", "host"}
    beat.step(7)
    line = wait_for(step=7, phase="training")
    assert line["time"] <= line["alive"] <= time.time() + 1
    with beat.phase("evaluating"):
        wait_for(step=7, phase="evaluating")
    wait_for(phase="training")
    beat.close()
    assert read(tmp_path)["phase"] == "ended"


def test_a_disk_that_takes_no_file_ends_nothing(tmp_path):
    beat = Heartbeat(tmp_path / "missing", active=True, hang_seconds=0)
    beat.step(1)
    beat.close()


def test_time_for_the_slowest_save_is_set_aside(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(heartbeat, "set_aside", told.append)
    monkeypatch.setattr(heartbeat, "_TICK", 0.02)
    beat = Heartbeat(tmp_path, active=False, hang_seconds=0)
    beat.expect_checkpoint(1_000_000_000)
    time.sleep(0.2)
    assert told[-1] == pytest.approx(1.5 * 10 + 1), "1 GB at 100 MB/s, until one has been written"
    monkeypatch.setattr(beat, "_longest_save", 1.0)
    beat.begin_to_save(tmp_path / "5", 0)
    time.sleep(1.3)
    (tmp_path / "5").mkdir()
    time.sleep(0.2)
    beat.step(1), time.sleep(0.5), beat.step(2)
    time.sleep(0.2)
    beat.close()
    assert 2 * 0.5 + 1.5 * 1.3 + 1 <= told[-1] < 8
    assert not [file for file in tmp_path.iterdir() if file.name == HEARTBEAT_FILE], "another process writes it"
