"""Stop requests to real train.py processes, in every phase: they end with code 0 and a sentence, and nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import chex
import jax
import pytest

from llama_jax.config import Config, to_dict
from llama_jax.files.lock import LOCK_FILE
from llama_jax.training.heartbeat import HEARTBEAT_FILE
from tests.training.test_loop import ROOT, deterministic, final_state, metric_lines, small_config

pytestmark = pytest.mark.slow

STEPS = 120


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """A run whose evaluations take about as long as its steps."""
    config = small_config(tmp_path_factory.mktemp("sources"), num_steps=STEPS, log_every=1, heldout_every=2, sample_tokens=32)
    return replace(config, data=replace(config.data, heldout_fraction=0.3), checkpoint=replace(config.checkpoint, every=10),
                   mesh=replace(config.mesh, data=1))


class Session:
    """One train.py process, whose output is read as it comes."""

    def __init__(self, config: Config, workdir: Path, *options: str):
        file = workdir.with_suffix(".json")
        file.write_text(json.dumps(to_dict(config)))
        command = [sys.executable, "train.py", "--config", file, "--workdir", workdir, *options]
        self.lines: list[str] = []
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONUNBUFFERED": "1"})
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self._reader.start()

    def wait_for(self, said: str) -> None:
        """Wait for a line, or for the end of the process."""
        end = time.monotonic() + 300
        while self.process.poll() is None and not any(said in line for line in self.lines):
            assert time.monotonic() < end, self.lines
            time.sleep(0.002)

    def wait_until_listening(self) -> None:
        """Wait until the process has its own way with SIGTERM: Python itself has started."""
        field = {"SigCgt", "SigBlk"}
        while True:
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
                          if ":\t" in line)
            if any(int(status[name], 16) >> (signal.SIGTERM - 1) & 1 for name in field):
                return
            time.sleep(0.001)

    def end(self) -> int:
        code = self.process.wait(timeout=300)
        self._reader.join()
        self.process.stdout.close()
        return code


def saved_steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.exists() else []


PHASES = ["", "mesh: ", "data: ", "compiled the train step", "step ", "held-out ", "planned ", f"step {STEPS}/{STEPS}"]
"""What a process has said when a moment later it gets the signal; "" where it has only just started."""

ROUNDS = int(os.environ.get("STOP_ROUNDS", "1"))
"""How often all phases get a request: some ten seconds each."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, to see that Python has started")
def test_requests_in_all_phases_lose_nothing(config, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    uninterrupted = Session(config, whole)
    assert uninterrupted.end() == 0, uninterrupted.lines
    rng = random.Random(17)
    for said in PHASES * ROUNDS:
        session = Session(config, stopped)
        session.wait_until_listening()
        session.wait_for(said)
        time.sleep(rng.uniform(0, 0.3 if said else 1.5))
        before = [line["step"] for line in metric_lines(stopped)] if (stopped / "metrics.jsonl").exists() else []
        session.process.send_signal(rng.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]))
        begin = time.monotonic()
        assert session.end() == 0, session.lines
        assert time.monotonic() - begin < 60
        text = "".join(session.lines)
        assert "Traceback" not in text and "Fatal" not in text, text
        assert "the same command" in session.lines[-1] or "--- a sample ---" in text, text
        assert max([0, *saved_steps(stopped)]) >= max([0, *before]), text
        assert not (stopped / LOCK_FILE).exists()
    session = Session(config, stopped)
    assert session.end() == 0, session.lines
    chex.assert_trees_all_equal(*(jax.device_get(final_state(config, workdir)) for workdir in (whole, stopped)))
    assert deterministic(whole) == deterministic(stopped)
    assert json.loads((stopped / HEARTBEAT_FILE).read_text())["phase"] == "ended"


def test_ten_processes_at_once_and_a_killed_owner(config, tmp_path):
    """One trains and nine are refused; after kill -9 the next start goes on."""
    workdir = tmp_path / "run"
    config = replace(config, training=replace(config.training, num_steps=2000))
    sessions = [Session(config, workdir) for _ in range(10)]
    try:
        refused = f"error: another command is at work on {workdir}; wait for it, or name another --workdir (process "
        end = time.monotonic() + 300
        while sum(session.process.poll() is not None for session in sessions) < 9:
            assert time.monotonic() < end
            time.sleep(0.1)
        (owner,) = [session for session in sessions if session.process.poll() is None]
        for session in sessions:
            if session is not owner:
                assert session.end() == 3 and len(session.lines) == 1 and session.lines[0].startswith(refused), session.lines
        owner.wait_for("step 12/")
        owner.process.kill()
        assert owner.end() == -signal.SIGKILL
        again = Session(config, workdir, "--stop_after", "1s", "--stop_exit_code", "75")
        sessions.append(again)
        assert again.end() == 75, again.lines
        assert "stopped by --stop_after 1s; the same command resumes\n" in again.lines
        short = Session(replace(config, training=replace(config.training, num_steps=30)), workdir)
        sessions.append(short)
        assert short.end() == 0 and "resuming" in "".join(short.lines), short.lines
    finally:
        for session in sessions:
            session.process.kill()
            session.end()
