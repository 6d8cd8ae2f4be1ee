"""Numbers reach every output once, and a run that was killed leaves no lines that were never true."""

import json
import re

import pytest
from rich.console import Console

from llama_jax.training import writers as module
from llama_jax.training.writers import METRICS, Writers, open_metrics, plot_loss, read_metrics

LINE = {"tokens": 2048, "loss": 3.25, "perplexity": 25.79, "bits_per_byte": 1.5, "grad_norm": 0.5,
        "learning_rate": 1e-3, "tokens_per_second": 12_345.0, "mfu": 0.42, "seconds": 1.0, "seconds_left": 75.0,
        "sources": {"a": {"tokens": 2048, "epochs": 0.5}}}


def lines_of(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]


def write(workdir, steps: range, *, start: int = 0) -> None:
    writers = Writers(workdir, 10, start=start)
    for step in steps:
        writers.metrics(step, LINE | {"loss": 10 / step})
    writers.close()


def test_every_output_gets_the_numbers(tmp_path, capsys):
    writers = Writers(tmp_path, 10, start=0)
    writers.text("head [of] the log")
    writers.metrics(1, LINE)
    writers.metrics(2, {"tokens": 4096, "heldout_loss": 3.5, "heldout_perplexity": 33.1, "answer": 42.0})
    writers.close()
    assert lines_of(tmp_path) == [{"step": 1} | LINE, {"step": 2, "tokens": 4096, "heldout_loss": 3.5,
                                                      "heldout_perplexity": 33.1, "answer": 42.0}]
    assert capsys.readouterr().out.splitlines() == [
        "head [of] the log",
        "step 1/10  loss 3.2500  ppl 25.79  bpb 1.500  grad 0.50  lr 1.00e-03  12,345 tok/s  mfu 42.0%  1:15 left",
        "step 2/10  held-out loss 3.5000  ppl 33.10",
    ]
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert {b"loss", b"heldout_loss", b"answer"} <= set(re.findall(rb"[a-z_]+", events.read_bytes()))


def test_a_line_is_on_disk_before_the_next_step(tmp_path):
    writers = Writers(tmp_path, 10, start=0)
    writers.metrics(1, LINE)
    assert lines_of(tmp_path)[0]["step"] == 1
    writers.close()


def test_a_resumed_run_replaces_the_lines_after_its_checkpoint(tmp_path):
    write(tmp_path, range(1, 8))
    write(tmp_path, range(5, 10), start=4)
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, 10))


def test_a_line_cut_short_is_left_out(tmp_path):
    write(tmp_path, range(1, 4))
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2, 3]
    open_metrics(tmp_path / METRICS, 3).close()
    assert (tmp_path / METRICS).read_text().endswith("}\n")
    write(tmp_path, range(4, 5), start=3)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_other_processes_of_a_run_write_nothing(tmp_path, capsys):
    writers = Writers(tmp_path, 10, start=0, active=False)
    writers.text("hello")
    writers.metrics(1, LINE)
    writers.close()
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "Console", lambda **options: Console(**options, force_terminal=True, width=100))
    write(tmp_path, range(1, 11))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert "10/10" in plain and "loss 1.0000" in plain and "left" not in plain


@pytest.mark.parametrize("heldout", [False, True])
def test_the_picture(tmp_path, heldout):
    plot_loss(tmp_path, "nothing yet")
    assert not (tmp_path / "loss.png").exists()
    write(tmp_path, range(1, 6))
    if heldout:
        writers = Writers(tmp_path, 10, start=5)
        writers.metrics(5, {"tokens": 5000, "heldout_loss": 3.0})
        writers.close()
    plot_loss(tmp_path, "a run")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("tokens, unit", [(2e12, (1e9, "billion")), (5e6, (1e6, "million")), (999, (1.0, ""))])
def test_units(tokens, unit):
    assert module._unit(tokens) == unit
