"""Mathematical reasoning (Table 7): GSM8k and MATH with Minerva's prompts, greedy and by majority vote (maj1@k)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.grading.latex import boxed_answer, equivalent_answers, normal_form
from llama_jax.evaluation.grading.matching import last_number, majority_vote, number_text, parse_number, stated_number
from llama_jax.evaluation.grading.published_forms import hendrycks_form, minerva_form
from llama_jax.evaluation.task import (
    GenerationAnswer,
    GenerationRequest,
    Item,
    Settings,
    Task,
    TaskRecords,
    Verdict,
    headline_metrics,
    judge_each,
)
from llama_jax.evaluation.tasks.worked_examples import CHAIN_OF_THOUGHT, MINERVA_MATH

_MATH_FOLDERS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
                 "precalculus")
_TEMPERATURE, _TOP_P = 0.6, 0.95
"""How the samples that vote are drawn (Lewkowycz et al. 2022, Minerva, section 2.4)."""


def _read_gsm8k(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """Word problems whose answer ends with "#### number"."""
    name = "gsm8k/test.jsonl"
    rows = files.read_jsonl(name, {"question": str, "answer": str})
    for number, row in enumerate(rows, 1):
        gold = gsm8k_gold(row["answer"])
        files.require(gold is not None and gold.is_finite(), 'the answer should end with "#### " and a number',
                      file=name, record=number)
    return TaskRecords(rows)


def gsm8k_gold(answer: str) -> Decimal | None:
    """The number after #### in an answer of the file."""
    return parse_number(answer.rpartition("#### ")[2].strip()) if "#### " in answer else None


def _read_math(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """One JSON file per problem; the gold answer is what its solution boxes."""
    rows = []
    for name in files.matching("math/test/*/*.json"):
        row = files.read_json(name, dict.fromkeys(("problem", "solution", "type", "level"), str))
        files.require(boxed_answer(row["solution"]), "the solution has no \\boxed answer", file=name, record=1)
        rows.append(row | {"id": name.removeprefix("math/test/").removesuffix(".json")})
    return TaskRecords(rows)


def _hub_math(rows: HubRows, settings: Settings) -> TaskRecords:
    """Read the problems from the Hugging Face hub, which has a configuration per subject."""
    return TaskRecords([row | {"id": f"{folder}/{place}"} for folder in _MATH_FOLDERS
                        for place, row in enumerate(rows("EleutherAI/hendrycks_math", folder, "test"))])


def _gsm8k_prompt(question: str, settings: Settings, *, shots: int) -> str:
    """Chain of thought of Wei et al. 2022, which is lm-evaluation-harness's gsm8k_cot too."""
    solved = "".join(f"Q: {asked}\nA: {answer}\n\n" for asked, answer in CHAIN_OF_THOUGHT[:shots])
    return f"{solved}Q: {question}\nA:"


def _math_prompt(problem: str, settings: Settings, *, shots: int) -> str:
    """Minerva's four problems; lm-evaluation-harness writes a solution on the line of its heading."""
    after_heading = " " if settings.protocol == "lm_eval" else "\n"
    solved = "".join(f"Problem:\n{asked}\n\nSolution:{after_heading}{answer}\n\n" for asked, answer in MINERVA_MATH[:shots])
    if settings.protocol == "lm_eval":
        solved = solved.replace("$.}", "$.")  # a slip of the published prompt, which the harness corrects
    return f"{solved}Problem:\n{problem}\n\nSolution:"


def minerva_final_answer(text: str) -> str | None:
    """The answer in Minerva's last sentence, which stands on one line; None without that sentence."""
    for line in (text + "I hope it is correct.").split("\n"):
        _, found, rest = line.partition("Final Answer: The final answer is")
        answer, end, after = rest.partition(" I hope it is correct")
        if found and end and after and answer:
            return answer[:-1].strip()
    return None


def _other_gsm8k_metrics(text: str, gold: str) -> dict[str, float]:
    """Whether the last number of a text is right, whatever stands before it."""
    last = last_number(text)
    return {"acc_last_number": float(last is not None and last == Decimal(gold))}


def _other_math_metrics(text: str, gold: str) -> dict[str, float]:
    """Equality in each of the two published normal forms alone."""
    said = minerva_final_answer(text)
    forms = {"acc_minerva_form": minerva_form, "acc_hendrycks_form": hendrycks_form}
    return {name: float(said is not None and form(said) == form(gold)) for name, form in forms.items()}


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """What distinguishes GSM8k from MATH."""

    name: str
    title: str
    read: Callable[[OfficialFiles, Settings], TaskRecords]
    hub: Callable[[HubRows, Settings], TaskRecords]
    key: Callable[[int, dict], str]
    """Key of an item, from a record's number and the record."""
    question: str
    """Field of a record that holds the question."""
    gold: Callable[[dict], str]
    """The right answer of a record."""
    prompt: Callable[..., str]
    """(question, settings, shots=...) -> prompt."""
    shots: int
    stop: dict[str, tuple[str, ...]]
    """Stop strings of the paper's protocol ("llama") and of lm-evaluation-harness's ("lm_eval")."""
    extract: Callable[[str], str | None]
    """The answer in a generated text."""
    is_right: Callable[[str, str], bool]
    """(answer, gold) -> whether they are equal."""
    form: Callable[[str], str]
    """A form that is the same for answers whose votes count together."""
    other_metrics: Callable[[str, str], dict[str, float]]
    """Further metrics of (text, gold)."""
    samples: int
    """Samples that vote: k."""
    max_tokens: int
    origin: str
    size: int
    tags: tuple[str, ...] = ()


def _build_items(subject: _Subject, records: TaskRecords, *, settings: Settings, samples: int) -> list[Item]:
    """One item per question, to be answered greedily, or with `samples` samples at Minerva's temperature."""
    shots = subject.shots if settings.num_fewshot is None else settings.num_fewshot
    drawn = {"temperature": _TEMPERATURE, "top_p": _TOP_P, "num_samples": samples} if samples else {}
    stop = subject.stop["lm_eval" if settings.protocol == "lm_eval" else "llama"]
    items = []
    for place, row in enumerate(records.test):
        text = subject.prompt(row[subject.question], settings, shots=shots)
        request = GenerationRequest(text, stop=stop, max_tokens=settings.max_tokens or subject.max_tokens,
                                    seed=settings.seed, **drawn)
        tags = {tag: row[tag] for tag in subject.tags}
        items.append(Item(subject.key(place, row), (request,), subject.gold(row), tags))
    return items


def _greedy_task(subject: _Subject) -> Task:
    """One greedy answer per question."""
    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        return _build_items(subject, records, settings=settings, samples=0)

    def judge(item: Item, given: Sequence[GenerationAnswer]) -> Verdict:
        text = given[0].texts[0]
        said = subject.extract(text)
        right = said is not None and subject.is_right(said, item.gold)
        return Verdict({"acc": float(right)} | subject.other_metrics(text, item.gold), said)

    return _make_task(subject, subject.name, title=subject.title, build=build, judge=judge)


def _voting_task(subject: _Subject) -> Task:
    """maj1@k: the answer that most of k samples give. `acc_one` is the mean accuracy of a single sample."""
    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        return _build_items(subject, records, settings=settings, samples=settings.num_samples or subject.samples)

    def judge(item: Item, given: Sequence[GenerationAnswer]) -> Verdict:
        said = [subject.extract(text) for text in given[0].texts]
        forms = [None if answer is None else subject.form(answer) for answer in said]
        # each form is graded once, by the first answer that has it
        right = {form: form is not None and subject.is_right(said[forms.index(form)], item.gold) for form in set(forms)}
        vote = majority_vote(forms)
        acc_one = sum(right[form] for form in forms) / len(forms)
        return Verdict({"acc": float(right.get(vote, False)), "acc_one": acc_one}, vote)

    return _make_task(subject, f"{subject.name}_maj1", title=f"{subject.title} maj1@k", build=build, judge=judge)


def _make_task(subject: _Subject, name: str, *, title: str, build: Callable[[TaskRecords, Settings], list[Item]],
               judge: Callable[[Item, Sequence[GenerationAnswer]], Verdict]) -> Task:
    return Task(name, title, subject.read, build, judge_each(judge), headline_metrics("acc"),
                subject.origin, subject.hub, num_fewshot=subject.shots, most_fewshot=subject.shots, size=subject.size,
                limit_by="type" if "type" in subject.tags else "")


_GSM8K = _Subject(
    name="gsm8k", title="GSM8k", read=_read_gsm8k,
    hub=lambda rows, settings: TaskRecords(rows("openai/gsm8k", "main", "test")),
    key=lambda place, row: str(place), question="question", gold=lambda row: number_text(gsm8k_gold(row["answer"])),
    prompt=_gsm8k_prompt, shots=8, stop={"llama": ("\nQ:",), "lm_eval": ("Q:", "</s>", "<|im_end|>")},
    extract=stated_number, is_right=lambda said, gold: Decimal(said) == Decimal(gold), form=str,
    other_metrics=_other_gsm8k_metrics, samples=100, max_tokens=256,
    origin="https://github.com/openai/grade-school-math/tree/master/grade_school_math/data", size=1319)

_MATH = _Subject(
    name="minerva_math", title="MATH", read=_read_math, hub=_hub_math,
    key=lambda place, row: row["id"], question="problem", gold=lambda row: boxed_answer(row["solution"]),
    prompt=_math_prompt, shots=4, stop={"llama": ("I hope it is correct", "\nProblem:"), "lm_eval": ("Problem:",)},
    extract=minerva_final_answer, is_right=equivalent_answers, form=normal_form,
    other_metrics=_other_math_metrics, samples=256, max_tokens=512,
    origin="https://people.eecs.berkeley.edu/~hendrycks/MATH.tar (its test folder as math/test)", size=5000,
    tags=("type", "level"))

TASKS = (_greedy_task(_GSM8K), _voting_task(_GSM8K), _greedy_task(_MATH), _voting_task(_MATH))
