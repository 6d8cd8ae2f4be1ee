"""Running the stages of a recipe with datatrove: on this machine, on a Slurm cluster, or on Ray; resumable, the same output."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from llama_jax.clean.claim import claim_output
from llama_jax.clean.executors import WORKERS_LOCK, is_queued, make_executor, note_job
from llama_jax.clean.items import Edit, InputFile, Read
from llama_jax.clean.steps import CountedStep, EditDocuments, ReadDocuments, ReadFiles, WriteDocuments
from llama_jax.errors import DataError
from llama_jax.files.atomic import make_folder
from llama_jax.files.lock import only_writer, wait_for_workers
from llama_jax.terminal import progress_bar

WORK = ".work"
"""Folder in an output folder with what is needed while cleaning is under way: logs, counts, examples, intermediate documents."""
_OUTPUT = "output"
"""Folder in it for the documents of the last stage, until all are there."""
LARGEST_TASKS = 1_000
"""Most tasks of a stage. Their number depends on the input alone, so that the output is the same for any number of workers."""


@dataclass(frozen=True)
class Stage:
    """Steps that documents pass one after another, in tasks that know nothing of each other; the next stage waits for all."""

    name: str
    steps: list[PipelineStep]
    tasks: int
    input_bytes: int = 0
    """Bytes of the input files that its first step reads, for the time left."""


@dataclass(frozen=True)
class Workplace:
    """What a recipe knows of where it works: the input files and the output folder; makes the steps that belong to them."""

    files: list[InputFile]
    output: Path

    @property
    def tasks(self) -> int:
        """Number of tasks of a stage that reads the input files, or one file of each task before it."""
        return max(1, min(len(self.files), LARGEST_TASKS))

    def folder(self, name: str) -> Path:
        """A folder for what one stage leaves to a later one."""
        return self.output / WORK / name

    def examples(self) -> Path:
        """The folder of the examples for --explain."""
        return self.folder("examples")

    def read(self, read: Read) -> ReadFiles:
        """The step that reads the input files."""
        return ReadFiles(read, self.files, examples=self.examples(), progress=self.folder("progress"))

    def edit(self, name: str, edit: Edit) -> EditDocuments:
        """A step that edits documents one by one."""
        return EditDocuments(name, edit, examples=self.examples())

    def write(self, name: str = "") -> WriteDocuments:
        """The last step of a stage: documents for the stage that has `read_again(name)`, or without a name the output."""
        return WriteDocuments(self.folder(name or _OUTPUT))

    def read_again(self, name: str) -> ReadDocuments:
        """The first step of a stage that goes on with the documents of an earlier one."""
        return ReadDocuments(self.folder(name))

    def stage(self, name: str, *steps: PipelineStep, tasks: int = 0) -> Stage:
        """A stage of `steps`; `tasks` is given where it is not the number of tasks that read the input files."""
        for step in steps:
            if isinstance(step, CountedStep):
                step.stage = name
        reads = isinstance(steps[0], ReadFiles)
        return Stage(name, list(steps), tasks or self.tasks, sum(file.bytes for file in self.files) if reads else 0)


def run_stages(stages: list[Stage], place: Workplace, *, settings: dict[str, Any], executor: str = "local", workers: int = 1,
               options: dict[str, Any] | None = None) -> bool:
    """Run `stages` in order, and put the documents of the last into the output folder; what an earlier call finished stays.

    Args:
        stages: what a recipe returns.
        place: the input and the output.
        settings: what the output depends on; together with the input files they identify the work.
        executor: what runs the tasks: local (processes of this machine), slurm or ray.
        workers: tasks at one time.
        options: further arguments of datatrove's executor.

    Returns:
        Whether all tasks are done; with Slurm they may be queued.

    Raises:
        ConfigError: the executor does not take the options, or is missing.
        DataError: the output folder holds documents of other input or settings, or a task failed.
    """
    folders = [place.folder("stages") / f"{number}-{stage.name}" for number, stage in enumerate(stages)]
    runners = [make_executor(executor, stage.steps, logs=logs, tasks=stage.tasks, workers=workers, options=options or {})
               for stage, logs in zip(stages, folders, strict=True)]
    logger.remove()
    with only_writer(place.output):
        claim_output(place.output, settings, files=place.files)
        make_folder(place.folder(""))
        wait_for_workers(place.folder(WORKERS_LOCK))
        if any(is_queued(logs) for logs in folders):
            return False
        before = None
        for stage, runner, logs in zip(stages, runners, folders, strict=True):
            runner.depends = before
            with _shown_progress(stage, runner, place=place):
                _run_stage(stage, runner, logs=logs)
            missing = len(runner.get_incomplete_ranks())
            if missing and executor != "slurm":
                raise DataError(f"stage {stage.name}: {missing:,} of {stage.tasks:,} tasks failed (logs: {logs}). The same "
                                "command goes on.")
            before = runner if missing else None
        if before:
            return False
        for file in sorted(place.folder(_OUTPUT).glob("*")):  # they appear in the output folder when all are there
            file.replace(place.output / file.name)
    return True


def _run_stage(stage: Stage, runner: PipelineExecutor, *, logs: Path) -> None:
    """Run one stage, or queue it; every failure is a DataError."""
    try:
        runner.run()
    except DataError as error:
        raise DataError(f"stage {stage.name}, {error} The same command goes on.") from None
    except Exception as error:
        raise DataError(f"stage {stage.name} failed: {type(error).__name__}: {error} (logs: {logs}). The same command "
                        "goes on.") from error
    note_job(runner, logs)


def remove_intermediate(output: Path, *, keep: tuple[str, ...] = ("stages", "examples")) -> None:
    """Remove what stages left to later ones, when all are done."""
    for entry in (output / WORK).iterdir():
        if entry.is_dir() and entry.name not in keep:
            shutil.rmtree(entry)


@contextmanager
def _shown_progress(stage: Stage, runner: PipelineExecutor, *, place: Workplace) -> Iterator[None]:
    """Show how much of the input is read, or how many tasks are done where a stage reads no input files."""
    by_bytes = stage.input_bytes > 0
    total = stage.input_bytes if by_bytes else stage.tasks

    def describe(done: float, seconds: float) -> str:
        if by_bytes:
            return f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB, {done / 1e6 / max(seconds, 1e-9):.1f} MB/s"
        return f"{done:,.0f} of {total:,} tasks"

    def amount() -> int:
        if by_bytes:
            notes = list((place.folder("progress") / stage.name).glob("*"))
            return sum(int(text) for note in notes if (text := note.read_text()).isdigit())
        return stage.tasks - len(runner.get_incomplete_ranks(skip_completed=True))

    ended = threading.Event()
    with progress_bar(stage.name, describe, total=total) as advance:
        def watch() -> None:
            seen, last = 0, False
            while not last:
                last = ended.wait(1.0)
                now = amount()
                advance(max(now - seen, 0))
                seen = max(now, seen)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
