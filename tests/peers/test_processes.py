"""Several processes over jax.distributed on loopback: the same parameters as one, and an end when one is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from llama_jax.config import Config, to_dict
from llama_jax.config.file import load_config
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.loading import abstract_params

pytestmark = [pytest.mark.peers, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> Config:
    """The quickstart's run, smaller."""
    c = load_config(ROOT / "configs/tiny.py")
    return replace(
        c,
        model=replace(c.model, num_layers=2, dim=64, vocab_size=512, ffn_dim=128),
        data=replace(c.data, sequence_length=64, heldout_fraction=0.0),
        optimizer=replace(c.optimizer, warmup_steps=5),
        training=replace(c.training, num_steps=20, log_every=5, heldout_every=0, batch_size=8, sample_tokens=0),
        checkpoint=replace(c.checkpoint, every=20),
    )


def start(config: Config, workdir: Path, *, processes: int, devices: int) -> list[subprocess.Popen]:
    """train.py, started once per process, with `devices` CPU devices each; environment variables join the processes."""
    file = workdir.with_suffix(".json")
    file.write_text(json.dumps(to_dict(config)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "JAX_NUM_PROCESSES": str(processes),
                 "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "train.py", "--config", file, "--workdir", workdir]
    return [subprocess.Popen(command, env=os.environ | variables | {"JAX_PROCESS_ID": str(n)}, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for n in range(processes)]


def finish(processes: list[subprocess.Popen], seconds: float = 400) -> list[str]:
    """What each process has printed, after all have ended with exit code 0."""
    printed = [process.communicate(timeout=seconds)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), printed
    return printed


def trained(config: Config, workdir: Path):
    step = config.training.num_steps
    return jax.device_get(Checkpoints(workdir / "checkpoints").restore_params(step, abstract_params(config.model)))


def test_two_processes_equal_one_bit_for_bit(config, tmp_path):
    # one process that joins a run of one uses the same reductions (gloo) as two do; XLA's own would add in another order
    (one,) = finish(start(config, tmp_path / "one", processes=1, devices=4))
    two = finish(start(config, tmp_path / "two", processes=2, devices=2))
    assert "data 4 x fsdp 1 x tensor 1 x sequence 1, 1 process(es)" in one
    assert "data 4 x fsdp 1 x tensor 1 x sequence 1, 2 process(es)" in two[0] and "step 20/20" not in two[1]
    alone, together = trained(config, tmp_path / "one"), trained(config, tmp_path / "two")
    jax.tree.map(np.testing.assert_array_equal, alone, together)


def test_two_processes_go_on_with_other_rows_as_one_does(config, tmp_path):
    """10 steps, then 10 of half the rows, of half the length."""
    first = replace(config, training=replace(config.training, num_steps=10), checkpoint=replace(config.checkpoint, every=10))
    rest = replace(config, data=replace(config.data, sequence_length=32), training=replace(config.training, batch_size=4))
    for part in (first, rest):
        finish(start(part, tmp_path / "one", processes=1, devices=4))
        finish(start(part, tmp_path / "two", processes=2, devices=2))
    jax.tree.map(np.testing.assert_array_equal, trained(rest, tmp_path / "one"), trained(rest, tmp_path / "two"))
    last = [json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert last[0]["tokens"] == last[1]["tokens"] == 10 * 8 * 64 + 10 * 4 * 32
    assert last[0]["loss"] == last[1]["loss"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])  # its connections end, or stay and say nothing
def test_a_lost_process_ends_the_other_and_both_resume(how, config, tmp_path):
    config = replace(config, training=replace(config.training, num_steps=160))
    workdir = tmp_path / "run"
    first, second = start(config, workdir, processes=2, devices=2)
    until = time.monotonic() + 300
    while not (workdir / "checkpoints/20").exists() and time.monotonic() < until:
        time.sleep(0.02)
    second.send_signal(how)
    lost = time.monotonic()
    said, _ = first.communicate(timeout=90)
    second.kill()
    second.communicate()
    assert time.monotonic() - lost < 60
    assert first.returncode == 1, said
    assert "another process of this run is gone" in said and "same command" in said
    assert not (workdir / "checkpoints/160").exists()
    resumed = finish(start(config, workdir, processes=2, devices=2))
    assert f"resuming {workdir} at step" in resumed[0] and "step 160/160" in resumed[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])  # the one that jax listens for, and one that is forwarded
def test_a_stop_request_to_one_process_stops_both_at_the_same_step(number, config, tmp_path):
    config = replace(config, training=replace(config.training, num_steps=2000, log_every=500))
    workdir = tmp_path / "run"
    processes = start(config, workdir, processes=2, devices=2)
    until = time.monotonic() + 300
    while not (workdir / "checkpoints/20").exists() and time.monotonic() < until:
        time.sleep(0.02)
    processes[1].send_signal(number)
    said = finish(processes)
    assert f"{number.name}: saved step " not in said[0] and "another process was asked to stop: saved step " in said[0]
    step = int(said[0].partition("saved step ")[2].partition(";")[0])
    assert (workdir / f"checkpoints/{step}").is_dir() and 20 <= step < 2000
    once_more = replace(config, training=replace(config.training, num_steps=step + 5))
    assert f"resuming {workdir} at step {step}" in finish(start(once_more, workdir, processes=2, devices=2))[0]
