"""Writers of a run's metrics: to the terminal, to metrics.jsonl and to TensorBoard."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from llama_jax.errors import StorageError
from llama_jax.files.storage import flush_stdout
from llama_jax.terminal import clock, compact
from llama_jax.training.event_file import EventFile
from llama_jax.training.metrics_file import METRICS_FILE, metrics_line, open_metrics


class _Format(NamedTuple):
    """How a metric is written in the terminal."""

    label: str
    """Text before the number."""
    spec: str
    """Python's format specification."""
    unit: str = ""
    """Text after the number."""

    def text(self, value: float) -> str:
        return f"{self.label}{compact(value, self.spec)}{self.unit}"


_TRAINING_FORMATS = {
    "loss": _Format("loss ", ".4f"),
    "perplexity": _Format("ppl ", ".2f"),
    "bits_per_byte": _Format("bpb ", ".3f"),
    "grad_norm": _Format("grad ", ".2f"),
    "learning_rate": _Format("lr ", ".2e"),
    "tokens_per_second": _Format("", ",.0f", " tok/s"),
    "mfu": _Format("mfu ", ".1%"),
}
"""Formats of the metrics of a train step, in the order of their terminal line."""

_HELDOUT_FORMATS = {f"heldout_{name}": _TRAINING_FORMATS[name] for name in ("loss", "perplexity", "bits_per_byte")}
"""Formats of the metrics of held-out text. With several held-out sources their names end in /SOURCE."""

_DROPPED_FIRST = ("ppl", "bpb", "mfu", "lr", "grad")
"""Labels of the metrics that a line leaves out, in this order, where the terminal is too narrow. The files hold all of them."""


class MetricWriters:
    """Writes a run's metrics to all its outputs, and lines of text to the terminal.

    Where the storage takes no more, training goes on: lines of metrics wait in memory, and `failures` says what is not written.

    Args:
        workdir: the run directory.
        num_steps: steps of the whole run.
        start: steps that earlier sessions have done; later lines in metrics.jsonl are removed.
        active: False for all processes of a run but the first, which alone writes.
    """

    def __init__(self, workdir: Path, num_steps: int, *, start: int, active: bool = True):
        self.active, self.num_steps = active, num_steps
        self.failures: dict[str, str] = {}
        """Outputs that could not be written when it was last tried, and why, by the name of the file or folder."""
        self._console = Console(quiet=not active, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=None), TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[left]}"), console=self._console, expand=True,
            disable=not (active and self._console.is_terminal),
        )
        self._task = self._bar.add_task("train", total=num_steps, completed=start, loss="", left="")
        if active:
            self._file = open_metrics(workdir / METRICS_FILE, start)
            self._events = EventFile(workdir / "tensorboard", purge_step=start + 1)
            self._bar.start()

    def write_text(self, line: str) -> None:
        """Print one line in the terminal; a log on a full disk loses it, or gets it with the next one."""
        with suppress(OSError):
            self._console.print(line, markup=False)

    def write_metrics(self, step: int, values: dict[str, Any]) -> None:
        """Write numbers measured after `step` to every output.

        A number that is not finite is null in metrics.jsonl and left out of TensorBoard.
        """
        if not self.active:
            return
        self._file.append(metrics_line({"step": step} | values).encode())
        self._events.add(step, {name: value for name, value in values.items()
                                if isinstance(value, int | float) and math.isfinite(value)})
        self._note_failures()
        self._print_metrics(step, values)

    def flush(self) -> None:
        """Wait until all metrics are on disk, where that is possible, so that no saved step lacks them."""
        if self.active:
            self._file.flush(durable=True)
            self._events.flush(durable=True)
            self._note_failures()

    @contextmanager
    def tolerate_failure(self, name: str) -> Iterator[None]:
        """Go on where the block cannot write the output `name`; the log says so, and `failures` until a later try succeeds."""
        try:
            yield
        except StorageError as error:
            self._note(name, error.reason)
        else:
            self._note(name, "")

    def require_all_written(self) -> None:
        """Raise StorageError where an output could not be written, at the end of a session."""
        self.flush()
        if self.failures:
            raise StorageError("the checkpoint is saved, but not everything beside it: "
                               + "; ".join(f"{name} could not be written ({reason})" for name, reason in self.failures.items())
                               + ".", "; ".join(self.failures.values()))

    def _note_failures(self) -> None:
        self._note(METRICS_FILE, self._file.failure)
        self._note("tensorboard", self._events.failure)

    def _note(self, name: str, reason: str) -> None:
        """Record whether an output could be written, and say so where that has changed."""
        if reason and name not in self.failures:
            self.write_text(f"{name} cannot be written ({reason}); training goes on, and it is tried again")
        if not reason and name in self.failures:
            self.write_text(f"{name} is written again, and nothing of it is lost")
        self.failures.pop(name, None)
        if reason:
            self.failures[name] = reason

    def _print_metrics(self, step: int, values: dict[str, Any]) -> None:
        """Show the numbers in the terminal: beside the progress bar, and in lines."""
        left = clock(values["seconds_left"]) if "seconds_left" in values else ""
        bar_shows_left = not self._bar.disable and "loss" in values
        if bar_shows_left:
            self._bar.update(self._task, completed=step, loss=_TRAINING_FORMATS["loss"].text(values["loss"]), left=left)
        for words in _terminal_lines(values):
            if left and not bar_shows_left:
                words = [*words, f"{left} left"]
            self.write_text(_fitted([f"step {step}/{self.num_steps}", *words], self._width()))

    def _width(self) -> int | None:
        """Columns that a line may take: the terminal's; None (any number) in a file or a pipe, unless COLUMNS is set."""
        return self._console.width if self._console.is_terminal or "COLUMNS" in os.environ else None

    def close(self) -> None:
        """Finish the progress bar and the files."""
        if self.active:
            with suppress(OSError):
                self._bar.stop()
            self.flush()
            flush_stdout()


def _terminal_lines(values: dict[str, Any]) -> Iterator[list[str]]:
    """The words of each terminal line: training and held-out loss, then each held-out source, then each evaluated task."""
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    words = _formatted(numbers, _TRAINING_FORMATS) + _heldout_words(numbers, "")
    if words:
        yield words
    with_suffix = [name for name in numbers if "/" in name]
    heldout = [name for name in with_suffix if name.partition("/")[0] in _HELDOUT_FORMATS]
    for source in dict.fromkeys(name.partition("/")[2] for name in heldout):
        yield _heldout_words(numbers, source)
    others = [name for name in with_suffix if name not in heldout]
    if not words and not with_suffix:  # numbers of an evaluator of the caller's, whose names have no slash
        others = [name for name in numbers if name != "tokens"]
    for name in others:
        label = name.removeprefix("eval/").replace("/", " ")
        yield [_Format(f"{label} ", ".4f").text(numbers[name])]


def _heldout_words(numbers: dict[str, float], source: str) -> list[str]:
    """Metrics of a held-out source ("" where it is the only one), introduced by its name; empty where there are none."""
    suffix = f"/{source}" if source else ""
    words = _formatted({name: numbers[name + suffix] for name in _HELDOUT_FORMATS if name + suffix in numbers}, _HELDOUT_FORMATS)
    if words:
        words[0] = " ".join(filter(None, ["held-out", source, words[0]]))
    return words


def _formatted(numbers: dict[str, float], formats: dict[str, _Format]) -> list[str]:
    """Those of the numbers that have a format, in the order of the formats."""
    return [form.text(numbers[name]) for name, form in formats.items() if name in numbers]


def _fitted(words: list[str], width: int | None) -> str:
    """One line of at most `width` columns if that is possible, without the words that are dropped first."""

    def too_long() -> bool:
        return width is not None and len("  ".join(words)) > width

    for label in _DROPPED_FIRST:
        if too_long():
            words = [word for word in words if word.partition(" ")[0] != label]
    while len(words) > 2 and too_long():
        words = words[:-1]
    return "  ".join(words)
