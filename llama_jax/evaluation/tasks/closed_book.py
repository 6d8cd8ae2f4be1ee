"""Questions answered from memory (Tables 4 and 5): NaturalQuestions and TriviaQA after 0, 1, 5 and 64 worked examples."""

import random
from collections.abc import Callable, Sequence

from llama_jax.evaluation.data import HubRows, OfficialFiles, json_fault
from llama_jax.evaluation.grading.matching import exact_match, short_answer, short_answer_to_dot
from llama_jax.evaluation.task import GenerationAnswer, GenerationRequest, Item, Settings, Task, TaskRecords, Verdict, judge_each

_SHOTS = (0, 1, 5, 64)
_MAX_TOKENS = {"llama": 64, "raw": 64, "lm_eval": 256}

_ReadSplit = Callable[[OfficialFiles, str], tuple[str, list[dict]]]
"""(files, split) -> name of the file, records of question and answers; the first answer is a worked example's."""


def _read_natural_questions(files: OfficialFiles, split: str) -> tuple[str, list[dict]]:
    """NQ-open, one answer list a question."""
    name = f"nq_open/NQ-open.{split}.jsonl"
    rows = files.jsonl(name, {"question": str, "answer": object})
    for number, row in enumerate(rows, 1):
        files.require(_are_texts(row["answer"]), name, number, f"the answer should be a list of texts, got {row['answer']!r}")
    return name, [{"question": row["question"], "answers": row["answer"]} for row in rows]


def _read_triviaqa(files: OfficialFiles, split: str) -> tuple[str, list[dict]]:
    """The reading-comprehension release's questions (web and Wikipedia, each question once), or triviaqa_small.jsonl."""
    official = [name for kind in ("web", "wikipedia") if files.exists(name := f"triviaqa/{kind}-{split}.json")]
    if not official and files.exists("triviaqa/triviaqa_small.jsonl"):
        return _read_small_triviaqa(files, "triviaqa/triviaqa_small.jsonl")
    rows: dict[str, dict] = {}
    for name in official or [f"triviaqa/wikipedia-{split}.json"]:
        data = files.json(name, {"Data": object})["Data"]
        files.require(isinstance(data, list) and data, name, 1, '"Data" should be a list of questions')
        for number, row in enumerate(data, 1):
            found = json_fault(row, {"Question": str, "Answer": {"Value": str}})
            right = [] if found else _triviaqa_answers(row["Answer"])
            files.require(_are_texts(right), name, number, f"expected a Question and an Answer with Value and Aliases ({found})"
                          if found else "expected a Question and an Answer with Value and Aliases, lists of texts")
            rows.setdefault(str(row.get("QuestionId", f"{name}/{number}")), {"question": row["Question"],
                                                                             "answers": list(dict.fromkeys(right))})
    return " and ".join(official), list(rows.values())


def _triviaqa_answers(answer: dict) -> list:
    """Value, Aliases and HumanAnswers of an official record; nothing where these are no lists."""
    others = [answer.get("Aliases", []), answer.get("HumanAnswers", [])]
    return [answer["Value"], *others[0], *others[1]] if all(isinstance(some, list) for some in others) else []


def _read_small_triviaqa(files: OfficialFiles, name: str) -> tuple[str, list[dict]]:
    """Questions with their prompt around them, an answer and its aliases."""
    rows = files.jsonl(name, {"context": str, "answer": object, "aliases": object})
    for number, row in enumerate(rows, 1):
        right = isinstance(row["aliases"], list) and _are_texts([row["answer"], *row["aliases"]])
        files.require(right, name, number, "expected an answer and a list of aliases")
    return name, [{"question": row["context"].removeprefix("Question: ").removesuffix("\nAnswer:"),
                   "answers": list(dict.fromkeys([row["answer"], *row["aliases"]]))} for row in rows]


def _are_texts(values: object) -> bool:
    """Whether this is a list of texts, one at least, none of them empty."""
    return not json_fault(values, [str]) and all(value.strip() for value in values)


def _question_text(row: dict, settings: Settings, trivia: bool) -> str:
    """A question up to where its answer begins."""
    asked = row["question"]
    if settings.protocol == "lm_eval":
        return f"Question: {asked}?\nAnswer:" if trivia else f"Q: {asked}?\nA:"
    return f"Q: {asked if trivia else _as_sentence(asked)}\nA:"


def _as_sentence(question: str) -> str:
    """A question of NQ-open as Figure 3 of the paper prints it: the first letter upper case, and a question mark.

    The files have neither; those of TriviaQA have both.
    """
    question = question.strip()
    return question[:1].upper() + question[1:] + ("" if question.endswith("?") else "?")


def _prompt_text(row: dict, shots: Sequence[dict], settings: Settings, trivia: bool) -> str:
    """The paper's prompt, or that harness's."""
    head, between = "Answer these questions:\n", "\n"
    if settings.protocol == "lm_eval":
        head, between = ("", "\n\n") if trivia else ("Answer these questions:\n\n", "\n")
    solved = [f"{_question_text(shot, settings, trivia)} {shot['answers'][0]}{between}" for shot in shots]
    return head + "".join(solved) + _question_text(row, settings, trivia)


def _judge_short_answer(item: Item, given: Sequence[GenerationAnswer]) -> Verdict:
    """Exact match of the answer as the paper cuts it, and as that harness does."""
    text = given[0].texts[0]
    return Verdict({"exact_match": exact_match(short_answer(text), item.gold),
                    "exact_match_cut_at_dot": exact_match(short_answer_to_dot(text), item.gold)}, short_answer(text))


def _closed_book_task(
    name: str, title: str, shots: int, read: _ReadSplit, *, hub: Callable[[HubRows, str], list[dict]], origin: str, size: int
) -> Task:
    """A task of `shots` worked examples, drawn for each question from the training file or, without one, the other questions."""
    trivia = read is _read_triviaqa

    def from_files(files: OfficialFiles, settings: Settings) -> TaskRecords:
        _, test = read(files, "dev")
        if not wanted(settings):
            return TaskRecords(test)
        train = "triviaqa/*-train.json" if trivia else "nq_open/NQ-open.train.jsonl"
        source, pool = read(files, "train" if list(files.folder.glob(train)) else "dev")
        return TaskRecords(test, [row | {"source": source} for row in pool])

    def from_hub(rows: HubRows, settings: Settings) -> TaskRecords:
        pool = [row | {"source": "the hub's train split"} for row in hub(rows, "train")] if wanted(settings) else []
        return TaskRecords(hub(rows, "validation"), pool)

    def wanted(settings: Settings) -> int:
        return shots if settings.num_fewshot is None else settings.num_fewshot

    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        stop = ("\n", ".", ",") if settings.protocol == "lm_eval" else ("\n",)
        most = settings.max_tokens or _MAX_TOKENS[settings.protocol]
        pool = list({shot["question"]: shot for shot in records.shots}.values())
        items = []
        for number, row in enumerate(records.test):
            drawn = random.Random(f"{settings.seed}/{number}").sample(pool, min(wanted(settings) + 1, len(pool)))
            drawn = [shot for shot in drawn if shot["question"] != row["question"]][: wanted(settings)]
            tags = {"worked examples": f"{len(drawn)} from {drawn[0]['source']}"} if drawn else {}
            asked = GenerationRequest(_prompt_text(row, drawn, settings, trivia), stop=stop, max_tokens=most, seed=settings.seed)
            items.append(Item(str(number), (asked,), row["answers"], tags))
        return items

    headline = {"llama": "exact_match", "raw": "exact_match", "lm_eval": "exact_match_cut_at_dot"}
    return Task(f"{name}_{shots}shot", f"{title} {shots}-shot", from_files, build, judge_each(_judge_short_answer), headline,
                origin, from_hub, num_fewshot=shots, most_fewshot=max(_SHOTS), size=size)


def _hub_natural_questions(rows: HubRows, split: str) -> list[dict]:
    """The same questions."""
    return [{"question": row["question"], "answers": row["answer"]}
            for row in rows("google-research-datasets/nq_open", None, split)]


def _hub_triviaqa(rows: HubRows, split: str) -> list[dict]:
    """Web and Wikipedia together; each question once."""
    found = {row["question_id"]: {"question": row["question"], "answers": list(dict.fromkeys(
        [row["answer"]["value"], *row["answer"]["aliases"]]))} for row in rows("mandarjoshi/trivia_qa", "rc.nocontext", split)}
    return list(found.values())


_NATURAL_QUESTIONS_ORIGIN = "https://github.com/google-research-datasets/natural-questions/tree/master/nq_open"
_TRIVIAQA_ORIGIN = ("https://nlp.cs.washington.edu/triviaqa/data/triviaqa-rc.tar.gz "
                    "(its qa/web-*.json and qa/wikipedia-*.json as triviaqa/*.json)")

TASKS = (
    *(_closed_book_task("natural_questions", "NQ", shots, _read_natural_questions, hub=_hub_natural_questions,
                        origin=_NATURAL_QUESTIONS_ORIGIN, size=3610)
      for shots in _SHOTS),
    *(_closed_book_task("triviaqa", "TriviaQA", shots, _read_triviaqa, hub=_hub_triviaqa, origin=_TRIVIAQA_ORIGIN, size=0)
      for shots in _SHOTS),
)
