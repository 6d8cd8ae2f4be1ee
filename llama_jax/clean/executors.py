"""What runs the tasks of a stage: processes of this machine, or datatrove's executors for Slurm and Ray."""

import ast
import inspect
import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from copy import deepcopy
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from datatrove.executor import RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger

from llama_jax.errors import ConfigError, DataError, nearest
from llama_jax.files.atomic import write_atomic
from llama_jax.files.lock import locked_by_worker

WORKERS_LOCK = "workers.lock"
"""File beside the stages of an output that its worker processes hold locked together."""
JOB_FILE = "slurm_job"
"""File in the log folder of a stage with the number of the Slurm job that runs its tasks."""
_OURS = {"self", "pipeline", "tasks", "workers", "logging_dir", "depends", "depends_job_id", "skip_completed"}
"""Arguments of datatrove's executors that follow from the stage."""


class LocalExecutor(PipelineExecutor):
    """Runs the tasks of a stage in processes of this machine, which end with this one; their logs go to files.

    datatrove's own waits forever for a process that the system killed, and leaves some behind when it is killed itself.
    """

    def __init__(self, pipeline: list[PipelineStep], *, tasks: int, workers: int, logging_dir: str):
        super().__init__(pipeline, logging_dir)
        self.tasks, self.workers = tasks, workers

    @property
    def world_size(self) -> int:
        """Number of tasks."""
        return self.tasks

    def get_distributed_env(self, node_rank: int = -1) -> dict[str, str]:
        """Nothing: no step asks where it runs."""
        return {}

    def run(self) -> None:
        """Run what is not done; raises DataError where a task fails or its process is killed."""
        ranks = self.get_incomplete_ranks()
        if min(self.workers, len(ranks)) > 1:
            self._run_in_processes(ranks)
            return
        for rank in ranks:
            if message := self.run_task(rank):
                raise self._failed(rank, message)

    def _run_in_processes(self, ranks: list[int]) -> None:
        context = _context()
        waiting, processes, at_work = ranks[::-1], [], {}
        try:
            for _ in range(min(self.workers, len(ranks))):
                ours, theirs = context.Pipe()
                processes.append(context.Process(target=_work, args=(self, theirs), daemon=True))
                processes[-1].start()
                theirs.close()
                at_work[ours] = waiting.pop()
                ours.send(at_work[ours])
            while at_work:
                for connection in wait(list(at_work)):
                    self._take_answer(connection, at_work[connection])
                    del at_work[connection]
                    if waiting:
                        at_work[connection] = waiting.pop()
                        connection.send(at_work[connection])
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join()

    def _take_answer(self, connection: Connection, rank: int) -> None:
        try:
            message = connection.recv()
        except (EOFError, ConnectionResetError):
            message = "the system ended its process, mostly because memory ran out; fewer --workers need less"
        if message:
            raise self._failed(rank, message)

    def _failed(self, rank: int, message: str) -> DataError:
        return DataError(f"task {rank} of {self.tasks:,} failed: {message} (its log: "
                         f"{self.logging_dir.resolve_paths(f'logs/task_{rank:05d}.log')}).")

    def run_task(self, rank: int) -> str:
        """Run one task; returns what went wrong, or an empty text."""
        log = self.logging_dir.resolve_paths(f"logs/task_{rank:05d}.log")
        handler = logger.add(log, mode="w", diagnose=False)  # diagnose would log whole documents
        try:
            logger.info(f"task {rank} of {self.tasks}: {self.pipeline}")
            self._run_steps(rank)
            return ""
        except Exception as error:
            logger.exception("failed")
            return _sentence(error)
        finally:
            logger.remove(handler)

    def _run_steps(self, rank: int) -> None:
        """Pass documents from step to step, save the counts, and mark the task as done."""
        data, steps = None, deepcopy(self.pipeline)  # steps count
        for step in steps:
            data = step(data, rank, self.tasks)
        deque(data or (), maxlen=0)
        with self.logging_dir.open(f"stats/{rank:05d}.json", "w") as file:
            PipelineStats(steps).save_to_disk(file)
        self.mark_rank_as_completed(rank)


def _sentence(error: Exception) -> str:
    """What an exception says, for a sentence about it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    return str(error).rstrip(".") if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


def _context() -> multiprocessing.context.BaseContext:
    """How processes start: forked from one that has imported what the steps need, where the system can do that."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _work(executor: LocalExecutor, connection: Connection) -> None:
    """A worker: does the tasks that it is told, until the command that started it ends, for whatever reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the command ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logger.remove()  # the terminal gets nothing
    with locked_by_worker(Path(executor.logging_dir.path).parents[1] / WORKERS_LOCK):
        while True:
            try:
                rank = connection.recv()
            except EOFError:
                return
            connection.send(executor.run_task(rank))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def make_executor(
    name: str, pipeline: list[PipelineStep], *, logs: Path, tasks: int, workers: int, options: dict[str, Any],
) -> PipelineExecutor:
    """The executor `name` (local, slurm or ray) for one stage.

    Raises ConfigError for options that it does not take or lacks, and where Slurm or Ray is missing.
    """
    kind = {"local": LocalExecutor, "slurm": SlurmPipelineExecutor, "ray": RayPipelineExecutor}[name]
    parameters = inspect.signature(kind.__init__).parameters
    known = set(parameters) - _OURS if name != "local" else set()
    if unknown := sorted(set(options) - known):
        if not known:
            raise ConfigError(f"--executor local takes no executor_options, got {unknown[0]}.")
        raise ConfigError(f"--executor {name} has no option {unknown[0]}{nearest(unknown[0], known)}")
    if missing := [key for key in sorted(known - set(options)) if parameters[key].default is inspect.Parameter.empty]:
        raise ConfigError(f"--executor {name} needs --executor_options {' '.join(f'{key}=VALUE' for key in missing)}.")
    if name == "slurm":
        if not shutil.which("sbatch"):
            raise ConfigError("--executor slurm found no sbatch; run the command where jobs are submitted.")
        # a job that waits for one that failed would wait forever
        options = {**options, "sbatch_args": {"kill-on-invalid-dep": "yes", **options.get("sbatch_args", {})}}
    if name == "ray":
        _check_ray()
    return kind(pipeline=pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=str(logs), **options)


def _check_ray() -> None:
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ConfigError("--executor ray needs Ray: pip install ray.") from None


def parse_executor_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE pairs as arguments, with values that look like Python's numbers, truth values or dictionaries as such."""
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"executor_options are NAME=VALUE, got {pair!r}.")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def note_job(runner: PipelineExecutor, logs: Path) -> None:
    """Remember the Slurm job that was submitted for a stage."""
    if getattr(runner, "job_id", None) not in (None, -1):
        write_atomic(logs / JOB_FILE, f"{runner.job_id}\n".encode())


def is_queued(logs: Path) -> bool:
    """Whether the Slurm job of a stage still waits or runs."""
    file = logs / JOB_FILE
    if not file.exists() or not shutil.which("squeue"):
        return False
    asked = subprocess.run(["squeue", "--noheader", "--jobs", file.read_text().strip()], capture_output=True, text=True)
    return asked.returncode == 0 and bool(asked.stdout.strip())
