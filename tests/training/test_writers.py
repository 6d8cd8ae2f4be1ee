"""Numbers reach every output once, and a run that was killed leaves no lines that were never true."""

import json
import re
from functools import partial

import pytest
from rich.console import Console

from llama_jax.training import writers as module
from llama_jax.training.loss_plot import plot_loss
from llama_jax.training.metrics_file import METRICS_FILE, open_metrics, read_metrics
from llama_jax.training.writers import MetricWriters

LINE = {"tokens": 2048, "loss": 3.25, "perplexity": 25.79, "bits_per_byte": 1.5, "grad_norm": 0.5,
        "learning_rate": 1e-3, "tokens_per_second": 12_345.0, "mfu": 0.42, "seconds": 1.0, "seconds_left": 75.0,
        "sources": {"a": {"tokens": 2048, "epochs": 0.5}}}


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)


def lines_of(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def write(workdir, steps: range, *, start: int = 0) -> None:
    writers = MetricWriters(workdir, 10, start=start)
    for step in steps:
        writers.write_metrics(step, LINE | {"loss": 10 / step})
    writers.close()


def test_every_output_gets_the_numbers(tmp_path, capsys):
    writers = MetricWriters(tmp_path, 10, start=0)
    writers.write_text("head [of] the log")
    writers.write_metrics(1, LINE)
    writers.write_metrics(2, {"tokens": 4096, "heldout_loss": 3.5, "heldout_perplexity": 33.1, "answer": 42.0})
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
    writers = MetricWriters(tmp_path, 10, start=0)
    writers.write_metrics(1, LINE)
    assert lines_of(tmp_path)[0]["step"] == 1
    writers.close()


def test_a_resumed_run_replaces_the_lines_after_its_checkpoint(tmp_path):
    write(tmp_path, range(1, 8))
    write(tmp_path, range(5, 10), start=4)
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, 10))


def test_a_line_cut_short_is_left_out(tmp_path):
    write(tmp_path, range(1, 4))
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in read_metrics(tmp_path / METRICS_FILE)] == [1, 2, 3]
    open_metrics(tmp_path / METRICS_FILE, 3).close()
    assert (tmp_path / METRICS_FILE).read_text().endswith("}\n")
    write(tmp_path, range(4, 5), start=3)
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_other_processes_of_a_run_write_nothing(tmp_path, capsys):
    writers = MetricWriters(tmp_path, 10, start=0, active=False)
    writers.write_text("hello")
    writers.write_metrics(1, LINE)
    writers.close()
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "Console", lambda **options: Console(**options, force_terminal=True, width=100))
    write(tmp_path, range(1, 11))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert "10/10" in plain and "loss 1.0000" in plain and "left" not in plain


def printed(tmp_path, capsys, *lines: dict) -> list[str]:
    writers = MetricWriters(tmp_path, 10_000, start=0)
    for line in lines:
        writers.write_metrics(2_000, line)
    writers.close()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out).splitlines()


def test_every_heldout_source_and_task_has_a_line_and_none_is_empty(tmp_path, capsys):
    heldout = {f"heldout_{name}/{source}": value for source in ("books", "a/b")
               for name, value in (("loss", 3.5), ("perplexity", 33.1), ("bits_per_byte", 1.25))}
    assert printed(tmp_path, capsys,
                   {"tokens": 1} | heldout | {"eval/boolq/acc": 0.5},
                   {"tokens": 1, "eval/boolq/acc": 0.25, "eval/lambada/perplexity": 12.0},
                   {"tokens": 1, "answer": 42.0},
                   {"tokens": 1}) == [
        "step 2000/10000  held-out books loss 3.5000  ppl 33.10  bpb 1.250",
        "step 2000/10000  held-out a/b loss 3.5000  ppl 33.10  bpb 1.250",
        "step 2000/10000  boolq acc 0.5000",
        "step 2000/10000  boolq acc 0.2500",
        "step 2000/10000  lambada perplexity 12.0000",
        "step 2000/10000  answer 42.0000",
    ]


def test_a_run_that_diverges_prints_no_line_of_digits(tmp_path, capsys):
    (line,) = printed(tmp_path, capsys, LINE | {"loss": 690.0, "perplexity": 1e299, "grad_norm": 1e30, "seconds_left": 1e7})
    assert line == ("step 2000/10000  loss 690.0000  ppl 1.00e+299  bpb 1.500  grad 1.00e+30  lr 1.00e-03  12,345 tok/s  "
                    "mfu 42.0%  115 d 17 h left")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_null_in_json_and_not_in_tensorboard(tmp_path, capfd, bad):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    values = {"tokens": 1, "heldout_loss": 2.0, "heldout_perplexity": bad, "nested": {"x": bad}}
    writers = MetricWriters(tmp_path, 10, start=0)
    writers.write_metrics(1, values)
    writers.close()
    events = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write(json.dumps({"step": 2, "tokens": 2, "loss": bad}) + "\n")  # as earlier versions wrote it
    MetricWriters(tmp_path, 10, start=2).close()
    lines = [json.loads(line, parse_constant=refuse) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert lines == [{"step": 1} | values | {"heldout_perplexity": None, "nested": {"x": None}},
                     {"step": 2, "tokens": 2, "loss": None}]
    assert f"step 1/10  held-out loss 2.0000  ppl {bad}" in capfd.readouterr().out
    assert b"heldout_loss" in events and b"heldout_perplexity" not in events
    plot_loss(tmp_path, "a run")  # nothing to show
    assert not (tmp_path / "loss.png").exists()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_lines_fit_their_terminal(tmp_path, monkeypatch, width, terminal):
    if terminal:
        monkeypatch.setattr(module, "Console", partial(Console, force_terminal=True, width=width))
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    tasks = {"heldout_loss/a": 3.5, "heldout_perplexity/a": 33.1, "heldout_bits_per_byte/a": 1.5, "eval/boolq/acc": 0.5}
    writers = MetricWriters(tmp_path, 10_000, start=0)
    said = []
    monkeypatch.setattr(writers, "write_text", said.append)
    for line in (LINE, LINE | {"loss": 690.0, "perplexity": 1e299, "grad_norm": 1e30}, tasks):
        writers.write_metrics(10_000, line)
    writers.close()
    assert len(said) == 4 and all(len(line) <= width for line in said), said
    assert said[0].startswith("step 10000/10000  loss 3.2500")
    for word in {40: (), 80: ("grad", "lr", "tok/s"), 120: ("ppl", "bpb", "mfu"), 200: ("ppl", "bpb", "mfu")}[width]:
        assert word in said[0]


def test_the_bar_fits_its_terminal_and_shows_the_time_left(tmp_path, monkeypatch, capsys):
    for width in (40, 80, 200):
        monkeypatch.setattr(module, "Console", partial(Console, force_terminal=True, width=width))
        (tmp_path / str(width)).mkdir()
        lines = printed(tmp_path / str(width), capsys, LINE)
        bar = lines[-1].split("\r")[-1]
        assert "loss 3.2500" in bar and bar.rstrip().endswith("1:15") and len(bar) <= width
