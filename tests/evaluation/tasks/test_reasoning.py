"""GSM8k and MATH: prompts to the letter, answers taken out of generations, and votes."""

import json
import shutil
from hashlib import sha256

import pytest

from llama_jax.errors import DataError
from llama_jax.evaluation.data import OfficialFiles
from llama_jax.evaluation.grading.matching import stated_number
from llama_jax.evaluation.task import GenerationAnswer, Settings
from llama_jax.evaluation.tasks.reasoning import TASKS, minerva_final_answer
from llama_jax.evaluation.tasks.worked_examples import CHAIN_OF_THOUGHT, MINERVA_MATH

BY_NAME = {task.name: task for task in TASKS}
DUCKS = ("Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her friends every "
         "day with four. She sells the remainder at the farmers' market daily for $2 per fresh duck egg. How much in dollars "
         "does she make every day at the farmers' market?")


def items(name, folder, **settings):
    task, settings = BY_NAME[name], Settings(**settings)
    return task.build(task.read(OfficialFiles(folder, task.origin), settings), settings)


def judged(name, folder, *texts, number=0):
    return BY_NAME[name].judge([items(name, folder)[number]], [[GenerationAnswer(texts)]], settings=Settings())[0]


def test_gsm8k_prompt(shared_data):
    found = items("gsm8k", shared_data / "eval")
    golds = (18, 3, 70000, 540, 20, 64, 260, 160, 45, 460, 366, 694, 13, 18, 60, 125, 230, 57500, 7, 6)
    assert [item.gold for item in found] == [str(gold) for gold in golds]
    text = found[0].requests[0].text
    assert text.startswith("Q: There are 15 trees in the grove. Grove workers will plant trees in the grove today.")
    assert text.endswith(f"She has 23 - 15 dollars left. 23 - 15 is 8. The answer is 8.\n\nQ: {DUCKS}\nA:".replace(
        "She has", "So she has"))
    assert text.count("Q: ") == 9 and text.count("The answer is") == 8
    assert found[0].requests[0].temperature == 0 and found[0].requests[0].num_samples == 1
    assert items("gsm8k", shared_data / "eval", num_fewshot=0)[0].requests[0].text == f"Q: {DUCKS}\nA:"


def test_math_prompt(shared_data):
    found = items("minerva_math", shared_data / "eval")
    assert len(found) == 28 and found[0].key == "algebra/1" and found[0].tags == {"type": "Algebra", "level": "Level 3"}
    text = found[0].requests[0].text
    assert text.startswith("Problem:\nFind the domain of the expression  $\\frac{\\sqrt{x-2}}{\\sqrt{5-x}}$.}\n\nSolution:\n"
                           "The expressions inside each square root must be non-negative.")
    assert text.endswith("Final Answer: The final answer is $-\\frac{2}{3}$. I hope it is correct.\n\nProblem:\n"
                         "How many vertical asymptotes does the graph of $y=\\frac{2}{x^2+x-6}$ have?\n\nSolution:")
    harness = items("minerva_math", shared_data / "eval", protocol="lm_eval")[0].requests[0]
    assert "$.\n\nSolution: The expressions" in harness.text and harness.stop == ("Problem:",)


def test_worked_examples_are_the_published_ones():
    """The worked examples solve their own problems, and their text is the one that was compared with lm_eval 0.4.13."""
    answers = [stated_number(answer) for _, answer in CHAIN_OF_THOUGHT]
    assert answers == ["6", "5", "39", "8", "9", "29", "33", "8"]
    assert [minerva_final_answer(solution) for _, solution in MINERVA_MATH] == ["$[2,5)$", "$24$", "$16$", "$-\\frac{2}{3}$"]
    seen = sha256("\0".join(text for pair in (*MINERVA_MATH, *CHAIN_OF_THOUGHT) for text in pair).encode()).hexdigest()
    assert seen.startswith("ad4549fce98261db")


def test_samples_of_the_votes(shared_data):
    request = items("gsm8k_maj1", shared_data / "eval")[0].requests[0]
    assert (request.num_samples, request.temperature, request.top_p) == (100, 0.6, 0.95)
    assert items("minerva_math_maj1", shared_data / "eval")[0].requests[0].num_samples == 256
    assert items("minerva_math_maj1", shared_data / "eval", num_samples=5)[0].requests[0].num_samples == 5


@pytest.mark.parametrize("text, right, last", [
    (" She makes 9 * 2 = 18 dollars. The answer is 18.", 1, 1), (" The answer is $18.00.", 1, 1), (" The answer is 1,8.", 1, 1),
    (" The answer is 19. No, 18.", 0, 1), (" 18", 0, 1), (" The answer is eighteen.", 0, 0), ("", 0, 0),
    (" The answer is -18.", 0, 0), (" The answer is 18. Or is it 5", 1, 0), (" It is 18 ...", 0, 1), (" She makes 18 $.", 0, 1),
    (" The answer is -$18.", 0, 0), (" The answer is 9 * 2 = $18 ...", 1, 1), (" The answer is 20-18.", 0, 1)])
def test_gsm8k_scores(text, right, last, shared_data):
    assert judged("gsm8k", shared_data / "eval", text).metrics == {"acc": right, "acc_last_number": last}


@pytest.mark.parametrize("text, acc, minerva, hendrycks", [
    ("so.\nFinal Answer: The final answer is $\\frac{1}{2}$. I hope it is correct.", 1, 1, 0),
    ("so.\nFinal Answer: The final answer is $\\frac{1}{2}$. ", 1, 1, 0),  # as the stop text leaves it
    ("Final Answer: The final answer is 0.5. I hope it is correct.", 1, 0, 1),
    ("Final Answer: The final answer is $x = \\frac12$. I hope it is correct.", 1, 1, 0),
    ("Final Answer: The final answer is $2$. I hope it is correct.", 0, 0, 0), ("It is \\frac{1}{2}.", 0, 0, 0), ("", 0, 0, 0)])
def test_math_scores(text, acc, minerva, hendrycks, shared_data):
    assert items("minerva_math", shared_data / "eval")[1].gold == "\\frac{1}{2}"
    verdict = judged("minerva_math", shared_data / "eval", text, number=1)
    assert verdict.metrics == {"acc": acc, "acc_minerva_form": minerva, "acc_hendrycks_form": hendrycks}


def test_votes(shared_data):
    says = " The answer is {}.".format
    verdict = judged("gsm8k_maj1", shared_data / "eval", says(18), says("$18.00"), says(17), "none", "none", "none")
    assert verdict.metrics == {"acc": 1, "acc_one": 2 / 6} and verdict.prediction == "18"
    assert judged("gsm8k_maj1", shared_data / "eval", says(17), says(18), says(17)).metrics == {"acc": 0, "acc_one": 1 / 3}
    assert judged("gsm8k_maj1", shared_data / "eval", "a", "b").metrics == {"acc": 0, "acc_one": 0}
    assert judged("gsm8k_maj1", shared_data / "eval", says(70000), says("70,000"), says("$7e4"), number=2).prediction == "70000"
    math = "Final Answer: The final answer is ${}$. ".format
    verdict = judged("minerva_math_maj1", shared_data / "eval", math("3"), math(r"\frac12"), math(r"x=\frac{1}{2}"), number=1)
    assert verdict.metrics == {"acc": 1, "acc_one": 2 / 3} and verdict.prediction == r"\frac{1}{2}"
    verdict = judged("minerva_math_maj1", shared_data / "eval", math("x+y=0"), math("2x-y=0"), math("1/2"), math("z=7"), number=1)
    assert verdict.metrics == {"acc": 0, "acc_one": 1 / 4} and verdict.prediction == "x+y=0"  # no two of them vote together


def test_final_answer():
    says = "Final Answer: The final answer is {}. I hope it is correct.".format
    assert minerva_final_answer(says("$5$")) == "$5$" and minerva_final_answer(says("1") + "\n" + says("2")) == "1"
    assert minerva_final_answer("Final Answer: The final answer is\n5. I hope it is correct.") is None
    assert minerva_final_answer("5") is None
    assert minerva_final_answer("Final Answer: The final answer is none\n" + says("3")) == "3"
    assert minerva_final_answer("Final Answer: The final answer is" * 10_000) is None


def test_bad_files(shared_data, tmp_path):
    shutil.copytree(shared_data / "eval/gsm8k", tmp_path / "gsm8k")
    shutil.copytree(shared_data / "eval/math/test/algebra", tmp_path / "math/test/algebra")
    (tmp_path / "gsm8k/test.jsonl").write_text('{"question": "a", "answer": "b"}')
    with pytest.raises(DataError, match='record 1: the answer should end with "#### " and a number'):
        items("gsm8k", tmp_path)
    (tmp_path / "math/test/algebra/1.json").write_text('{"problem": "a", "solution": "b", "type": "c", "level": "d"}')
    with pytest.raises(DataError, match=r"1.json, record 1: the solution has no \\boxed answer"):
        items("minerva_math", tmp_path)
    shutil.rmtree(tmp_path / "math")
    with pytest.raises(DataError, match=r"get them from https://people.eecs.berkeley.edu"):
        items("minerva_math", tmp_path)


def test_the_hub_gives_the_same(shared_data):
    def rows(path, config, split):
        if path == "openai/gsm8k":
            return [json.loads(line) for line in (shared_data / "eval/gsm8k/test.jsonl").read_text().splitlines()]
        return [json.loads(file.read_text()) for file in (shared_data / "eval/math/test" / config).iterdir()]

    for name in "gsm8k", "minerva_math":
        task = BY_NAME[name]
        found = task.build(task.hub(rows, Settings()), Settings())
        assert sorted(item.requests[0].text for item in found) == sorted(
            item.requests[0].text for item in items(name, shared_data / "eval"))
