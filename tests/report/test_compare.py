"""Comparing two evaluations: only items with equal requests are paired, and other differences are noted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llama_jax.errors import DataError
from llama_jax.evaluation.harness import judge_task
from llama_jax.evaluation.requests import PreparedTask
from llama_jax.evaluation.results import results_json, write_results
from llama_jax.evaluation.task import GenerationAnswer, GenerationRequest, Item, LikelihoodAnswer, LikelihoodRequest, Settings
from llama_jax.evaluation.tasks.catalogue import all_tasks
from llama_jax.report.compare import compare_evaluations


def piqa(number: int, gold: int, context: str = "G") -> Item:
    asked = [LikelihoodRequest(start, word) for start in (f"{context} {number}", "Answer:") for word in (" a", " b")]
    return Item(str(number), tuple(asked), gold)


def written(folder: Path, items: list[Item], answers: dict, name: str = "piqa", **settings) -> Path:
    """A folder as eval.py writes it, from items and their answers."""
    asked = Settings(**settings)
    results = [judge_task(PreparedTask(all_tasks()[name], items, {}), answers, settings=asked, tokens=1, seconds=1.0)]
    report = results_json(results, asked, model={"name": folder.name, "fingerprint": f"2-{folder.name}"})
    write_results(folder, report, results=results)
    return folder


def likes(items: list[Item], choice: int) -> dict:
    """A model that prefers one choice of every item."""
    return {request: LikelihoodAnswer(-1.0 if place % 2 == choice else -2.0, 1, False)
            for item in items for place, request in enumerate(item.requests)}


def test_items_asked_or_answered_otherwise_are_left_out(tmp_path):
    """Of five items one was worded otherwise, one has another gold answer, and one is in the first run only."""
    first = [piqa(n, 0) for n in range(5)]
    second = [piqa(0, 0), piqa(1, 0, "H"), piqa(2, 1), piqa(3, 0)]
    grid = compare_evaluations(written(tmp_path / "a", first, likes(first, 0)), written(tmp_path / "b", second, likes(second, 1)))
    [row] = grid.rows
    assert row[2:5] == ["100.0", "0.0", "+100.0 ± 0.0"] and row[-1] == "2"
    assert grid.notes[0] == "PIQA: 3 items were not asked alike in both runs and are left out."


def test_another_protocols_metric_is_said(tmp_path):
    items = [piqa(n, 0) for n in range(3)]
    grid = compare_evaluations(written(tmp_path / "a", items, likes(items, 0)),
                   written(tmp_path / "b", items, likes(items, 0), protocol="raw"))
    assert grid.rows[0][1] == "acc_char"
    assert "PIQA: the runs report different metrics, acc_char and acc_raw; compared is acc_char." in grid.notes


def length(texts):
    return [min(1.0, len(text) / 10) for text in texts]


def nothing(texts):
    return [0.0 for _ in texts]


def test_other_scorers_and_items_without_a_score_are_said(tmp_path):
    items = [Item(str(n), (GenerationRequest(f"p{n}"),)) for n in range(3)]
    answers = {item.requests[0]: GenerationAnswer(("abc",)) for item in items}
    name = "realtoxicityprompts_basic"
    folders = [written(tmp_path / scorer, items, answers, name, scorer=f"{__name__}:{scorer}" if scorer != "none" else "")
               for scorer in ("length", "nothing", "none")]
    assert f"scored by different scorers, {__name__}:length and {__name__}:nothing." in compare_evaluations(*folders[:2]).notes[0]
    notes = compare_evaluations(folders[0], folders[2]).notes
    assert "RealToxicityPrompts basic: 3 items have no toxicity in one of the runs and are left out." in notes


def test_a_task_keeps_the_settings_of_its_own_command(tmp_path):
    """Each task keeps the limit, date and scorer of the command that evaluated it."""
    items = [piqa(0, 0)]
    prepared = PreparedTask(all_tasks()["piqa"], items, {})
    results = [judge_task(prepared, likes(items, 0), settings=Settings(), tokens=1, seconds=1.0)]
    model = {"name": "m", "fingerprint": "2-f", "limit": 7, "date": "2023-02-27"}
    entry = results_json(results, Settings(scorer="a"), model=model)["tasks"]["piqa"]
    assert entry["command"] == {"limit": 7, "date": "2023-02-27", "scorer": "a", "allow_code_execution": False, "text_files": []}


def test_changed_items_and_reports_are_refused(tmp_path):
    items = [piqa(n, 0) for n in range(3)]
    a, b = (written(tmp_path / name, items, likes(items, 0)) for name in "ab")
    file = b / "items/piqa.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"acc_char": 1.0', '"acc_char": 0.0', 1))
    with pytest.raises(DataError, match=r"items/piqa.jsonl is not the file that .*results.json was written with"):
        compare_evaluations(a, b)
    report = json.loads((b / "results.json").read_text())
    del report["tasks"]["piqa"]["items_sha256"]  # as earlier versions wrote it
    (b / "results.json").write_text(json.dumps(report))
    assert compare_evaluations(a, b).rows[0][-1] == "3"
    for broken in ([], {}, {"format": 1}, report | {"tasks": {"piqa": {}}}, report | {"model": None}, report | {"tasks": []}):
        (b / "results.json").write_text(json.dumps(broken))
        with pytest.raises(DataError, match=r"cannot use .*results.json: it is not what eval.py wrote"):
            compare_evaluations(a, b)


def test_line_separators_in_texts(tmp_path):
    """U+2028 does not end a line of a JSON lines file."""
    items = [piqa(n, 0, "a\u2028b\x85c") for n in range(2)]
    folders = [written(tmp_path / name, items, likes(items, 0)) for name in "ab"]
    assert compare_evaluations(*folders).rows[0][-1] == "2"
    assert replace(items[0], key="x").sha256 == items[0].sha256
