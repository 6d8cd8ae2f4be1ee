"""Closed-book question answering (Tables 4 and 5): NaturalQuestions and TriviaQA after 0, 1, 5 and 64 worked examples."""

import random
from collections.abc import Callable, Sequence

from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.grading.matching import exact_match, short_answer, short_answer_to_dot
from llama_jax.evaluation.task import (
    GenerationAnswer,
    GenerationRequest,
    Item,
    Settings,
    Task,
    TaskRecords,
    Verdict,
    judge_each,
)
from llama_jax.files.json_kinds import json_fault

_SHOTS = (0, 1, 5, 64)
_MAX_TOKENS = {"llama": 64, "raw": 64, "lm_eval": 256}

_ReadSplit = Callable[[OfficialFiles, str], tuple[str, list[dict]]]
"""(files, split) -> (name of the file, records of a question and its answers, of which a worked example shows the first)."""


def _read_natural_questions(files: OfficialFiles, split: str) -> tuple[str, list[dict]]:
    """The questions of NQ-open, each with a list of answers."""
    name = f"nq_open/NQ-open.{split}.jsonl"
    rows = files.read_jsonl(name, {"question": str, "answer": object})
    for number, row in enumerate(rows, 1):
        files.require(_are_texts(row["answer"]), f"the answer should be a list of texts, got {row['answer']!r}",
                      file=name, record=number)
    return name, [{"question": row["question"], "answers": row["answer"]} for row in rows]


def _read_triviaqa(files: OfficialFiles, split: str) -> tuple[str, list[dict]]:
    """The questions of the reading-comprehension release (web and Wikipedia, each once), or of triviaqa_small.jsonl."""
    official = [name for kind in ("web", "wikipedia") if files.exists(name := f"triviaqa/{kind}-{split}.json")]
    if not official and files.exists("triviaqa/triviaqa_small.jsonl"):
        return _read_small_triviaqa(files, "triviaqa/triviaqa_small.jsonl")
    rows: dict[str, dict] = {}
    for name in official or [f"triviaqa/wikipedia-{split}.json"]:
        data = files.read_json(name, {"Data": object})["Data"]
        files.require(isinstance(data, list) and data, '"Data" should be a list of questions', file=name, record=1)
        for number, row in enumerate(data, 1):
            fault = json_fault(row, {"Question": str, "Answer": {"Value": str}})
            message = "expected a Question and an Answer with Value and Aliases"
            files.require(not fault, f"{message} ({fault})", file=name, record=number)
            answers = _triviaqa_answers(row["Answer"])
            files.require(_are_texts(answers), f"{message}, lists of texts", file=name, record=number)
            key = str(row.get("QuestionId", f"{name}/{number}"))
            rows.setdefault(key, {"question": row["Question"], "answers": list(dict.fromkeys(answers))})
    return " and ".join(official), list(rows.values())


def _triviaqa_answers(answer: dict) -> list:
    """Value, Aliases and HumanAnswers of an official record; an empty list where these are not lists."""
    aliases, human_answers = answer.get("Aliases", []), answer.get("HumanAnswers", [])
    if not isinstance(aliases, list) or not isinstance(human_answers, list):
        return []
    return [answer["Value"], *aliases, *human_answers]


def _read_small_triviaqa(files: OfficialFiles, name: str) -> tuple[str, list[dict]]:
    """Questions that stand in a prompt, with an answer and its aliases."""
    rows = files.read_jsonl(name, {"context": str, "answer": object, "aliases": object})
    for number, row in enumerate(rows, 1):
        right = isinstance(row["aliases"], list) and _are_texts([row["answer"], *row["aliases"]])
        files.require(right, "expected an answer and a list of aliases", file=name, record=number)
    return name, [{"question": row["context"].removeprefix("Question: ").removesuffix("\nAnswer:"),
                   "answers": list(dict.fromkeys([row["answer"], *row["aliases"]]))} for row in rows]


def _are_texts(values: object) -> bool:
    """Whether a JSON value is a list of at least one text, none of them blank."""
    return not json_fault(values, [str]) and all(value.strip() for value in values)


def _question_text(row: dict, settings: Settings, *, is_triviaqa: bool) -> str:
    """A question up to where its answer begins."""
    asked = row["question"]
    if settings.protocol == "lm_eval":
        return f"Question: {asked}?\nAnswer:" if is_triviaqa else f"Q: {asked}?\nA:"
    return f"Q: {asked if is_triviaqa else _as_sentence(asked)}\nA:"


def _as_sentence(question: str) -> str:
    """A question of NQ-open as Figure 3 of the paper prints it: with a capital first letter and a question mark.

    The files have neither; those of TriviaQA have both.
    """
    question = question.strip()
    return question[:1].upper() + question[1:] + ("" if question.endswith("?") else "?")


def _prompt_text(row: dict, settings: Settings, *, shots: Sequence[dict], is_triviaqa: bool) -> str:
    """Instruction, worked examples and question, as the paper or lm-evaluation-harness words them."""
    head, between = "Answer these questions:\n", "\n"
    if settings.protocol == "lm_eval":
        head, between = ("", "\n\n") if is_triviaqa else ("Answer these questions:\n\n", "\n")
    text = head
    for shot in shots:
        text += f"{_question_text(shot, settings, is_triviaqa=is_triviaqa)} {shot['answers'][0]}{between}"
    return text + _question_text(row, settings, is_triviaqa=is_triviaqa)


def _judge_short_answer(item: Item, given: Sequence[GenerationAnswer]) -> Verdict:
    """Exact match of the answer as the paper cuts it out of the text, and as lm-evaluation-harness does."""
    text = given[0].texts[0]
    answer = short_answer(text)
    return Verdict({"exact_match": exact_match(answer, item.gold),
                    "exact_match_cut_at_dot": exact_match(short_answer_to_dot(text), item.gold)}, answer)


def _closed_book_task(
    name: str, title: str, *, shots: int, read: _ReadSplit, hub: Callable[[HubRows, str], list[dict]], origin: str, size: int
) -> Task:
    """A task of `shots` worked examples, drawn for each question from the training file or, without one, the other questions."""
    is_triviaqa = read is _read_triviaqa

    def wanted(settings: Settings) -> int:
        return shots if settings.num_fewshot is None else settings.num_fewshot

    def from_files(files: OfficialFiles, settings: Settings) -> TaskRecords:
        _, test = read(files, "dev")
        if not wanted(settings):
            return TaskRecords(test)
        train = "triviaqa/*-train.json" if is_triviaqa else "nq_open/NQ-open.train.jsonl"
        source, pool = read(files, "train" if list(files.folder.glob(train)) else "dev")
        return TaskRecords(test, [row | {"source": source} for row in pool])

    def from_hub(rows: HubRows, settings: Settings) -> TaskRecords:
        pool = hub(rows, "train") if wanted(settings) else []
        return TaskRecords(hub(rows, "validation"), [row | {"source": "the hub's train split"} for row in pool])

    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        stop = ("\n", ".", ",") if settings.protocol == "lm_eval" else ("\n",)
        most = settings.max_tokens or _MAX_TOKENS[settings.protocol]
        pool = list({shot["question"]: shot for shot in records.shots}.values())
        items = []
        for number, row in enumerate(records.test):
            # one more than wanted, because the question itself may be among those drawn
            drawn = random.Random(f"{settings.seed}/{number}").sample(pool, min(wanted(settings) + 1, len(pool)))
            drawn = [shot for shot in drawn if shot["question"] != row["question"]][: wanted(settings)]
            tags = {"worked examples": f"{len(drawn)} from {drawn[0]['source']}"} if drawn else {}
            text = _prompt_text(row, settings, shots=drawn, is_triviaqa=is_triviaqa)
            request = GenerationRequest(text, stop=stop, max_tokens=most, seed=settings.seed)
            items.append(Item(str(number), (request,), row["answers"], tags))
        return items

    headline = {"llama": "exact_match", "raw": "exact_match", "lm_eval": "exact_match_cut_at_dot"}
    return Task(f"{name}_{shots}shot", f"{title} {shots}-shot", from_files, build, judge_each(_judge_short_answer), headline,
                origin, from_hub, num_fewshot=shots, most_fewshot=max(_SHOTS), size=size)


def _hub_natural_questions(rows: HubRows, split: str) -> list[dict]:
    return [{"question": row["question"], "answers": row["answer"]}
            for row in rows("google-research-datasets/nq_open", None, split)]


def _hub_triviaqa(rows: HubRows, split: str) -> list[dict]:
    """Web and Wikipedia together, each question once."""
    found = {}
    for row in rows("mandarjoshi/trivia_qa", "rc.nocontext", split):
        answers = list(dict.fromkeys([row["answer"]["value"], *row["answer"]["aliases"]]))
        found[row["question_id"]] = {"question": row["question"], "answers": answers}
    return list(found.values())


_NATURAL_QUESTIONS_ORIGIN = "https://github.com/google-research-datasets/natural-questions/tree/master/nq_open"
_TRIVIAQA_ORIGIN = ("https://nlp.cs.washington.edu/triviaqa/data/triviaqa-rc.tar.gz "
                    "(its qa/web-*.json and qa/wikipedia-*.json as triviaqa/*.json)")

TASKS = (
    *(_closed_book_task("natural_questions", "NQ", shots=shots, read=_read_natural_questions, hub=_hub_natural_questions,
                        origin=_NATURAL_QUESTIONS_ORIGIN, size=3610) for shots in _SHOTS),
    *(_closed_book_task("triviaqa", "TriviaQA", shots=shots, read=_read_triviaqa, hub=_hub_triviaqa, origin=_TRIVIAQA_ORIGIN,
                        size=0) for shots in _SHOTS),
)
