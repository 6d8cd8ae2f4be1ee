"""The progress of a whole study, of the runs of all hosts together: a bar with the time left, and lines in logs."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from llama_jax.ablation.claims import Standing
from llama_jax.ablation.study_dir import RunKey, StudyFolder
from llama_jax.terminal import clock, progress_bar

_SECONDS_BETWEEN_LINES = 30.0
"""Seconds between two lines of progress where the output is no terminal."""
_TAIL_BYTES = 4096
"""Bytes at the end of a metrics file in which its last whole line is looked for."""


class StudyProgress:
    """Shows how many of the training tokens of a study have been read, by every host, and how long the rest will take."""

    def __init__(self, folder: StudyFolder, jobs: int):
        self._folder, self._jobs = folder, jobs
        self._console = Console(highlight=False, soft_wrap=True)
        self._begin, self._finished, self._under_way = time.perf_counter(), 0, ""
        self._context = ExitStack()

    def __enter__(self) -> "StudyProgress":
        runs = self._folder.runs()
        self._done = sum(map(self._tokens_read, runs))
        left = sum(map(self._tokens_of_run, runs)) - self._done
        finished = sum(map(self._folder.is_finished, runs))
        self.say(f"{self._folder.study.name}: {len(self._folder.study.arms)} arm(s) x {self._folder.seeds} seed(s) in "
                 f"{self._folder.path}, {finished} of {len(runs)} run(s) finished, {self._jobs} at a time on this host")
        self._advance = self._context.enter_context(progress_bar(
            "", lambda done, seconds: self._describe(), total=max(left, 1), console=self._console))
        self._shown = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.close()

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(line, markup=False)

    def run_finished(self, key: RunKey) -> None:
        """Count a run that is finished, and say how it ended unless it was so at the beginning."""
        self._finished += 1
        if not self._console.is_terminal or self._finished == len(self._folder.runs()):
            self._shown = 0.0  # a line of progress is due
        measured = self._folder.measurements_of(key) or {}
        if time.perf_counter() - self._begin < 1 and measured.get("status") == "done":
            return  # from an earlier session
        tokens = sum(count for _, count in measured.get("heldout", []))
        nats = sum(nll for nll, _ in measured.get("heldout", []))
        outcome = f"held-out loss {nats / tokens:.4f}" if tokens else f"diverged: {measured.get('reason')}"
        self.say(f"{key}: {outcome} ({clock(measured.get('timing', {}).get('seconds', -1))} of training)")

    def show(self, running: Iterable[RunKey], standings: Mapping[str, Standing]) -> None:
        """Show where the study stands; `running` are the runs of this host, and `standings` tell those of others."""
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._shown < _SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        runs, here = self._folder.runs(), [*running]
        elsewhere = sum(not standing.free for name, standing in standings.items()
                        if name in {key.claim for key in runs} - {key.claim for key in here})
        self._under_way = ", ".join(f"{key} step {_last_step(self._folder.run_dir(key))}" for key in here[:3])
        self._under_way += ", ..." if len(here) > 3 else ""
        if elsewhere:
            self._under_way += f"{', ' if here else ''}{elsewhere} elsewhere"
        done = sum(map(self._tokens_read, runs))
        self._advance(done - self._done)
        self._done = done

    def _describe(self) -> str:
        return f"{self._finished}/{len(self._folder.runs())} runs  {self._under_way}"

    def _tokens_of_run(self, key: RunKey) -> int:
        config = self._folder.study.arm(key.arm).config
        return config.training.num_steps * config.training.batch_size * config.data.sequence_length

    def _tokens_read(self, key: RunKey) -> int:
        config = self._folder.study.arm(key.arm).config
        if self._folder.is_finished(key):
            return self._tokens_of_run(key)
        return _last_step(self._folder.run_dir(key)) * config.training.batch_size * config.data.sequence_length


def _last_step(run_dir: Path) -> int:
    """The last step in a run's metrics.jsonl; 0 where there is none."""
    try:
        with (run_dir / "metrics.jsonl").open("rb") as stream:
            stream.seek(max(os.fstat(stream.fileno()).st_size - _TAIL_BYTES, 0))
            lines = stream.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0
