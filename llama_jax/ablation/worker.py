"""The process of one run of a study: claims it, trains it from where it stopped, measures it.

`python -m llama_jax.ablation.worker FOLDER ARM SEED GENERATION [CORES]` is what `ablation.run` starts. It keeps to the given
processor cores, so that its numbers do not depend on how many processes there are, and is asked to stop when its parent dies.
"""

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_jax.ablation.claims import take_claim
from llama_jax.ablation.study_dir import RunKey, StudyFolder, read_study
from llama_jax.config import Config
from llama_jax.errors import ConfigError, exit_code_of
from llama_jax.files.atomic import make_folder, write_atomic

TAKEN, STOPPED = 75, 76
"""Exit codes of a worker whose run was claimed by another process, and of one that was asked to stop and saved a checkpoint."""

_PR_SET_PDEATHSIG = 1
"""prctl(2) on Linux: send this process a signal when its parent dies."""


def work_on(path: Path, key: RunKey, *, generation: int, cores: list[int]) -> int:
    """Claim, train and measure one run; returns an exit code. Raises LlamaError where it cannot be trained."""
    claim = take_claim(path / "claims", key.claim, generation=generation, cores=cores)
    if claim is None:
        return TAKEN
    with claim:
        folder = read_study(path)
        if folder.is_finished(key):
            return TAKEN
        return 0 if _train_and_measure(folder, key) else STOPPED


def _train_and_measure(folder: StudyFolder, key: RunKey) -> bool:
    """Train and measure a run; False where it was asked to stop before its end."""
    from llama_jax.parallel.xla_flags import set_xla_flags

    set_xla_flags()  # XLA reads them when jax starts
    import jax

    from llama_jax.ablation.measure import measure_run
    from llama_jax.evaluation.in_training import evaluators
    from llama_jax.parallel.malloc import keep_freed_memory
    from llama_jax.training.loop import fit
    from llama_jax.training.run_dir import write_run_config
    from llama_jax.training.step_log import DivergedError

    if jax.default_backend() == "cpu":
        keep_freed_memory()
    workdir = folder.run_dir(key)
    params, reason = None, _reason_not_to_start(folder, key)
    peak_bytes = _peak_bytes(folder, key)
    config = _with_initial_weights(folder, key) if not reason else folder.config(key)
    make_folder(workdir)
    write_run_config(config, workdir)
    if not reason:
        try:
            state = fit(config, workdir, evaluators=evaluators(config, workdir))
            if int(state.step) < config.training.num_steps:
                return False
            params = state.params
        except DivergedError as error:
            reason = str(error).partition(";")[0] + "."
    folder.write_measurements(key, measure_run(folder, key, params=params, peak_bytes=peak_bytes, reason=reason))
    return True


def _reason_not_to_start(folder: StudyFolder, key: RunKey) -> str:
    """Why a run has no weights to start with: the run that it starts from diverged; "" where it has."""
    start = folder.study.arm(key.arm).starts_from
    if not start:
        return ""
    measured = folder.measurements_of(RunKey(start, key.seed)) or {}
    if measured.get("status") == "done":
        return ""
    return f"{start} of the same seed, from which it starts, diverged."


def _with_initial_weights(folder: StudyFolder, key: RunKey) -> Config:
    """The config of a run, with `init_from` where it starts from another arm's last checkpoint.

    Where it has fewer kv heads, that checkpoint is first written with the heads averaged (Ainslie et al. 2023, section 2.1).
    """
    config, start = folder.config(key), folder.study.arm(key.arm).starts_from
    if not start:
        return config
    trained = folder.run_dir(RunKey(start, key.seed))
    if folder.study.arm(start).config.model.num_kv_heads == config.model.num_kv_heads:
        return replace(config, init_from=str(trained))
    pooled = folder.path / "pooled" / key.arm / str(key.seed)
    if not pooled.exists():
        _write_pooled(trained, pooled, kv_heads=config.model.num_kv_heads)
    return replace(config, init_from=str(pooled))


def _write_pooled(trained: Path, target: Path, *, kv_heads: int) -> None:
    """Write a run's last checkpoint with fewer kv heads as the folder `target`, which appears when it is complete."""
    from llama_jax.conversion.convert import convert_weights
    from llama_jax.conversion.pooled import PooledSource
    from llama_jax.formats.open import open_source

    convert_weights(PooledSource(open_source(trained), kv_heads), target, "orbax")


def _peak_bytes(folder: StudyFolder, key: RunKey) -> int:
    """Memory of the arm's train step, arguments and temporaries, in bytes per device; the arm's first run compiles it.

    Raises ConfigError where the devices have less.
    """
    file = folder.path / "memory" / f"{key.arm}.json"
    with suppress(OSError, ValueError):
        return json.loads(file.read_text())["peak_bytes"]
    import jax

    from llama_jax.plan.compiled import compile_train_step

    step = compile_train_step(folder.config(key), jax.devices())
    needed, device = step.arguments + step.temporaries, jax.devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    if step.refusal or (limit and needed > limit):
        needs = f": {step.refusal}" if step.refusal else f", {needed / 2**30:.2f} GiB of {limit / 2**30:.2f}"
        raise ConfigError(f"arm {key.arm} does not fit the memory of a {device.device_kind}{needs}; lower its batch, or raise "
                          "training.accumulation_steps or compute.remat.")
    make_folder(file.parent)
    write_atomic(file, json.dumps({"peak_bytes": needed}).encode())
    return needed


def keep_to_cores(cores: list[int]) -> None:
    """Let this process run on these processor cores alone, where the system can."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def stop_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that no worker outlives a killed study; Linux only."""
    if sys.platform.startswith("linux"):
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[Any] | None = None) -> int:
    """Work on the run that the command line names; returns the exit code."""
    path, arm, seed, generation, *cores = sys.argv[1:] if arguments is None else arguments
    codes: list[int] = []
    stop_with_parent()
    keep_to_cores([int(core) for core in cores])
    failed = exit_code_of(lambda: codes.append(work_on(Path(path), RunKey(arm, int(seed)), generation=int(generation),
                                                       cores=[int(core) for core in cores])))
    return failed or codes[0]


if __name__ == "__main__":
    sys.exit(main())
