"""loss.png shows the training loss and that of every held-out source."""

import pytest

from llama_jax.training import loss_plot
from llama_jax.training.loss_plot import plot_loss, unit_of_tokens
from llama_jax.training.writers import MetricWriters


def write(workdir, steps: range) -> None:
    """Training lines of `steps`, 1000 tokens per step."""
    writers = MetricWriters(workdir, 10, start=0)
    for step in steps:
        writers.write_metrics(step, {"tokens": 1000 * step, "loss": 10 / step})
    writers.close()


def test_the_picture_has_a_curve_of_every_heldout_source(tmp_path, monkeypatch):
    write(tmp_path, range(1, 6))
    writers = MetricWriters(tmp_path, 10, start=5)
    for step in (2, 5):
        writers.write_metrics(step, {"tokens": 1000 * step, "heldout_loss/books": 3.0 + step, "heldout_loss/$x^": 2.0 + step})
    writers.write_metrics(6, {"tokens": 6000, "heldout_loss/books": float("nan"), "heldout_loss/$x^": 1.0})
    writers.close()
    made, subplots = [], loss_plot.plt.subplots
    monkeypatch.setattr(loss_plot.plt, "subplots", lambda **options: made.append(subplots(**options)) or made[-1])
    plot_loss(tmp_path, "100$ for $x^")
    ((_, axes),) = made
    curves = {line.get_label(): list(map(tuple, line.get_xydata())) for line in axes.get_lines()}
    assert list(curves) == ["training", "held-out books", r"held-out \$x^"]
    assert curves["held-out books"] == [(2.0, 5.0), (5.0, 8.0)] and len(curves[r"held-out \$x^"]) == 3
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(curves)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("heldout", [False, True])
def test_the_picture(tmp_path, heldout):
    plot_loss(tmp_path, "nothing yet")
    assert not (tmp_path / "loss.png").exists()
    write(tmp_path, range(1, 6))
    if heldout:
        writers = MetricWriters(tmp_path, 10, start=5)
        writers.write_metrics(5, {"tokens": 5000, "heldout_loss": 3.0})
        writers.close()
    plot_loss(tmp_path, "a run")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("tokens, unit", [(2e12, (1e9, "billion")), (5e6, (1e6, "million")), (999, (1.0, ""))])
def test_units(tokens, unit):
    assert unit_of_tokens(tokens) == unit
