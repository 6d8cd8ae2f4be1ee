"""Decontamination as a command: documents of `clean` without what evaluation sets hold, whatever the number of workers."""

import json
import shutil

import pytest

from llama_jax.__main__ import main
from llama_jax.data.sources import read_documents

PLAIN = "A baker in a small town by the sea opened his shop at five in the morning, and the street smelled of bread. " * 6


@pytest.fixture
def planted(shared_data, tmp_path):
    """(folder of documents, a question of BoolQ's passage that is in the third): four documents in two files."""
    passage = json.loads((shared_data / "eval/boolq/dev.jsonl").read_text().splitlines()[3])["passage"]
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (
        {"text": PLAIN, "id": "bread", "metadata": {"url": "x"}}, {"text": PLAIN + passage + " " + PLAIN, "id": "both"})))
    (raw / "b.jsonl").write_text(json.dumps({"text": passage}) + "\n" + "no JSON\n")
    (raw / "report.json").write_text("[]")
    return raw, passage


def clean(raw, output, shared_data, *more):
    return main(["clean", "--source", "documents", "--input", str(raw), "--output", str(output), *more,
                 "--evaluation_data", str(shared_data / "eval")])


def test_planted_text_is_cut_and_counted(planted, shared_data, tmp_path, capsys):
    raw, passage = planted
    assert clean(raw, tmp_path / "out", shared_data, "--workers", "2") == 0
    files = sorted((tmp_path / "out").glob("*.jsonl.zst"))
    texts = [text for file in files for text in read_documents(file)]
    assert texts[0] == PLAIN and len(texts) == 3  # and what is left before and after the passage
    assert all(text in PLAIN for text in texts[1:]) and not any(passage[100:160] in text for text in texts)
    step = json.loads((tmp_path / "out/report.json").read_text())[-1]
    assert (step["documents_in"], step["documents_out"]) == (3, 3)
    assert step["dropped"] == {"text of evaluation sets": [1, len(passage.encode())]}
    assert step["other"]["documents with text of boolq"] == 2 and step["other"]["further pieces of cut documents"] == 1
    assert "no JSON" in capsys.readouterr().out
    assert clean(raw, tmp_path / "again", shared_data, "--workers", "1") == 0
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in sorted((tmp_path / "again").glob("*.zst"))]


def test_a_common_phrase_is_no_contamination(shared_data, tmp_path):
    passage = json.loads((shared_data / "eval/boolq/dev.jsonl").read_text().splitlines()[3])["passage"]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_text("".join(json.dumps({"text": f"{PLAIN} {passage} {n}"}) + "\n" for n in range(12)))
    assert clean(tmp_path / "raw", tmp_path / "out", shared_data, "--workers", "1") == 0
    assert len([*read_documents(next((tmp_path / "out").glob("*.zst")))]) == 12


def test_what_is_missing_is_named(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.jsonl").write_text('{"text": "a"}\n')
    command = ["clean", "--source", "documents", "--input", str(tmp_path / "raw"), "--output", str(tmp_path / "out")]
    assert main(command) == 2 and "--evaluation_data" in capsys.readouterr().err
    assert main([*command, "--evaluation_data", str(tmp_path)]) == 3 and "holds no evaluation set" in capsys.readouterr().err


def test_other_evaluation_data_is_other_work(planted, shared_data, tmp_path, capsys):
    raw, _ = planted
    (tmp_path / "eval").mkdir()
    shutil.copytree(shared_data / "eval/boolq", tmp_path / "eval/boolq")
    command = ["clean", "--source", "documents", "--input", str(raw), "--output", str(tmp_path / "out"), "--workers", "1",
               "--evaluation_data", str(tmp_path / "eval")]
    assert main(command) == 0 and main(command) == 0
    with (tmp_path / "eval/boolq/dev.jsonl").open("a") as file:
        file.write((shared_data / "eval/boolq/dev.jsonl").read_text().splitlines()[0] + "\n")
    capsys.readouterr()
    assert main(command) == 3 and "evaluation_data" in capsys.readouterr().err
