"""HumanEval and MBPP: prompts, the reference solutions, OpenAI's own examples, and the estimator."""

import itertools
import json
import shutil
import time
from fractions import Fraction

import pytest

from llama_jax.errors import DataError
from llama_jax.evaluation.data import OfficialFiles
from llama_jax.evaluation.sandbox import run as sandbox
from llama_jax.evaluation.sandbox.run import ProgramLimits, run_programs
from llama_jax.evaluation.task import GenerationAnswer, Settings
from llama_jax.evaluation.tasks import code
from llama_jax.evaluation.tasks.code import TASKS, humaneval_program, mbpp_program, pass_at_k

PATIENT = ProgramLimits(wall_seconds=30, cpu_seconds=10)
"""For a machine that is busy with other tests."""

BY_NAME = {task.name: task for task in TASKS}


def items(name, folder, **settings):
    task, settings = BY_NAME[name], Settings(**settings)
    return task.build(task.read(OfficialFiles(folder, task.origin), settings), settings)


@pytest.mark.parametrize("n, c", [(1, 0), (1, 1), (5, 0), (5, 1), (5, 3), (5, 5), (7, 2)])
def test_pass_at_k_counts_subsets(n, c):
    for k in range(1, n + 1):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k=k) == pytest.approx(float(Fraction(sum(map(any, subsets)), len(subsets))), abs=1e-12)


def test_pass_at_k_of_many_samples():
    assert pass_at_k(200, 1, k=100) == pytest.approx(0.5) and pass_at_k(200, 20, k=1) == pytest.approx(0.1)
    assert pass_at_k(200, 101, k=100) == 1.0 and pass_at_k(200, 0, k=100) == 0.0


def test_humaneval_requests(shared_data):
    found = items("humaneval_1", shared_data / "eval")
    assert len(found) == 164 and found[0].key == "HumanEval/0" and found[163].key == "HumanEval/163"
    request = found[0].requests[0]
    assert request.text.startswith("from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float)")
    assert request.text.endswith("0.3)\n    True\n    \"\"\"\n")
    assert request.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    assert (request.temperature, request.top_p, request.num_samples) == (0.1, 0.95, 20)
    many = items("humaneval_100", shared_data / "eval")[0].requests[0]
    assert (many.temperature, many.num_samples) == (0.8, 200)
    assert items("humaneval_100", shared_data / "eval", num_samples=3)[0].requests[0].num_samples == 3
    harness = items("humaneval_1", shared_data / "eval", protocol="lm_eval")[0].requests[0]
    assert (harness.temperature, harness.num_samples) == (0, 1)


def test_mbpp_requests(shared_data):
    found = items("mbpp_80", shared_data / "eval")
    assert [item.key for item in found] == [str(n) for n in range(11, 61)]  # 1 to 10 are for prompts
    text = found[0].requests[0].text
    assert text.startswith(
        "You are an expert Python programmer, and here is your task: Write a function to find the similar elements from the "
        "given two tuple lists. Your code should pass these tests:\n\n"
        "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n")
    assert text.endswith(
        "[DONE]\n\nYou are an expert Python programmer, and here is your task: Write a python function to remove first and last "
        "occurrence of a given character from the string. Your code should pass these tests:\n\n"
        'assert remove_Occ("hello","l") == "heo"\nassert remove_Occ("abcda","a") == "bcd"\nassert remove_Occ("PHP","P") == "H"\n'
        "[BEGIN]\n")
    assert text.count("[BEGIN]") == 4 and text.count("[DONE]") == 3 and found[0].requests[0].stop == ("[DONE]",)
    assert items("mbpp_1", shared_data / "eval", num_fewshot=0)[0].requests[0].text.count("[BEGIN]") == 1


def test_all_reference_solutions_of_humaneval_pass(shared_data):
    rows = [item.extra for item in items("humaneval_1", shared_data / "eval")]
    begin = time.monotonic()
    outcomes = run_programs([humaneval_program(row, row["canonical_solution"]) for row in rows], PATIENT)
    failed = [(row["task_id"], outcome.result) for row, outcome in zip(rows, outcomes, strict=True) if not outcome.passed]
    assert len(outcomes) == 164 and not failed
    assert time.monotonic() - begin < 60
    wrong = run_programs([humaneval_program(row, "    return None\n") for row in rows[:8]])
    assert not any(outcome.passed for outcome in wrong)


def test_all_reference_solutions_of_mbpp_pass(shared_data):
    rows = [item.extra for item in items("mbpp_1", shared_data / "eval")]
    assert all(outcome.passed for outcome in run_programs([mbpp_program(row, row["code"]) for row in rows], PATIENT))
    assert not any(outcome.passed for outcome in run_programs([mbpp_program(row, "") for row in rows[:4]]))


def test_openais_own_examples_score_as_its_tool_scores_them(shared_data):
    """Three of six pass, so pass@1 is 0.5: the last three, of which each indents in its own way; its README prints 0.4999..."""
    folder = shared_data / "eval/humaneval"
    problem = json.loads((folder / "example_problem.jsonl").read_text())
    samples = [json.loads(line) for line in (folder / "example_samples.jsonl").read_text().splitlines()]
    programs = [humaneval_program(problem, sample["completion"]) for sample in samples]
    results = [outcome.result for outcome in run_programs(programs, ProgramLimits(wall_seconds=1.5))]
    assert [result == "passed" for result in results] == [False, False, False, True, True, True]
    assert results[1] == "timed out" and results[2].startswith("failed: EOFError")
    verdict = code.pass_verdict([{"passed": result == "passed", "result": result} for result in results], 100)
    assert verdict.metrics == {"pass@1": pytest.approx(0.5)}


def test_nothing_runs_without_the_flag(shared_data, tmp_path, monkeypatch):
    monkeypatch.setattr(code, "run_programs", lambda *_: pytest.fail("a program was run"))
    task, settings = BY_NAME["humaneval_1"], Settings(num_samples=2, output=str(tmp_path))
    found = items("humaneval_1", shared_data / "eval", num_samples=2)[:2]
    verdicts = task.judge(found, [[GenerationAnswer((" a", " b"))], [GenerationAnswer((" c", " d"))]], settings=settings)
    assert [verdict.metrics for verdict in verdicts] == [{}, {}]
    lines = [json.loads(line) for line in (tmp_path / "humaneval_1_samples.jsonl").read_text().splitlines()]
    texts = ((0, " a"), (0, " b"), (1, " c"), (1, " d"))
    assert lines == [{"task_id": f"HumanEval/{n}", "completion": text} for n, text in texts]


def test_programs_run_with_the_flag(shared_data, tmp_path, capsys):
    code.tell_isolation.cache_clear()
    settings = {"num_samples": 10, "output": str(tmp_path), "allow_code_execution": True}
    found = items("humaneval_100", shared_data / "eval", **settings)[:2]
    assert "sandbox: Each program has 3 s of processor" in capsys.readouterr().err
    good = found[0].extra["canonical_solution"]
    answers = [[GenerationAnswer((good, *["    return 1\n"] * 8, good))], [GenerationAnswer(("    pass",) * 10)]]
    verdicts = BY_NAME["humaneval_100"].judge(found, answers, settings=Settings(**settings))
    assert verdicts[0].metrics == {"pass@1": pytest.approx(0.2), "pass@10": 1.0} and verdicts[1].metrics["pass@10"] == 0
    lines = [json.loads(line) for line in (tmp_path / "humaneval_100_results.jsonl").read_text().splitlines()]
    assert len(lines) == 20 and [line["passed"] for line in lines[:10]] == [True, *[False] * 8, True]
    assert lines[1] == {"task_id": "HumanEval/0", "completion": "    return 1\n", "passed": False,
                        "result": "failed: AssertionError: "}
    assert sandbox.available_layers()  # asked before anything was generated


def test_bad_files(shared_data, tmp_path):
    with pytest.raises(DataError, match=r"HumanEval.jsonl.gz is missing; get it from https://github.com/openai/human-eval"):
        items("humaneval_1", tmp_path)
    (tmp_path / "humaneval").mkdir()
    content = (shared_data / "eval/humaneval/HumanEval.jsonl.gz").read_bytes()
    (tmp_path / "humaneval/HumanEval.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot read .*HumanEval.jsonl.gz"):
        items("humaneval_1", tmp_path)
    shutil.copytree(shared_data / "eval/mbpp", tmp_path / "mbpp")
    lines = (tmp_path / "mbpp/mbpp.jsonl").read_text().splitlines()
    (tmp_path / "mbpp/mbpp.jsonl").write_text("\n".join(lines[10:]))
    with pytest.raises(DataError, match="the worked examples 2, 3 and 4 are missing"):
        items("mbpp_1", tmp_path)
    (tmp_path / "mbpp/mbpp.jsonl").write_text("\n".join(line.replace('"test_list"', '"tests"') for line in lines))
    with pytest.raises(DataError, match="'test_list' is missing"):
        items("mbpp_1", tmp_path)


def test_the_hub_gives_the_same(shared_data):
    def rows(path, config, split):
        if path == "openai/openai_humaneval":
            return OfficialFiles(shared_data / "eval").read_jsonl("humaneval/HumanEval.jsonl.gz")
        ids = {"prompt": range(1, 11), "test": range(11, 511)}[split]
        return [row for row in OfficialFiles(shared_data / "eval").read_jsonl("mbpp/mbpp.jsonl") if row["task_id"] in ids]

    for name in "humaneval_1", "mbpp_1":
        assert BY_NAME[name].build(BY_NAME[name].hub(rows, Settings()), Settings()) == items(name, shared_data / "eval")
