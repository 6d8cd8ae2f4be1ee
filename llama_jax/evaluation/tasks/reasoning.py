"""Mathematics (Table 7): GSM8k and MATH with Minerva's prompts, greedy and by the vote of k samples (maj1@k)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from llama_jax.evaluation.data import Files, Rows
from llama_jax.evaluation.grading.latex import boxed, equivalent, hendrycks, minerva, normal_form
from llama_jax.evaluation.grading.matching import last_number, majority, number, thought_number, written
from llama_jax.evaluation.task import Item, Prompt, Records, Settings, Task, Texts, Verdict, each
from llama_jax.evaluation.tasks.worked_examples import CHAIN_OF_THOUGHT, MINERVA_MATH

MATH_FOLDERS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
                "precalculus")
TEMPERATURE, TOP_P = 0.6, 0.95
"""Of the samples that vote: Lewkowycz et al. 2022, section 2.4."""


def read_gsm8k(files: Files, settings: Settings) -> Records:
    """Word problems whose answer ends with "#### number"."""
    name = "gsm8k/test.jsonl"
    rows = files.jsonl(name, {"question": str, "answer": str})
    for index, row in enumerate(rows, 1):
        gold = gold_number(row["answer"])
        files.require(gold is not None and gold.is_finite(), name, index, 'the answer should end with "#### " and a number')
    return Records(rows)


def gold_number(answer: str) -> Decimal | None:
    """What stands after ####."""
    return number(answer.rpartition("#### ")[2].strip()) if "#### " in answer else None


def read_math(files: Files, settings: Settings) -> Records:
    """One JSON file a problem; the answer is what its solution boxes."""
    rows = []
    for name in files.names("math/test/*/*.json"):
        row = files.json(name, dict.fromkeys(("problem", "solution", "type", "level"), str))
        files.require(boxed(row["solution"]), name, 1, "the solution has no \\boxed answer")
        rows.append(row | {"id": name.removeprefix("math/test/").removesuffix(".json")})
    return Records(rows)


def hub_math(rows: Rows, settings: Settings) -> Records:
    """The same by subject."""
    return Records([row | {"id": f"{folder}/{place}"} for folder in MATH_FOLDERS
                    for place, row in enumerate(rows("EleutherAI/hendrycks_math", folder, "test"))])


def gsm8k_prompt(question: str, shots: int, settings: Settings) -> str:
    """Wei et al.'s chain of thought, which is that harness's gsm8k_cot too."""
    solved = "".join(f"Q: {asked}\nA: {answer}\n\n" for asked, answer in CHAIN_OF_THOUGHT[:shots])
    return f"{solved}Q: {question}\nA:"


def math_prompt(problem: str, shots: int, settings: Settings) -> str:
    """Minerva's four problems; that harness writes the solution on the line of its heading."""
    harness = settings.protocol == "lm_eval"
    solved = "".join(f"Problem:\n{asked}\n\nSolution:{' ' if harness else chr(10)}{answer}\n\n"
                     for asked, answer in MINERVA_MATH[:shots])
    return (solved.replace("$.}", "$.") if harness else solved) + f"Problem:\n{problem}\n\nSolution:"


def final_answer(text: str) -> str | None:
    """What Minerva's last sentence says, on one line; None without that sentence."""
    for line in (text + "I hope it is correct.").split("\n"):
        _, found, rest = line.partition("Final Answer: The final answer is")
        answer, end, after = rest.partition(" I hope it is correct")
        if found and end and after and answer:
            return answer[:-1].strip()
    return None


def other_gsm8k(text: str, gold: str) -> dict[str, float]:
    """Whether the last number is right, whatever stands before it."""
    last = last_number(text)
    return {"acc_last_number": float(last is not None and last == Decimal(gold))}


def other_math(text: str, gold: str) -> dict[str, float]:
    """Equality in each of the two normal forms alone."""
    said = final_answer(text)
    return {f"acc_{form.__name__}_form": float(said is not None and form(said) == form(gold)) for form in (minerva, hendrycks)}


@dataclass(frozen=True)
class Subject:
    """What GSM8k and MATH differ in."""

    name: str
    title: str
    read: Callable[[Files, Settings], Records]
    hub: Callable[[Rows, Settings], Records]
    key: Callable[[int, dict], str]
    question: str
    gold: Callable[[dict], str]
    prompt: Callable[[str, int, Settings], str]
    shots: int
    stop: dict[str, tuple[str, ...]]
    extract: Callable[[str], str | None]
    """The answer in a text."""
    right: Callable[[str, str], bool]
    """(answer, gold)."""
    form: Callable[[str], str]
    """What answers that vote together share."""
    other: Callable[[str, str], dict[str, float]]
    """Further metrics of (text, gold)."""
    samples: int
    """That vote: k."""
    max_tokens: int
    origin: str
    size: int
    tags: tuple[str, ...] = ()


def items_of(subject: Subject, records: Records, settings: Settings, samples: int) -> list[Item]:
    """A question an item; greedy, or `samples` at Minerva's temperature."""
    shots = subject.shots if settings.num_fewshot is None else settings.num_fewshot
    drawn = {"temperature": TEMPERATURE, "top_p": TOP_P, "num_samples": samples} if samples else {}
    stop = subject.stop["lm_eval" if settings.protocol == "lm_eval" else "llama"]
    return [Item(subject.key(place, row), (Prompt(subject.prompt(row[subject.question], shots, settings), stop=stop,
                 max_tokens=settings.max_tokens or subject.max_tokens, seed=settings.seed, **drawn),), subject.gold(row),
                 {tag: row[tag] for tag in subject.tags})
            for place, row in enumerate(records.test)]


def greedy(subject: Subject) -> Task:
    """One answer a question."""
    def judge(item: Item, given: Sequence[Texts]) -> Verdict:
        text = given[0].texts[0]
        said = subject.extract(text)
        right = said is not None and subject.right(said, item.gold)
        return Verdict({"acc": float(right)} | subject.other(text, item.gold), said)

    return task(subject, subject.name, subject.title, lambda records, settings: items_of(subject, records, settings, 0), judge)


def voted(subject: Subject) -> Task:
    """maj1@k: the answer that most of k samples give; `acc_one` is the mean of the samples alone."""
    def judge(item: Item, given: Sequence[Texts]) -> Verdict:
        said = [subject.extract(text) for text in given[0].texts]
        forms = [None if answer is None else subject.form(answer) for answer in said]
        right = {form: form is not None and subject.right(said[forms.index(form)], item.gold) for form in set(forms)}
        vote = majority(forms)
        return Verdict({"acc": float(right.get(vote, False)), "acc_one": sum(right[form] for form in forms) / len(forms)}, vote)

    return task(subject, f"{subject.name}_maj1", f"{subject.title} maj1@k",
                lambda records, settings: items_of(subject, records, settings, settings.num_samples or subject.samples), judge)


def task(subject: Subject, name: str, title: str, build: Callable[[Records, Settings], list[Item]],
         judge: Callable[[Item, Sequence[Texts]], Verdict]) -> Task:
    """Either of the two."""
    return Task(name, title, subject.read, build, each(judge), dict.fromkeys(("llama", "lm_eval", "raw"), "acc"),
                subject.origin, subject.hub, num_fewshot=subject.shots, most_fewshot=subject.shots, size=subject.size,
                limit_by="type" if "type" in subject.tags else "")


GSM8K = Subject(
    "gsm8k", "GSM8k", read_gsm8k, lambda rows, settings: Records(rows("openai/gsm8k", "main", "test")),
    key=lambda place, row: str(place), question="question", gold=lambda row: written(gold_number(row["answer"])),
    prompt=gsm8k_prompt, shots=8, stop={"llama": ("\nQ:",), "lm_eval": ("Q:", "</s>", "<|im_end|>")},
    extract=thought_number, right=lambda said, gold: Decimal(said) == Decimal(gold), form=str, other=other_gsm8k, samples=100,
    max_tokens=256,
    origin="https://github.com/openai/grade-school-math/tree/master/grade_school_math/data", size=1319)

MATH = Subject(
    "minerva_math", "MATH", read_math, hub_math,
    key=lambda place, row: row["id"], question="problem", gold=lambda row: boxed(row["solution"]),
    prompt=math_prompt, shots=4, stop={"llama": ("I hope it is correct", "\nProblem:"), "lm_eval": ("Problem:",)},
    extract=final_answer, right=equivalent, form=normal_form, other=other_math, samples=256, max_tokens=512,
    origin="https://people.eecs.berkeley.edu/~hendrycks/MATH.tar (its test folder as math/test)", size=5000,
    tags=("type", "level"))

TASKS = (greedy(GSM8K), voted(GSM8K), greedy(MATH), voted(MATH))
