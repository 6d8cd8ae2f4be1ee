"""Running the stages of a recipe with datatrove: on this machine, on a Slurm cluster, or on Ray; resumable, the same output."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from llama_jax.clean.items import Edit, InputFile, Read
from llama_jax.clean.steps import EditDocuments, ReadDocuments, ReadFiles, WriteDocuments
from llama_jax.errors import DataError
from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.terminal import progress_bar

WORK = ".work"
"""Folder in an output folder with what is needed while cleaning is under way: logs, counts, examples, intermediate documents."""
SETTINGS_FILE = "settings.json"
"""File in an output folder with what its documents are made from: the source's kind, its options and the input files."""
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


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's executor for processes of this machine, whose log goes to files; the terminal gets errors alone."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1):
        try:
            return super()._run_for_rank(rank, local_rank + 1, node_rank)  # the task of local rank 0 would print its log
        finally:
            logger.remove()  # which datatrove sets up anew after every task


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
        return WriteDocuments(self.folder(name) if name else self.output)

    def read_again(self, name: str) -> ReadDocuments:
        """The first step of a stage that goes on with the documents of an earlier one."""
        return ReadDocuments(self.folder(name))

    def stage(self, name: str, *steps: PipelineStep, tasks: int = 0) -> Stage:
        """A stage of `steps`; `tasks` is given where it is not the number of tasks that read the input files."""
        reads = isinstance(steps[0], ReadFiles)
        return Stage(name, list(steps), tasks or self.tasks, sum(f.path.stat().st_size for f in self.files) if reads else 0)


def run_stages(stages: list[Stage], place: Workplace, *, settings: dict[str, Any], executor: type[PipelineExecutor] | None = None,
               workers: int = 1, options: dict[str, Any] | None = None) -> bool:
    """Run `stages` in order; tasks that an earlier call finished are not run again.

    Args:
        stages: what a recipe returns.
        place: the input and the output.
        settings: what the output depends on; together with the input files they identify the work.
        executor: datatrove's class that runs the tasks; None for processes of this machine.
        workers: tasks at one time.
        options: further arguments of the executor.

    Returns:
        Whether all tasks are done: Slurm's executor returns when they are queued.

    Raises:
        DataError: the output folder holds documents of other input or settings, or a task failed.
    """
    _claim(place, settings)
    logger.remove()
    before = None
    for number, stage in enumerate(stages):
        logs = place.output / WORK / "stages" / f"{number}-{stage.name}"
        options = options or {}
        runner = (executor or LocalExecutor)(
            pipeline=stage.steps, tasks=stage.tasks, workers=min(workers, stage.tasks), logging_dir=str(logs), depends=before,
            **options)
        with _shown_progress(stage, runner, place=place):
            try:
                runner.run()
            except DataError:
                raise
            except Exception as error:
                raise DataError(f"stage {stage.name} failed: {type(error).__name__}: {error}; see {logs}/logs. The same command "
                                "goes on.") from error
        before = runner if runner.get_incomplete_ranks(skip_completed=True) else None  # queued, not yet run
    return before is None


def remove_intermediate(output: Path, *, keep: tuple[str, ...] = ("stages", "examples")) -> None:
    """Remove what stages left to later ones, when all are done."""
    for folder in (output / WORK).iterdir():
        if folder.name not in keep:
            shutil.rmtree(folder)


def _claim(place: Workplace, settings: dict[str, Any]) -> None:
    """Write what this output is made from, or raise DataError where the folder holds other work."""
    files = [[file.name, file.path.stat().st_size, _digest_of_ends(file.path)] for file in place.files]
    asked = json.dumps({**settings, "files": files}, indent=1, sort_keys=True) + "\n"
    held = place.output / SETTINGS_FILE
    make_folder(place.output)
    if held.exists():
        if held.read_text() != asked:
            raise DataError(f"{place.output} holds documents of other input or settings (see {held}); remove it, or name another "
                            "--output.")
    elif any(place.output.iterdir()):
        raise DataError(f"{place.output} is not empty, and not an output of this command; name another --output.")
    else:
        write_atomic(held, asked.encode())


def _digest_of_ends(file: Path, size: int = 1 << 16) -> str:
    """A hash of both ends of a file, which tells whether two files with one name and size are the same."""
    with file.open("rb") as stream:
        begin = stream.read(size)
        stream.seek(max(0, file.stat().st_size - size))
        return hashlib.sha256(begin + stream.read(size)).hexdigest()[:16]


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
            notes = list(place.folder("progress").glob("*"))
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
