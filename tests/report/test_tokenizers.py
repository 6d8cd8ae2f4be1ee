"""The report on a tokenizer: every figure where it belongs, beside those of a reference, as tables, JSON and a plot."""

import json
import re

import pytest

from llama_jax.__main__ import main
from llama_jax.report.tokenizers import MeasuredTokenizer, tokenizer_tables
from llama_jax.tokenizer.fertility import count_tokens
from llama_jax.tokenizer.load import load_tokenizer

GREEK = "\u039c\u03ae\u03bd\u03b9\u03bd \u1f04\u03b5\u03b9\u03b4\u03b5 \u03b8\u03b5\u03ac 1234\n"


@pytest.fixture
def inputs(tmp_path, play, tokenizer) -> list[str]:
    """English and Greek texts of two sources, as the command names them, after the small tokenizer's folder is made."""
    tokenizer.save(tmp_path / "small")
    texts = {"plays-en": play[:30_000], "plays-el": GREEK * 100, "web-en": play[30_000:50_000]}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    return [f"{name.replace('-', '/')}={tmp_path / name}.txt" for name in texts]


def report(*arguments) -> int:
    return main(["tokenizer", "report", *map(str, arguments)])


def test_beside_llamas_tokenizer(tmp_path, inputs, shared_data, tokenizer, play, capsys):
    reference = shared_data / "tokenizer/llama-tokenizer.model"
    assert report("--tokenizer", tmp_path / "small", "--reference", reference, "--input", *inputs,
                  "--output", tmp_path / "out") == 0
    assert "every digit is a token of its own" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out/report.json").read_text())
    assert list(figures) == ["small", "llama-tokenizer.model"]
    llama = load_tokenizer(reference)
    for label, one in (("small", tokenizer), ("llama-tokenizer.model", llama)):
        greek = one.encode(GREEK * 100)
        wanted = figures[label]["languages"]["el"]
        assert (wanted["tokens"], wanted["bytes"]) == (len(greek), len(GREEK.encode()) * 100)
        assert wanted["byte_tokens"] == sum(map(one.is_byte, greek))
        assert figures[label]["sources"]["plays"]["tokens"] == len(greek) + len(one.encode(play[:30_000]))
        assert figures[label]["total"]["tokens"] == sum(inner["tokens"] for inner in figures[label]["inputs"].values())
        assert figures[label]["pieces_with_several_digits"] == 0 and wanted["merged_digit_share"] == 0
    assert figures["small"]["languages"]["el"]["non_ascii_byte_share"] > 0.75, "the play has no Greek"
    assert figures["llama-tokenizer.model"]["languages"]["el"]["non_ascii_byte_share"] < 0.2

    page = (tmp_path / "out/report.md").read_text()
    sources, languages = (dict.fromkeys(re.findall(r"^\| (?:\*\*)?(\w+)", part, re.M))
                          for part in page.partition("## By source")[2].split("## By language"))
    assert list(sources) == ["text", "plays", "web", "all"] and list(languages) == ["text", "en", "el"]
    total = figures["small"]["total"]["tokens"] / figures["llama-tokenizer.model"]["total"]["tokens"]
    assert f"**{total:.3f}**" in page
    assert (tmp_path / "out/report-tokenizer.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in (tmp_path / "out/report.html").read_text()


def test_rows_of_the_tables(tokenizer):
    texts = {"a/en": ["to be"], "b": ["7 of \u03b1"]}
    own = MeasuredTokenizer("own", tokenizer, count_tokens(tokenizer, texts))
    by_source, by_language = tokenizer_tables([own])
    tokens = {name: len(tokenizer.encode(text)) for name, [text] in texts.items()}
    assert [row[:5] for row in by_source.rows] == [
        ["a", "own", "0.00", str(tokens["a/en"]), "\u2013"], ["b", "own", "0.00", str(tokens["b"]), "\u2013"],
        ["all", "own", "0.00", str(tokens["a/en"] + tokens["b"]), "\u2013"]]
    assert [row[0] for row in by_language.rows] == ["en"]
    assert by_source.rows[0][-1] == "\u2013" and by_source.rows[1][-1] == "0.0", "a text without digits says nothing of them"
    # the play has no digit either: a 7 is a byte, and an alpha two
    assert by_source.rows[1][-4:-1] == [f"{100 * 3 / tokens['b']:.3f}", f"{100 * 2 / tokens['b']:.3f}", "0.000"]
    assert len(tokenizer_tables([MeasuredTokenizer("own", tokenizer, {"b": own.counts["b"]})])) == 1


def test_two_tokenizers_of_one_name(tmp_path, inputs, tokenizer):
    tokenizer.save(tmp_path / "other/small")
    assert report("--tokenizer", tmp_path / "small", "--reference", tmp_path / "other/small", "--input", *inputs,
                  "--output", tmp_path / "out") == 0
    figures = json.loads((tmp_path / "out/report.json").read_text())
    assert list(figures) == ["tokenizer", "reference"]
    assert figures["tokenizer"]["inputs"] == figures["reference"]["inputs"]


@pytest.mark.parametrize("words, sentence", [
    (["=x.txt"], "--input =x.txt: expected PATH or NAME=PATH"), (["web="], "--input web=: expected PATH or NAME=PATH"),
    (["/=x.txt"], "--input /=x.txt: expected PATH or NAME=PATH"), ([], "there is nothing to measure"),
])
def test_inputs_that_cannot_be_read(tmp_path, inputs, capsys, words, sentence):
    assert report("--tokenizer", tmp_path / "small", "--input", *words) == 2
    assert sentence in capsys.readouterr().err


def test_a_path_with_an_equals_sign(tmp_path, inputs, capsys):
    (tmp_path / "a=b.txt").write_text("to be or not")
    assert report("--tokenizer", tmp_path / "small", "--input", tmp_path / "a=b.txt") == 0
    assert re.search(r"words +\u2502 +4 ", capsys.readouterr().out)
