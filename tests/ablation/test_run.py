"""Studies as real processes: killed and begun again, two on one folder, arms that fail, bad command lines."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from llama_jax.__main__ import run_command
from llama_jax.ablation.slots import least_used_core, number_of_jobs
from llama_jax.config import Arm, Study
from llama_jax.files.lock import start_of_process
from tests.ablation.study import small_config, small_study, write_sources, write_study_file

ROOT = Path(__file__).parents[2]


def start(study: Study, workdir: Path, *arguments: str) -> subprocess.Popen:
    """`python -m llama_jax ablate`, with two workers at a time."""
    file = write_study_file(study, workdir.with_suffix(".json"))
    command = [sys.executable, "-m", "llama_jax", "ablate", "--config", file, "--workdir", workdir, "--jobs", "2", *arguments]
    return subprocess.Popen([*map(str, command)], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            env=os.environ | {"PYTHONPATH": str(ROOT)})


def finish(process: subprocess.Popen) -> str:
    """What the command printed, after it ended with exit code 0."""
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    return said


def measurements(workdir: Path) -> dict[str, str]:
    """What was measured of every run, without timing."""
    return {str(file.relative_to(workdir)): json.dumps(json.loads(file.read_text()) | {"timing": None})
            for file in workdir.glob("runs/*/*/measurements.json")}


def report(workdir: Path) -> dict:
    return json.loads((workdir / "report.json").read_text()) | {"timing": None}


def workers(workdir: Path) -> list[int]:
    """The living workers of a study, told from other processes of their numbers by when they started."""
    claims = [json.loads(file.read_text() or "{}") for file in workdir.glob("claims/*")]
    return [claim["pid"] for claim in claims if claim.get("cores") and claim["started"] == start_of_process(claim["pid"])]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    return small_study(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def whole(study, tmp_path_factory) -> Path:
    """The folder of a study that two commands ran together, without a stop."""
    workdir = tmp_path_factory.mktemp("whole") / "study"
    said = [*map(finish, [start(study, workdir, "--seeds", "2") for _ in range(2)])]
    assert all("report.html" in one for one in said)
    return workdir


@pytest.mark.slow
def test_two_commands_on_one_folder_run_every_arm_once(study, whole):
    assert len(measurements(whole)) == 2 * 4 and (whole / "report.html").is_file()
    for file in whole.glob("runs/*/*/metrics.jsonl"):
        steps = [json.loads(line)["step"] for line in file.read_text().splitlines() if '"loss"' in line]
        assert steps == [*range(1, len(steps) + 1)]
    assert {file.name for file in whole.glob("claims/*") if file.name[-1] != "0"} <= {"study.1", "report.1"}
    for log in whole.glob("logs/*"):
        assert log.read_text().count("compiled the train step") == 1
    wild = json.loads((whole / "runs/wild/1/measurements.json").read_text())
    assert wild["status"] == "diverged" and wild["reason"].startswith("step ") and "heldout" not in wild
    values = [json.loads(text) for text in measurements(whole).values()]
    assert len({value["stream_sha256"] for value in values if value["arm"] != "gqa"}) == 1
    assert len({value["heldout_sha256"] for value in values if value["arm"] != "wild"}) == 1
    assert {value["steps"] for value in values if value["arm"] == "gqa"} == {4}
    config = json.loads((whole / "runs/gqa/1/config.json").read_text())
    assert config["init_from"].endswith("pooled/gqa/1") and config["training"]["init_seed"] == 1


@pytest.mark.slow
def test_killed_five_times_gives_the_same_measurements(study, whole, tmp_path):
    """Everything is killed at random, once only asked to stop; a worker dies alone."""
    workdir, draw = tmp_path / "study", random.Random(0)
    for number in range(5):
        process = start(study, workdir, "--seeds", "2")
        with suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(6, 20))
        while number == 2 and process.poll() is None and not workers(workdir):
            time.sleep(0.1)
        if number == 2:
            process.send_signal(signal.SIGTERM)
            finish(process)
            continue
        for pid in workers(workdir):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if number != 3:
            process.kill()
        process.communicate()
    finish(start(study, workdir))
    assert measurements(workdir) == measurements(whole)
    assert report(workdir) == report(whole)
    before = measurements(workdir)
    assert "8 of 8 run(s) finished" in finish(start(study, workdir)) and measurements(workdir) == before


@pytest.mark.slow
def test_an_arm_that_fails_leaves_the_others_and_is_named(tmp_path):
    base = small_config(write_sources(tmp_path), num_steps=3, heldout_every=0)
    study = Study("small", arms=(Arm("good", base), Arm("lost", replace(base, init_from="nowhere"))), baseline="good")
    process = start(study, tmp_path / "study", "--seeds", "1")
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 1
    assert "error: lost seed 0 failed (no checkpoint at nowhere" in said.replace("\n", " ")
    assert list(measurements(tmp_path / "study")) == ["runs/good/0/measurements.json"]
    assert "(1 of 2 runs are not finished)" in finish(start(study, tmp_path / "study", "--report"))


def error_of(capsys, study: Study, folder: Path, *arguments: str) -> str:
    """The sentence that a bad command line ends in."""
    file = write_study_file(study, folder / "study.json")
    assert run_command("ablate", ["--config", str(file), "--workdir", str(folder / "runs"), *arguments], prog="ablate") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert not (folder / "runs").exists()
    return captured.err


@pytest.mark.parametrize("arguments, sentence", [
    (["--seeds", "0"], "--seeds must be at least 1, got 0."),
    (["--jobs", "-2"], "--jobs must be positive, or 0 for as many as the machine allows, got -2."),
    (["--sede", "1"], "unknown argument --sede; did you mean seeds?"),
    (["--training.num_steps", "1"], "optimizer.warmup_steps must be below training.num_steps, got 2 and 1"),
    (["--model.dimm", "1"], "unknown argument --model.dimm; did you mean model.dim"),
    (["--report"], "has no finished run to report; leave --report out to run the study."),
])
def test_bad_command_lines(capsys, study, tmp_path, arguments, sentence):
    assert sentence in error_of(capsys, study, tmp_path, *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("change, sentence", [
    ({"num_layers": 10**6}, "arm learned: its train step takes about "),
    ({"head_dim": 5, "position": "rope"}, "the width of a head must be even"),
])
def test_an_arm_that_cannot_run_here(capsys, study, tmp_path, change, sentence):
    file = write_study_file(study, tmp_path / "study.json")
    values = json.loads(file.read_text())
    values["arms"][1]["config"]["model"] |= change
    file.write_text(json.dumps(values))
    assert run_command("ablate", ["--config", str(file), "--workdir", str(tmp_path / "runs")], prog="ablate") == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_file_of_another_kind(capsys, tmp_path):
    (tmp_path / "a.py").write_text("from llama_jax.config import Study\ndef get_study():\n    return Study()")
    for name, sentence in ((str(tmp_path / "a.py"), "a.py: the study has no arms; name at least one."),
                           ("tiny", "it should define get_study() that returns a llama_jax.config.Study (`llama-jax train`"),
                           ("nrom", "no packaged config of that name; did you mean norm; known: document_masking, feedforward,")):
        assert run_command("ablate", ["--config", name], prog="ablate") == 2
        assert sentence in capsys.readouterr().err
    assert run_command("train", ["--config", "ablations/norm"], prog="train") == 2
    assert "(`llama-jax ablate` takes this file)" in capsys.readouterr().err


def test_workers_are_told_apart_by_core(monkeypatch):
    assert least_used_core([2, 3], []) == [2] and least_used_core([2, 3], [2]) == [3]
    assert least_used_core([2, 3], [2, 3, 3]) == [2]
    assert least_used_core([], [2]) == []
    assert number_of_jobs(0) == len(os.sched_getaffinity(0)) and number_of_jobs(5) == 5
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert number_of_jobs(0) == 1 and number_of_jobs(2) == 2 and least_used_core([0], []) == []
