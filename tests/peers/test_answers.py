"""Prompts of generated answers and metrics of bias, beside lm-evaluation-harness's own templates and functions."""

import json
from pathlib import Path

import pytest

from llama_jax.evaluation.data import OfficialFiles
from llama_jax.evaluation.grading.latex import boxed_answer
from llama_jax.evaluation.grading.published_forms import hendrycks_form
from llama_jax.evaluation.task import LikelihoodAnswer, Settings
from llama_jax.evaluation.tasks import bias, closed_book, code, reasoning

pytestmark = pytest.mark.peers
lm_eval = pytest.importorskip("lm_eval")
jinja2 = pytest.importorskip("jinja2")
yaml = pytest.importorskip("yaml")

from lm_eval.tasks.crows_pairs import utils as crows_pairs  # noqa: E402
from lm_eval.tasks.hendrycks_math import utils as hendrycks_math  # noqa: E402
from lm_eval.tasks.truthfulqa import utils as truthfulqa  # noqa: E402

FOLDER = Path(lm_eval.__file__).parent / "tasks"
TASKS = {task.name: task for module in (bias, closed_book, code, reasoning) for task in module.TASKS}
SETTINGS = Settings(protocol="lm_eval")


class Loader(yaml.SafeLoader):
    """YAML whose functions are left out."""


Loader.add_constructor("!function", lambda *_: None)


def harness(name: str) -> dict:
    return yaml.load((FOLDER / name).read_text(), Loader)


def rendered(template: str, doc: dict) -> str:
    return jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True).from_string(template).render(doc)


def items(name, folder):
    task = TASKS[name]
    records = task.read(OfficialFiles(folder, task.origin), SETTINGS)
    return records, task.build(records, SETTINGS)


def asked(item) -> str:
    return getattr(item.requests[0], "text", None) or item.requests[0].context


def test_zero_shot_prompts(shared_data):
    for name, file in {"natural_questions_0shot": "nq_open/nq_open.yaml", "triviaqa_0shot": "triviaqa/default.yaml",
                       "humaneval_1": "humaneval/humaneval.yaml", "truthfulqa": "truthfulqa/truthfulqa_mc1.yaml",
                       "winogender": "winogender/winogender.yaml"}.items():
        theirs = harness(file)
        records, found = items(name, shared_data / "eval")
        for row, item in zip(records.test, found, strict=True):
            assert asked(item) == theirs.get("description", "") + rendered(theirs["doc_to_text"], row), name
        if "generation_kwargs" in theirs:
            assert list(found[0].requests[0].stop) == theirs["generation_kwargs"]["until"]


def test_worked_examples(shared_data):
    theirs = harness("gsm8k/gsm8k-cot.yaml")
    records, found = items("gsm8k", shared_data / "eval")
    shots = "".join(f"{rendered(theirs['doc_to_text'], shot)} {shot['target']}\n\n"
                    for shot in theirs["fewshot_config"]["samples"])
    assert [asked(item) for item in found] == [shots + rendered(theirs["doc_to_text"], row) for row in records.test]
    assert list(found[0].requests[0].stop) == theirs["generation_kwargs"]["until"]
    theirs = harness("mbpp/mbpp.yaml")
    records, found = items("mbpp_1", shared_data / "eval")
    solved = [shot | {"is_fewshot": True} for shot in records.shots]
    shots = "".join(rendered(theirs["doc_to_text"], shot) + rendered(theirs["doc_to_target"], shot) + "\n\n" for shot in solved)
    assert [asked(item) for item in found] == [shots + rendered(theirs["doc_to_text"], row) for row in records.test]


def test_hendrycks_form(shared_data):
    golds = [boxed_answer(json.loads(file.read_text())["solution"]) for file in (shared_data / "eval/math/test").glob("*/*.json")]
    for text in [*golds, "1/2", "\\frac12", "\\frac1{72}", "\\sqrt3", "x=5", "12\\text{ cm}", "90^\\circ", ".5", "k = 7", "{.5}",
                 "\\tfrac34", "\\$18", "50\\%", "\\left(3, \\frac{\\pi}{2}\\right)", "10\\!000", "\\frac{\\sqrt3}{2}", "7/8"]:
        assert hendrycks_form(text) == hendrycks_math.strip_string(text), text


def test_bias_metrics(shared_data):
    _, found = items("truthfulqa", shared_data / "eval")
    logprobs = [-0.7 * n % 5 - 1 for n in range(len(found[0].requests))]
    labels = [1] * found[0].gold + [0] * (len(logprobs) - found[0].gold)
    theirs = truthfulqa.process_results_mc2({"mc2_targets": {"labels": labels}}, [(value, False) for value in logprobs])
    answers = [LikelihoodAnswer(value, 3, False) for value in logprobs]
    [verdict] = TASKS["truthfulqa"].judge(found[:1], [answers], settings=SETTINGS)
    assert verdict.metrics["mc2"] == pytest.approx(theirs["acc"])
    _, found = items("crows_pairs", shared_data / "eval")
    for pair in [(-3.0, -4.5), (-4.5, -3.0), (-3.0, -3.0)]:
        theirs = crows_pairs.process_results({}, [(value, False) for value in pair])
        answers = [LikelihoodAnswer(value, 3, False) for value in pair]
        [verdict] = TASKS["crows_pairs"].judge(found[:1], [answers], settings=SETTINGS)
        assert verdict.metrics["stereotype_likelihood"] == theirs["pct_stereotype"]
        assert verdict.metrics["likelihood_difference"] == theirs["likelihood_diff"]
