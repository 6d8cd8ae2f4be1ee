"""metrics.jsonl after damage: whole lines stay, damaged ones are kept in a file of their own, and nothing ends in a traceback."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import DataError
from llama_jax.training.loss_plot import plot_loss
from llama_jax.training.metrics_file import DAMAGED_METRICS, METRICS_FILE, metrics_line, open_metrics, read_metrics

LINES = [{"step": step, "tokens": 1024 * step, "loss": 5.0 - step / 100, "bits_per_byte": None,
          "sources": {"a": {"tokens": 1024 * step, "epochs": 0.25}}} for step in range(1, 41)]
CONTENT = "".join(map(metrics_line, LINES)).encode()


def resume(folder: Path, content: bytes, last_step: int = 30) -> tuple[list[dict], bytes]:
    """(lines after a resume, what was set aside); what a plot makes of it must not fail either."""
    folder.mkdir(exist_ok=True)
    (folder / DAMAGED_METRICS).unlink(missing_ok=True)
    (folder / METRICS_FILE).write_bytes(content)
    open_metrics(folder / METRICS_FILE, last_step).close()
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    assert lines == read_metrics(folder / METRICS_FILE)
    aside = folder / DAMAGED_METRICS
    return lines, aside.read_bytes() if aside.exists() else b""


def line_of(place: int) -> int:
    return CONTENT[:place].count(b"\n")


def test_a_damaged_byte_costs_its_own_line_alone(tmp_path, caplog):
    place = CONTENT.index(b'"step": 12,')
    content = bytearray(CONTENT)
    content[place + 1] ^= 0x80  # not UTF-8 any more
    lines, aside = resume(tmp_path, bytes(content))
    assert lines == [*LINES[:11], *LINES[12:30]]
    assert aside == bytes(content).split(b"\n")[11] + b"\n"
    assert f"{METRICS_FILE}: 1 damaged line(s) are set aside in {DAMAGED_METRICS}" in caplog.text
    resume_again = [line["step"] for line in read_metrics(tmp_path / METRICS_FILE)]
    assert resume_again == [line["step"] for line in lines]


def test_a_lost_line_end_costs_nothing(tmp_path):
    place = CONTENT.index(b"\n", 1000)
    content = bytearray(CONTENT)
    content[place] = 7
    lines, aside = resume(tmp_path, bytes(content))
    assert lines == LINES[:30] and aside == b"\x07\n"


def test_what_was_set_aside_before_stays(tmp_path):
    resume(tmp_path, b"one\n" + CONTENT)
    (tmp_path / METRICS_FILE).write_bytes(b"two\n" + CONTENT)
    open_metrics(tmp_path / METRICS_FILE, 5).close()
    assert (tmp_path / DAMAGED_METRICS).read_bytes() == b"one\ntwo\n"


def test_a_line_that_a_crash_cut_short_is_no_damage(tmp_path):
    lines, aside = resume(tmp_path, CONTENT[:-9])
    assert lines == LINES[:30] and aside == b""


@pytest.mark.parametrize("line", [
    b"[]", b"3", b'{"loss": 1.0}', b'{"step": "3"}', b'{"step": -1}', b'{"step": 1.5}', b'{"step": null}', b'{"step": true}',
    b'{"step": 3, "tokens": 1' + b"0" * 400 + b"}", b"\xff\xfe{", b"[" * 100_000, b"\x00" * 50, b'{"step": 3',
    b'{"step": {"step": 3'])
def test_lines_that_are_no_metrics(tmp_path, line):
    lines, aside = resume(tmp_path, CONTENT[:500].rpartition(b"\n")[0] + b"\n" + line + b"\n" + CONTENT)
    assert lines[-30:] == LINES[:30] and aside == line + b"\n"


def mutated(draw: random.Random) -> tuple[bytes, set[int]]:
    """(a changed file, the numbers of the lines that were touched)."""
    content, touched = bytearray(CONTENT), set()
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(CONTENT))
        content[at] = draw.choice([draw.randrange(256), 0, 255, ord("\n"), content[at] ^ 1 << draw.randrange(8)])
        touched |= {line_of(at), line_of(at + 1)}
    return bytes(content), touched


def mutate_and_resume(folder: Path, *, count: int, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(count):
        content, touched = mutated(draw)
        lines, _ = resume(folder, content)
        untouched = [line for number, line in enumerate(LINES[:30]) if number not in touched]
        assert [line for line in lines if line in untouched] == untouched


def test_mutated_files(tmp_path):
    """600 files of one to four damaged bytes: no error, and every line that was not touched is there."""
    mutate_and_resume(tmp_path, count=600, seed=0)


@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "any"
    lines, _ = resume(folder, CONTENT + data + b"\n" + CONTENT)
    assert lines[:30] == LINES[:30] and lines[-30:] == LINES[:30]


def test_a_plot_of_mutated_files(tmp_path):
    draw = random.Random(1)
    for _ in range(5):
        resume(tmp_path, mutated(draw)[0].replace(b'"tokens"', b'"tokems"', draw.randint(0, 40)))
        plot_loss(tmp_path, "a run")


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / METRICS_FILE).mkdir()
    with pytest.raises(DataError, match=r"cannot read .*metrics.jsonl: Is a directory"):
        read_metrics(tmp_path / METRICS_FILE)
