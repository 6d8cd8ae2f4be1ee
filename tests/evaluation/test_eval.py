"""eval.py from the command line: the files it writes, how runs share a folder, and the error for every mistake."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from llama_jax.evaluation.results import read_items, read_results
from llama_jax.evaluation.tasks.catalogue import TASK_GROUPS, all_tasks
from llama_jax.files.jsonl import write_jsonl
from llama_jax.report.compare import compare_evaluations
from llama_jax.report.evaluation import evaluation_tables
from llama_jax.report.published import PUBLISHED_TABLES
from llama_jax.scoring.likelihood import rolling_loglikelihood
from tests.evaluation.conftest import save_run
from tests.golden.small import random_params

ROOT = Path(__file__).parents[2]


def entry_point():
    spec = importlib.util.spec_from_file_location("eval_entry_point", ROOT / "eval.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments) -> int:
    return entry_point().main([str(argument) for argument in arguments])


@pytest.fixture
def copied(eval_data, tmp_path) -> Path:
    """A copy of the data that a test may damage."""
    folder = tmp_path / "data"
    for name in ("piqa", "openbookqa", "siqa"):
        shutil.copytree(eval_data / name, folder / name, copy_function=shutil.copyfile)
        for item in (folder / name, *(folder / name).iterdir()):
            item.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def reported(eval_data, small_run, tmp_path_factory) -> Path:
    """A folder with OpenBookQA, to which a second command added SIQA."""
    output = tmp_path_factory.mktemp("evals") / "out"
    for name in ("openbookqa", "siqa"):
        assert run("--checkpoint", small_run.folder, "--tasks", name, "--data_dir", eval_data, "--limit", 6,
                   "--output", output) == 0
    return output


def test_what_a_run_leaves_behind(reported):
    report = json.loads((reported / "results.json").read_text())
    assert list(report["tasks"]) == ["openbookqa", "siqa"]
    entry = report["tasks"]["openbookqa"]
    assert (entry["metric"], entry["count"], entry["size"]) == ("acc_answer", 6, 500)
    assert set(entry["numbers"]) == {"acc_raw", "acc_char", "acc_byte", "acc_token", "acc_answer"}
    assert len(entry["data"]["openbookqa/test.jsonl"]) == len(entry["prompts_sha256"]) == 64
    assert report["model"]["name"] == "small, step 1" and report["settings"]["protocol"] == "llama"
    page = (reported / "report.html").read_text()
    for text in ("Table 3", "PaLM 540B", "53.4", "<tr class=own><td>small, step 1", "data:image/png;base64,", "Settings",
                 "6 of 500", entry["prompts_sha256"][:12]):
        assert text in page, text
    markdown = (reported / "report.md").read_text()
    assert "| LLaMA 7B | 76.5 | 79.8 | 48.9 | 76.1 | 70.1 | 72.8 | 47.6 | 57.2 |" in markdown
    assert "| **small, step 1** |" in markdown and (reported / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_the_users_row_stands_under_the_papers(reported):
    report = read_results(reported)
    table = evaluation_tables(report)[0]
    own = table.rows[-1]
    assert table.rows[0][0] == "GPT-3 175B" and own[0] == "small, step 1" and table.highlighted == {10}
    value, error = report["tasks"]["siqa"]["value"], report["tasks"]["siqa"]["stderr"]
    assert own[3] == f"{100 * value:.1f} ± {100 * error:.1f} †" and own[1] == "–"


def test_every_column_of_the_paper_is_a_task():
    known = all_tasks()
    for table in PUBLISHED_TABLES:
        assert all(len(values) == len(table.columns) for _, values in table.rows), table.number
        assert all(column.task in known for column in table.columns if column.task), table.number
    assert set(TASK_GROUPS["paper"]) == {column.task for table in PUBLISHED_TABLES for column in table.columns if column.task}
    assert set(TASK_GROUPS["paper"]) | {"lambada", "perplexity"} == set(known)


def test_two_runs_side_by_side(reported, eval_data, small_run, tmp_path, capsys):
    config = small_run.answerer.model.config
    other = save_run(tmp_path / "other", config, random_params(config, 1), small_run.answerer.tokenizer)
    assert run("--checkpoint", other, "--tasks", "openbookqa", "--data_dir", eval_data, "--limit", 4) == 0
    capsys.readouterr()
    second = other / "evals/1-limit4"
    assert run("--compare", reported, second, "--output", tmp_path / "both") == 0
    assert "p-value" in capsys.readouterr().out and (tmp_path / "both/compare.html").exists()
    grid = compare_evaluations(reported, second)
    [row] = grid.rows
    rights = [[row["metrics"]["acc_answer"] for row in read_items(folder, "openbookqa").values()][:4]
              for folder in (reported, second)]
    assert row[4].split(" ")[0] == f"{100 * (sum(rights[0]) - sum(rights[1])) / 4:+.1f}" and row[6] == "4"
    assert "2 items were not asked" in grid.notes[0]


def error_of(capsys, code: int, *arguments) -> str:
    assert run(*arguments) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def test_other_ways_of_asking_do_not_mix(reported, eval_data, small_run, capsys):
    common = ("--checkpoint", small_run.folder, "--data_dir", eval_data, "--tasks", "siqa", "--output", reported)
    assert "other settings than protocol 'raw'; name another --output" in error_of(capsys, 2, *common, "--protocol", "raw")


BROKEN = [
    ("piqa/valid.jsonl", None, r"piqa/valid.jsonl is missing; get it from https://yonatanbisk.com/piqa and put it there"),
    ("piqa/valid.jsonl", lambda text: text[:5000], "not JSON .*cut short: get it anew"),
    ("piqa/valid-labels.lst", lambda text: text[:-6], "record 98: piqa/valid.jsonl has 100 records and .* 97 labels"),
    ("piqa/valid-labels.lst", lambda text: "7" + text[1:], "record 1: expected one of 0, 1, got '7'"),
    ("piqa/valid.jsonl", lambda text: "\n", "holds no record"),
    ("openbookqa/test.jsonl", lambda text: text.replace('"answerKey"', '"answer"', 1), "line 1: .*'answerKey' is missing"),
    ("openbookqa/test.jsonl", lambda text: text.replace('"answerKey": "B"', '"answerKey": "Z"', 1), "answer 'Z' is none of"),
]


@pytest.mark.parametrize("file, change, sentence", BROKEN)
def test_broken_data(copied, small_run, capsys, file, change, sentence):
    path = copied / file
    if change:
        path.write_text(change(path.read_text()))
    else:
        path.unlink()
    message = error_of(capsys, 3, "--checkpoint", small_run.folder, "--data_dir", copied, "--tasks", file.split("/")[0])
    assert re.search(sentence, message), message


def test_bad_usage(eval_data, small_run, capsys):
    common = ("--checkpoint", small_run.folder, "--data_dir", eval_data)
    assert "unknown task 'hellaswagg'; did you mean hellaswag" in error_of(capsys, 2, *common, "--tasks", "hellaswagg")
    assert "no task is named; groups: common_sense" in error_of(capsys, 2, *common)
    assert "limit must be at least 0" in error_of(capsys, 2, *common, "--tasks", "piqa", "--limit", -1)
    assert "race_high has no worked examples" in error_of(capsys, 2, *common, "--tasks", "race_high", "--num_fewshot", 2)
    assert "--text_files" in error_of(capsys, 2, *common, "--tasks", "perplexity")
    assert "tensor must lie in" in error_of(capsys, 2, *common, "--tasks", "piqa", "--tensor", 9)
    assert "give --checkpoint" in error_of(capsys, 2, "--tasks", "piqa")
    assert "no checkpoint" in error_of(capsys, 3, "--checkpoint", eval_data, "--tasks", "piqa", "--data_dir", eval_data)
    assert "cannot use" in error_of(capsys, 3, "--compare", eval_data, eval_data)


def test_a_checkpoint_without_its_tokenizer(eval_data, small_run, tmp_path, capsys):
    shutil.copytree(small_run.folder, tmp_path / "run")
    (tmp_path / "run/tokenizer.model").unlink()
    message = error_of(capsys, 3, "--checkpoint", tmp_path / "run", "--data_dir", eval_data, "--tasks", "piqa", "--limit", 2)
    assert "no tokenizer at" in message


def test_perplexity_and_lambada(small_run, play, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(play[:700])
    (tmp_path / "b.txt").write_text(play[700:1000])
    (tmp_path / "lambada").mkdir()
    (tmp_path / "lambada/lambada_test.jsonl").write_text('{"text": "hear me speak"}\n{"text": "speak, speak"}\n')
    assert run("--checkpoint", small_run.folder, "--tasks", "perplexity,lambada", "--data_dir", tmp_path, "--text_files",
               tmp_path / "a.txt", tmp_path / "b.txt", "--output", tmp_path / "out") == 0
    numbers = {name: task["numbers"] for name, task in read_results(tmp_path / "out")["tasks"].items()}
    a = small_run.answerer
    nats = -sum(x.logprob for x in rolling_loglikelihood(a.model, a.params, a.tokenizer, [play[:700], play[700:1000]]))
    tokens = len(a.tokenizer.encode(play[:700])) + len(a.tokenizer.encode(play[700:1000]))
    e, size = 2.718281828459045, len(play[:1000].encode())
    assert numbers["perplexity"]["perplexity"]["value"] == pytest.approx(e ** (nats / tokens), rel=1e-3)
    assert numbers["perplexity"]["bits_per_byte"]["value"] == pytest.approx(nats / 0.6931471805599453 / size, rel=1e-4)
    assert numbers["lambada"]["acc"]["count"] == 2 and numbers["lambada"]["perplexity"]["value"] > 1


def test_per_item_files_are_read_back_whatever_ends_a_line_in_their_texts(tmp_path):
    row = {"key": "a", "sha256": "0", "gold": 0, "metrics": {"acc": 1.0}, "text": "one\u2028two\x85three\x0b\x1c\r\n"}
    write_jsonl(tmp_path / "items/x.jsonl", [row])
    assert read_items(tmp_path, "x") == {"a": row}
