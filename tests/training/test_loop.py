"""A run end to end: what it leaves behind, and that a killed run goes on bit for bit."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from llama_jax.config import Config, to_dict
from llama_jax.config.file import load_config
from llama_jax.errors import LlamaError
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training.compiled import build
from llama_jax.training.loop import fit
from llama_jax.training.metrics import TrainingMeter
from llama_jax.training.optimizer import learning_rate

ROOT = Path(__file__).parents[2]

KILLED_AT_30 = """
import os, signal, sys, time
from pathlib import Path
from llama_jax.config.file import load_config
from llama_jax.training.loop import fit

workdir = Path(sys.argv[2])
calls = []

def killer(params):
    calls.append(1)
    if len(calls) == 3:
        while not (workdir / "checkpoints/20").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

fit(load_config(Path(sys.argv[1])), workdir, evaluators=[killer])
"""


def write_sources(folder: Path) -> tuple[str, ...]:
    """Two sources of short documents, so that rows pack several."""
    rng = np.random.default_rng(0)
    for name, words in (("colours", ["red", "green", "blue", "grey"]), ("numbers", ["one", "two", "three", "ten"])):
        documents = [" ".join(rng.choice(words, rng.integers(3, 30))) + "." for _ in range(200)]
        lines = "".join(json.dumps({"text": document}) + "\n" for document in documents)
        (folder / f"{name}.jsonl").write_text(lines)
    return f"{folder}/colours.jsonl=0.7", f"{folder}/numbers.jsonl=0.3"


def small_config(folder: Path, **training) -> Config:
    config = load_config(ROOT / "configs/tiny.py")
    return replace(
        config,
        model=replace(config.model, vocab_size=288, dim=32, num_heads=4, num_kv_heads=2, num_layers=2, ffn_dim=48, max_length=64),
        compute=replace(config.compute, scan_layers=True),
        optimizer=replace(config.optimizer, warmup_steps=5),
        data=replace(config.data, sources=write_sources(folder), sequence_length=32),
        training=replace(config.training, **{"num_steps": 40, "batch_size": 16, "accumulation_steps": 2, "log_every": 5,
                                             "heldout_every": 10, "sample_tokens": 8, **training}),
        checkpoint=replace(config.checkpoint, every=20),
        eval=replace(config.eval, every=10),
    )


def final_state(config: Config, workdir: Path):
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    return Checkpoints(workdir / "checkpoints").restore(config.training.num_steps, build(config, mesh).abstract_state)


def metric_lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    config = small_config(tmp_path)
    file = tmp_path / "run.json"
    file.write_text(json.dumps(to_dict(config)))
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def train(workdir: Path) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "train.py", "--config", file, "--workdir", workdir]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    uninterrupted = train(whole)
    assert uninterrupted.returncode == 0, uninterrupted.stderr
    killed = subprocess.run([sys.executable, "-c", KILLED_AT_30, file, broken], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (broken / "checkpoints/40").exists()
    assert max(line["step"] for line in metric_lines(broken)) >= 25
    resumed = train(broken)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming" in resumed.stdout and "step 20" in resumed.stdout

    one, two = (jax.device_get(final_state(config, workdir)) for workdir in (whole, broken))
    chex.assert_trees_all_equal(one, two)
    assert int(one.step) == 40

    def losses(workdir: Path) -> list:
        return [(line["step"], line.get("loss"), line.get("heldout_loss"), line.get("sources")) for line in metric_lines(workdir)]

    assert losses(whole) == losses(broken)
    assert deterministic(whole) == deterministic(broken)


def test_run_directory(tmp_path):
    config, workdir = replace(small_config(tmp_path, num_steps=20), profile="3:2"), tmp_path / "run"
    heads = []
    state = fit(config, workdir, evaluators=[lambda params: heads.append(params["head"].shape) or {"answer": 42.0}])
    assert int(state.step) == 20 and heads == [(32, 288)] * 2
    for name in ("config.json", "tokenizer.model", "data", "checkpoints/20", "metrics.jsonl", "loss.png", "samples.txt",
                 "tensorboard"):
        assert (workdir / name).exists(), name
    assert list((workdir / "profile").rglob("*.xplane.pb")), "a trace of steps 3 and 4"
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
    lines = metric_lines(workdir)
    train, heldout = [x for x in lines if "loss" in x], [x for x in lines if "heldout_loss/colours" in x or "answer" in x]
    assert [line["step"] for line in train] == [5, 10, 15, 20] and [line["step"] for line in heldout] == [10, 20]
    last = train[-1]
    assert {"step", "tokens", "loss", "bits_per_byte", "grad_norm", "learning_rate", "tokens_per_second", "mfu", "seconds",
            "sources"} <= set(last)
    assert last["tokens"] == 20 * 16 * 32
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))
    seen = last["sources"]
    assert seen["colours"]["tokens"] == pytest.approx(0.7 * last["tokens"], rel=0.02)
    assert sum(source["tokens"] for source in seen.values()) == last["tokens"]
    assert heldout[-1]["answer"] == 42.0
    assert train[-1]["loss"] < train[0]["loss"]
    fit(config, workdir)  # the same call again finds nothing left to do
    assert [line["step"] for line in metric_lines(workdir)] == [line["step"] for line in lines]


def deterministic(workdir: Path) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    clocks = ("tokens_per_second", "mfu", "seconds", "seconds_left")
    return [{name: value for name, value in line.items() if name not in clocks} for line in metric_lines(workdir)]


def test_a_line_is_the_mean_since_the_last_one_also_after_a_resume(tmp_path, monkeypatch):
    """Lines at multiples of 5 and at the end, checkpoints at multiples of 7; one session stopped at 9, one lost at 16."""
    steps = {}
    add = TrainingMeter.add_step
    monkeypatch.setattr(TrainingMeter, "add_step",
                        lambda self, metrics: (steps.update({len(steps) + 1: metrics}), add(self, metrics)))
    config = small_config(tmp_path, num_steps=18, heldout_every=9, sample_tokens=0)
    config = replace(config, checkpoint=replace(config.checkpoint, every=7), eval=replace(config.eval, every=1))
    fit(config, tmp_path / "whole")
    whole = deterministic(tmp_path / "whole")
    train = [line for line in whole if "loss" in line]
    assert [line["step"] for line in train] == [5, 10, 15, 18] and len(steps) == 18
    assert len({metrics["tokens"] for metrics in steps.values()}) > 3, "rows of uneven weight"
    for first, line in zip((1, 6, 11, 16), train, strict=True):
        since = [steps[step] for step in range(first, line["step"] + 1)]
        mean = math.fsum(m["loss"] * m["tokens"] for m in since) / math.fsum(m["tokens"] for m in since)
        assert line["loss"] == pytest.approx(mean, rel=1e-12)
        assert line["grad_norm"] == since[-1]["grad_norm"]
        assert line["learning_rate"] == float(learning_rate(config.optimizer, 18)(line["step"]))

    calls = []

    def stopped_then_lost(params):
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        if len(calls) == 16:
            raise KeyError("power")
        return {}

    assert int(fit(config, tmp_path / "broken", evaluators=[stopped_then_lost]).step) == 9
    with pytest.raises(KeyError):
        fit(config, tmp_path / "broken", evaluators=[stopped_then_lost])
    assert Checkpoints(tmp_path / "broken/checkpoints").latest() == 14
    fit(config, tmp_path / "broken")
    assert deterministic(tmp_path / "broken") == whole
    seconds = [line["seconds"] for line in metric_lines(tmp_path / "broken") if "seconds" in line]
    assert seconds == sorted(seconds) and seconds[0] > 0, "the time of all sessions"


def test_no_pause_is_measured(tmp_path, monkeypatch):
    """A profile, evaluations and checkpoints beside lines at every step: none covers no time, none holds a pause."""
    config = replace(small_config(tmp_path, num_steps=8, log_every=1, heldout_every=8, sample_tokens=0), profile="3:2")
    config = replace(config, checkpoint=replace(config.checkpoint, every=6), eval=replace(config.eval, every=5))
    heard = []
    restart, line = TrainingMeter.restart_clock, TrainingMeter.training_line
    monkeypatch.setattr(TrainingMeter, "restart_clock",
                        lambda self, step: (heard.append(("restart", step)), restart(self, step))[1])
    monkeypatch.setattr(TrainingMeter, "training_line",
                        lambda self, step, m: (heard.append(("line", step)), line(self, step, m))[1])
    stop_trace = jax.profiler.stop_trace
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (stop_trace(), time.sleep(1.5)))
    fit(config, tmp_path / "run", evaluators=[lambda params: time.sleep(1.5) or {"answer": 1.0}])
    lines = [line for line in metric_lines(tmp_path / "run") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert heard == [("restart", 0), ("line", 1), ("line", 2), ("restart", 2), ("line", 3), ("line", 4), ("restart", 4),
                     ("line", 5), ("restart", 5), ("line", 6), ("restart", 6), ("line", 7), ("line", 8), ("restart", 8),
                     ("restart", 8)]
    for line in lines:
        assert line["mfu"] > 0 and 0 <= line["seconds_left"] < 1000 and math.isfinite(line["tokens_per_second"])
    assert lines[-1]["seconds"] - lines[3]["seconds"] > 1.5  # the run's time has all of it


@pytest.mark.parametrize("profile, said", [("3:9", "profile of steps 3 to 6:"), ("2:1", "profile of steps 2 to 2:"),
                                           ("7:1", "profile: the run ends at step 6, before step 7")])
def test_what_a_profile_holds_is_told(tmp_path, capsys, profile, said):
    config = small_config(tmp_path, num_steps=6, log_every=9, heldout_every=0, sample_tokens=0)
    fit(replace(config, profile=profile), tmp_path / "run")
    assert said in capsys.readouterr().out
    (line,) = [line for line in metric_lines(tmp_path / "run") if "loss" in line]
    assert line["step"] == 6 and 0 < line["tokens_per_second"] < math.inf and line["seconds_left"] == 0


def test_a_stop_request_saves(tmp_path):
    config, workdir = small_config(tmp_path, num_steps=40), tmp_path / "run"

    def stop(params):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    state = fit(config, workdir, evaluators=[stop])
    step = int(state.step)
    assert 10 <= step < 20
    assert Checkpoints(workdir / "checkpoints").latest() == step
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert int(fit(config, workdir).step) == 40


def test_a_run_that_diverges_stops_and_keeps_its_last_checkpoint(tmp_path):
    config, workdir = small_config(tmp_path, num_steps=40), tmp_path / "run"
    config = replace(config, optimizer=replace(config.optimizer, peak_lr=1e30, clip_norm=1e30))
    with pytest.raises(LlamaError, match="gradient norm"):
        fit(config, workdir)
    assert Checkpoints(workdir / "checkpoints").latest() is None
