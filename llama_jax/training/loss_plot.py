"""The plot loss.png: training and held-out loss against the number of training tokens, like Figure 1 of the paper."""

import io
import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from llama_jax.files.atomic import write_atomic
from llama_jax.training.metrics_file import METRICS_FILE, read_metrics


def plot_loss(workdir: Path, title: str) -> None:
    """Write loss.png from metrics.jsonl, with one curve for training and one per held-out source; may raise StorageError."""
    lines = read_metrics(workdir / METRICS_FILE)
    train = _points(lines, "loss")
    if not train:
        return
    last_tokens, _ = train[-1]
    scale, unit = unit_of_tokens(last_tokens)
    figure, axes = plt.subplots(figsize=(6, 4), dpi=150)
    axes.plot([tokens / scale for tokens, _ in train], [loss for _, loss in train], linewidth=1.2, label="training")
    names = dict.fromkeys(name for line in lines for name in line if name.partition("/")[0] == "heldout_loss")
    for name in names:
        heldout = _points(lines, name)
        label = _escaped(" ".join(["held-out", *name.split("/", 1)[1:]]))
        axes.plot([tokens / scale for tokens, _ in heldout], [loss for _, loss in heldout], "o-", markersize=3, linewidth=1.2,
                  label=label)
    if names:
        axes.legend(frameon=False, fontsize="small")
    axes.set(xlabel=f"{unit} tokens".strip(), ylabel="loss (nats per token)", title=_escaped(title))
    axes.grid(alpha=0.3)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    plt.close(figure)
    write_atomic(workdir / "loss.png", picture.getvalue())


def unit_of_tokens(tokens: float) -> tuple[float, str]:
    """Choose a unit for a number of tokens, as (tokens per unit, its name): 2e12 gives (1e9, "billion")."""
    for scale, unit in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if tokens >= scale:
            return scale, unit
    return 1.0, ""


def _points(lines: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """(tokens, value) of every line that has a finite value of this name."""
    return [(line["tokens"], line[name]) for line in lines if _is_finite(line.get(name)) and _is_finite(line.get("tokens"))]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _escaped(text: str) -> str:
    """Text as matplotlib shows it unchanged: an unescaped dollar sign would begin a formula."""
    return text.replace("$", r"\$")
