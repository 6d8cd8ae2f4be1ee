"""`clean` as a user types it: what it prints, its exit codes, and what happens where something is missing or wrong."""

import json
import re
import sys

import pytest

from llama_jax.__main__ import main
from llama_jax.data.prepare import prepare_data
from llama_jax.tokenizer.base import Tokenizer

PAGE = "The harbour lay quiet. Fishermen mended nets. A ferry came in at seven. People went to the market. Then noon came."


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, texts in {"a": [PAGE, "Menu"], "b": [PAGE, PAGE.replace("harbour", "village")]}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def run(*arguments) -> int:
    return main(["clean", *map(str, arguments)])


def test_clean(tmp_path, source, capsys):
    command = ("--source", "c4", "--input", source, "--output", tmp_path / "out", "--workers", 1)
    assert run(*command) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^lines +4 +0\.00 +3 +0\.00$", printed, re.M) and re.search(r"dropped: duplicate +1 +0\.00", printed)
    assert printed.endswith(f"{tmp_path / 'out'}: 1 documents, {len(PAGE)} bytes of text; next: llama-jax prepare --input "
                            f"{tmp_path / 'out'} --tokenizer TOKENIZER --output SHARDS\n")
    files = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.zst")}
    assert run(*command, "--explain", 1) == 0
    again = capsys.readouterr().out
    assert again.endswith(printed) and "lines: dropped, no line left" in again and "Menu" in again
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.zst")} == files, "nothing is done again"


def test_prepare_reads_the_output(tmp_path, source, tokenizer: Tokenizer):
    assert run("--source", "c4", "--input", source, "--output", tmp_path / "out", "--workers", 1) == 0
    assert prepare_data([str(tmp_path / "out")], tokenizer, output=tmp_path / "shards", workers=1).documents == 1


def test_nothing_kept(tmp_path, source, capsys):
    assert run("--source", "c4", "--input", source, "--output", tmp_path / "out", "--min_sentences", 99, "--workers", 1) == 3
    captured = capsys.readouterr()
    assert "dropped: under 99 sentences" in captured.out
    assert captured.err == f"error: {tmp_path / 'out'}: nothing was kept of 2 file(s); the table above counts why.\n"


@pytest.mark.parametrize(("options", "code", "message"), [
    (("--workers", "-1"), 2, "workers and explain must be at least 0, got -1 and 0."),
    (("--output", "pages/out"), 2, "the output pages/out lies in the input pages; name a folder outside of it."),
    (("--input", "nowhere"), 3, "input nowhere does not exist."),
    (("--output", "pages/a.jsonl/out"), 3, "cannot make the folder"),
    (("--min_sentence", "4"), 2, "min_sentences"),
    (("--executor_options", "time=1"), 2, "--executor local takes no executor_options, got time."),
    (("--bad_words", "nowhere"), 3, "cannot read the bad words in nowhere: No such file or directory.")])
def test_mistakes(tmp_path, source, monkeypatch, capsys, options, code, message):
    monkeypatch.chdir(tmp_path)
    words = ["--source", "c4", "--input", "pages", "--output", "out", *options]
    if options[0] == "--output" and "a.jsonl" in options[1]:
        words[3] = "pages/b.jsonl"
    assert main(["clean", *words]) == code
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_changed_options(tmp_path, source, capsys):
    words = ("--source", "c4", "--input", source, "--output", tmp_path / "out", "--workers", 1)
    bad = tmp_path / "bad.txt"
    bad.write_text("darn\n")
    assert run(*words, "--bad_words", bad) == 0
    bad.write_text("ferry\n")
    assert run(*words, "--bad_words", bad, "--min_sentences", 3) == 3
    error = capsys.readouterr().err
    assert "bad_words was" in error and "min_sentences was 5 and is 3. Remove it, or name another --output." in error


def test_missing_extra(tmp_path, source, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("datatrove",) or name.startswith("llama_jax.clean")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "datatrove", None)
    assert run("--source", "c4", "--input", source, "--output", tmp_path / "out") == 2
    assert capsys.readouterr().err == ("error: cleaning needs the extra `data` (datatrove is missing): "
                                       "pip install llama_jax[data].\n")
