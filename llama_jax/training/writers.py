"""Where numbers go: the terminal, metrics.jsonl, TensorBoard events and loss.png."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tensorboardX import SummaryWriter

from llama_jax.terminal import clock, compact

METRICS = "metrics.jsonl"

FORMATS = {
    "loss": ("loss ", ".4f", ""), "perplexity": ("ppl ", ".2f", ""), "bits_per_byte": ("bpb ", ".3f", ""),
    "grad_norm": ("grad ", ".2f", ""), "learning_rate": ("lr ", ".2e", ""), "tokens_per_second": ("", ",.0f", " tok/s"),
    "mfu": ("mfu ", ".1%", ""),
}
"""How a metric reads in the terminal: what stands before it, its format, what stands after it."""
HELDOUT = {f"heldout_{name}": FORMATS[name] for name in ("loss", "perplexity", "bits_per_byte")}
"""The same for held-out text; with several held-out sources the names end in /SOURCE."""
SPARED = ("ppl", "bpb", "mfu", "lr", "grad")
"""What a line leaves out in a terminal too narrow for it, in this order; the files have it all."""


class Writers:
    """All outputs of one run; only the first process of a multi-host run has any (`active`)."""

    def __init__(self, workdir: Path, num_steps: int, *, start: int, active: bool = True):
        self.active, self.num_steps = active, num_steps
        self.console = Console(quiet=not active, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=None), TextColumn("{task.fields[loss]}"),
            TextColumn("{task.fields[left]}"), console=self.console, expand=True,
            disable=not (active and self.console.is_terminal),
        )
        self._task = self.progress.add_task("train", total=num_steps, completed=start, loss="", left="")
        if active:
            self._lines = open_metrics(workdir / METRICS, start)
            self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
            self.progress.start()

    def text(self, line: str) -> None:
        """One line for people."""
        self.progress.console.print(line, markup=False)

    def metrics(self, step: int, values: dict) -> None:
        """One line of numbers of a finished step, to every output.

        A number that is not finite is null in metrics.jsonl (JSON has no NaN) and left out of TensorBoard.
        """
        if not self.active:
            return
        self._lines.write(as_json({"step": step} | values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._events.add_scalar(name, value, step)
        left = [f"{clock(values['seconds_left'])} left"] if "seconds_left" in values else []
        if not self.progress.disable and "loss" in values:
            loss = number(values["loss"], *FORMATS["loss"])
            self.progress.update(self._task, completed=step, loss=loss, left=left[0].removesuffix(" left") if left else "")
            left = []  # stands beside the bar
        for words in terminal_lines(values):
            self.text(fitted([f"step {step}/{self.num_steps}", *words, *left], self._width()))

    def _width(self) -> int | None:
        """Columns a line may take: the terminal's; in a file or a pipe any number, unless COLUMNS says otherwise."""
        return self.console.width if self.console.is_terminal or "COLUMNS" in os.environ else None

    def close(self) -> None:
        """Finish the bar and the files."""
        if self.active:
            self.progress.stop()
            self._events.close()
            self._lines.close()


def terminal_lines(values: dict[str, Any]) -> Iterator[list[str]]:
    """The words of each line that tells people of `values`: training or held-out loss, each held-out source, each task."""
    named = {name: value for name, value in values.items() if "/" in name and isinstance(value, int | float)}
    words = [number(values[name], *form) for name, form in FORMATS.items() if name in values]
    heldout = [number(values[name], *form) for name, form in HELDOUT.items() if name in values]
    if heldout:
        words += [f"held-out {heldout[0]}", *heldout[1:]]
    if words:
        yield words
    for source in dict.fromkeys(name.partition("/")[2] for name in named if name.partition("/")[0] in HELDOUT):
        first, *rest = [number(named[f"{name}/{source}"], *form) for name, form in HELDOUT.items() if f"{name}/{source}" in named]
        yield [f"held-out {source} {first}", *rest]
    others = {name: value for name, value in named.items() if name.partition("/")[0] not in HELDOUT}
    if not words and not named:  # a caller's evaluator
        others = {name: value for name, value in values.items() if name != "tokens" and isinstance(value, int | float)}
    for name, value in others.items():
        yield [number(value, f"{name.removeprefix('eval/').replace('/', ' ')} ", ".4f")]


def number(value: float, before: str = "", form: str = "", after: str = "") -> str:
    """A number between its words."""
    return before + compact(value, form) + after


def fitted(words: list[str], width: int | None) -> str:
    """Words as one line of at most `width` columns where that can be, without those that can be spared best."""
    for spared in SPARED:
        if width is None or len("  ".join(words)) <= width:
            break
        words = [word for word in words if word.partition(" ")[0] != spared]
    while width is not None and len(words) > 2 and len("  ".join(words)) > width:
        words = words[:-1]
    return "  ".join(words)


def as_json(line: dict) -> str:
    """A line of metrics.jsonl, with null for a number that is not finite."""

    def finite(value):
        if isinstance(value, dict):
            return {name: finite(inner) for name, inner in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(line), allow_nan=False)


def open_metrics(file: Path, start: int):
    """metrics.jsonl for appending, without the lines of steps after `start` that a killed session left."""
    kept = [line for line in read_metrics(file) if line["step"] <= start]
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(as_json(line) + "\n" for line in kept))
    temporary.replace(file)
    return file.open("a")


def read_metrics(file: Path) -> list[dict]:
    """The lines of a metrics.jsonl; a last line cut short by a crash is left out."""
    lines = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def plot_loss(workdir: Path, title: str) -> None:
    """loss.png: training loss and that of each held-out source against tokens seen, as the paper's Figure 1."""
    lines = read_metrics(workdir / METRICS)
    train = curve(lines, "loss")
    if not train:
        return
    scale, unit = _unit(train[-1][0])
    figure, axes = plt.subplots(figsize=(6, 4), dpi=150)
    axes.plot([x / scale for x, _ in train], [y for _, y in train], linewidth=1.2, label="training")
    names = dict.fromkeys(name for line in lines for name in line if name.partition("/")[0] == "heldout_loss")
    for name in names:
        heldout = curve(lines, name)
        label = literal(" ".join(["held-out", *name.split("/", 1)[1:]]))
        axes.plot([x / scale for x, _ in heldout], [y for _, y in heldout], "o-", markersize=3, linewidth=1.2, label=label)
    if names:
        axes.legend(frameon=False, fontsize="small")
    axes.set(xlabel=f"{unit} tokens".strip(), ylabel="loss (nats per token)", title=literal(title))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(workdir / "loss.png")
    plt.close(figure)


def literal(text: str) -> str:
    """Text as matplotlib shows it unchanged: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def curve(lines: list[dict], name: str) -> list[tuple[float, float]]:
    """(tokens, value) of the lines that have a finite value of this name."""
    return [(line["tokens"], line[name]) for line in lines if line.get(name) is not None and math.isfinite(line[name])]


def _unit(tokens: float) -> tuple[float, str]:
    return next(((s, u) for s, u in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")) if tokens >= s), (1.0, ""))
