"""Where numbers go: the terminal, metrics.jsonl, TensorBoard events and loss.png."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

METRICS = "metrics.jsonl"

FORMATS = {
    "loss": "loss {:.4f}", "perplexity": "ppl {:.2f}", "bits_per_byte": "bpb {:.3f}", "grad_norm": "grad {:.2f}",
    "learning_rate": "lr {:.2e}", "tokens_per_second": "{:,.0f} tok/s", "mfu": "mfu {:.1%}",
    "heldout_loss": "held-out loss {:.4f}", "heldout_perplexity": "ppl {:.2f}", "heldout_bits_per_byte": "bpb {:.3f}",
}
"""How a metric reads in the terminal; others stay in the files."""


class Writers:
    """All outputs of one run; only the first process of a multi-host run has any (`active`)."""

    def __init__(self, workdir: Path, num_steps: int, *, start: int, active: bool = True):
        self.active, self.num_steps = active, num_steps
        self.console = Console(quiet=not active, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[loss]}"),
            TimeRemainingColumn(), console=self.console, disable=not (active and self.console.is_terminal),
        )
        self._task = self.progress.add_task("train", total=num_steps, completed=start, loss="")
        if active:
            self._lines = open_metrics(workdir / METRICS, start)
            self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)
            self.progress.start()

    def text(self, line: str) -> None:
        """One line for people."""
        self.progress.console.print(line, markup=False)

    def metrics(self, step: int, values: dict) -> None:
        """One line of numbers of a finished step, to every output."""
        if not self.active:
            return
        self._lines.write(json.dumps({"step": step} | values) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(name, value, step)
        words = [form.format(values[name]) for name, form in FORMATS.items() if name in values]
        if not self.progress.disable and "loss" in values:
            self.progress.update(self._task, completed=step, loss=words[0])
        elif "seconds_left" in values:
            left = values["seconds_left"]
            words.append(f"{int(left // 60)}:{int(left % 60):02d} left")
        self.text(f"step {step}/{self.num_steps}  " + "  ".join(words))

    def close(self) -> None:
        """Finish the bar and the files."""
        if self.active:
            self.progress.stop()
            self._events.close()
            self._lines.close()


def open_metrics(file: Path, start: int):
    """metrics.jsonl for appending, without the lines of steps after `start` that a killed session left."""
    kept = [line for line in read_metrics(file) if line["step"] <= start]
    temporary = file.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
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
    """loss.png: training and held-out loss against tokens seen, as the paper's Figure 1."""
    lines = read_metrics(workdir / METRICS)
    train = [(line["tokens"], line["loss"]) for line in lines if "loss" in line]
    heldout = [(line["tokens"], line["heldout_loss"]) for line in lines if "heldout_loss" in line]
    if not train:
        return
    scale, unit = _unit(train[-1][0])
    figure, axes = plt.subplots(figsize=(6, 4), dpi=150)
    axes.plot([x / scale for x, _ in train], [y for _, y in train], linewidth=1.2, label="training")
    if heldout:
        axes.plot([x / scale for x, _ in heldout], [y for _, y in heldout], "o-", markersize=3, label="held-out")
        axes.legend(frameon=False)
    axes.set(xlabel=f"{unit} tokens", ylabel="loss (nats a token)", title=title)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(workdir / "loss.png")
    plt.close(figure)


def _unit(tokens: float) -> tuple[float, str]:
    return next(((s, u) for s, u in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")) if tokens >= s), (1.0, ""))
