"""Where tasks run: a Slurm cluster (programs that stand for its own), Ray, and what is said where these cannot run."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from llama_jax.clean import executors
from llama_jax.clean.executors import make_executor, parse_executor_options
from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.report import collect_counts, write_report
from llama_jax.clean.stages import Workplace, run_stages
from llama_jax.errors import ConfigError, DataError
from tests.clean.lines import LINES, clean_lines, recipe

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sysconfig.get_path("scripts"))

SBATCH = """#!/usr/bin/env bash
# sbatch [options] SCRIPT: note the call, and run the array's tasks one after another, or leave them queued
set -euo pipefail
script="${@: -1}"; number=$(( $(find "$SLURM_TEST" -name 'job*.sh' | wc -l) + 1 ))
cp "$script" "$SLURM_TEST/job$number.sh"; echo "$*" >> "$SLURM_TEST/calls"
if [ ! -e "$SLURM_TEST/wait" ]; then
    for argument in "$@"; do case "$argument" in --export=ALL,*) export "${argument#--export=ALL,}";; esac; done
    last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
    export SLURM_JOB_ID=$number SLURM_NODELIST=here
    for task in $(seq 0 "${last:-0}"); do
        SLURM_ARRAY_TASK_ID=$task bash "$script" > "$SLURM_TEST/out$number.$task" 2>&1 || true
    done
fi
echo "Submitted batch job $number"
"""
SRUN = """#!/usr/bin/env bash
while [ "${1#-}" != "$1" ]; do if [ "$1" = -n ]; then shift; fi; shift; done
exec "$@"
"""
SCONTROL = "#!/bin/sh\necho here\n"
SQUEUE = '#!/bin/sh\n[ -e "$SLURM_TEST/wait" ] && echo "1 cpu clean me PD 0:00 1 (Priority)"\nexit 0\n'


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "source").mkdir()
    for number in range(3):
        (tmp_path / "source" / f"{number}.txt").write_text(f"line {number}\ntoo short\nsaid twice\n")
    return tmp_path / "source"


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A folder that holds what was submitted; `wait` in it leaves jobs in the queue."""
    if not (SCRIPTS / "launch_pickled_pipeline").exists():
        pytest.skip("needs datatrove's command launch_pickled_pipeline")
    programs = tmp_path / "programs"
    programs.mkdir()
    (tmp_path / "slurm").mkdir()
    for name, program in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL, "squeue": SQUEUE}.items():
        (programs / name).write_text(program)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{SCRIPTS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_TEST", str(tmp_path / "slurm"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # where the package is not installed
    return tmp_path / "slurm"


def clean(source: Path, output: Path, **options) -> bool:
    place = Workplace(find_input_files((str(source),), LINES), output)
    return run_stages(recipe(place), place, settings={"source": "lines"}, **options)


OPTIONS = {"time": "10:00:00", "partition": "cpu", "qos": ""}


@pytest.mark.slow
def test_slurm(tmp_path, source, slurm, untimed):
    assert clean(source, tmp_path / "out", executor="slurm", workers=2, options=OPTIONS), (slurm / "out1.0").read_text()
    write_report(tmp_path / "out", collect_counts(tmp_path / "out"))
    assert untimed(tmp_path / "out") == untimed(clean_lines(source, tmp_path / "local"))


def test_slurm_queue(tmp_path, source, slurm, untimed):
    """Jobs that wait are not submitted twice; the second stage depends on the first."""
    (slurm / "wait").touch()
    assert not clean(source, tmp_path / "out", executor="slurm", workers=2, options=OPTIONS)
    script = (slurm / "job1.sh").read_text()
    for option in ("time=10:00:00", "partition=cpu", "array=0-2%2", "kill-on-invalid-dep=yes"):
        assert f"#SBATCH --{option}" in script.splitlines()
    assert "launch_pickled_pipeline" in script and "--qos" not in script
    calls = (slurm / "calls").read_text().splitlines()
    submitted = len(calls)
    assert any("--dependency=afterok:1" in call for call in calls)
    assert not clean(source, tmp_path / "out", executor="slurm", workers=2, options=OPTIONS)
    assert len((slurm / "calls").read_text().splitlines()) == submitted
    assert not list((tmp_path / "out").glob("*.jsonl.zst"))


def test_slurm_is_missing(tmp_path, source, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match="found no sbatch; run the command where jobs are submitted"):
        clean(source, tmp_path / "out", executor="slurm", options=OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "options", "message"), [
    ("slurm", {}, r"slurm needs --executor_options partition=VALUE time=VALUE\."),
    ("slurm", {"tim": 1}, "slurm has no option tim; did you mean time"),
    ("slurm", {"tasks": 9}, "slurm has no option tasks"),
    ("ray", {"partition": "cpu"}, "ray has no option partition"),
    ("local", {"time": 1}, r"local takes no executor_options, got time\.")])
def test_wrong_options(tmp_path, name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_executor(name, [], logs=tmp_path, tasks=1, workers=1, options=options)


def test_parsed_options():
    assert parse_executor_options(("time=10:00:00", "mem_per_cpu_gb=1.5", "workers=3", "requeue=False", "qos=",
                                   "sbatch_args={'account': 'me'}", "venv_path=/a=b")) == {
        "time": "10:00:00", "mem_per_cpu_gb": 1.5, "workers": 3, "requeue": False, "qos": "",
        "sbatch_args": {"account": "me"}, "venv_path": "/a=b"}
    for wrong in ("time", "=1", "a b=1"):
        with pytest.raises(ConfigError, match="executor_options are NAME=VALUE, got"):
            parse_executor_options((wrong,))


def test_ray_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="ray needs Ray: pip install ray"):
        make_executor("ray", [], logs=tmp_path, tasks=1, workers=1, options={})


def test_a_failure_that_an_executor_swallows(tmp_path, source, monkeypatch):
    """datatrove's executor for Ray gives up on a task after three attempts, and says so in its log alone."""
    monkeypatch.setattr(executors.LocalExecutor, "run", lambda self: None)
    with pytest.raises(DataError, match=r"stage first: 3 of 3 tasks failed .*The same command goes on\."):
        clean(source, tmp_path / "out")


RAY = """
import sys
from pathlib import Path
import ray
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
from tests.clean.lines import clean_lines
clean_lines(Path(sys.argv[1]), Path(sys.argv[2]), executor="ray", workers=2,
            options={"mem_per_cpu_gb": 0.1, "tasks_per_job": 3})  # each job is a process that Ray starts
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray (pip install ray)")
def test_ray(tmp_path, source, untimed):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run([sys.executable, "-c", RAY, str(source), str(tmp_path / "out")], cwd=ROOT, env=environment,
                          capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert untimed(tmp_path / "out") == untimed(clean_lines(source, tmp_path / "local"))
