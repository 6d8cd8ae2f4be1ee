"""Reading comprehension (Table 6): RACE-middle and RACE-high."""

from llama_jax.evaluation.choices import choice_item, choice_question, judge_choices
from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.task import Item, Settings, Task, TaskRecords, headline_metrics, judge_each

_LETTERS = "ABCD"
_BLANK = "  _  ."
"""The end of a question that is a sentence whose end is to be filled in."""


def _read_race(files: OfficialFiles, level: str) -> list[dict]:
    """Passages, each with its questions, options and answers; the number of the file is the id."""
    records = []
    for name in files.matching(f"race/test/{level}/*.txt"):
        row = files.read_json(name, {"article": str, "questions": [str], "options": [[str]], "answers": [str]})
        counts = {len(row["questions"]), len(row["options"]), len(row["answers"])}
        files.require(len(counts) == 1, "questions, options and answers should be equally many", file=name, record=1)
        for number, (options, answer) in enumerate(zip(row["options"], row["answers"], strict=True), 1):
            files.require(answer in tuple(_LETTERS[: len(options)]), f"answer {answer!r} names none of its options",
                          file=name, record=number)
        records.append(row | {"id": f"{level}/{name.rpartition('/')[2].removesuffix('.txt')}"})
    return records


def _hub_race(rows: HubRows, level: str) -> list[dict]:
    """Passages from the hub, which has one row per question, those of a passage in succession."""
    passages: dict[str, dict] = {}
    for row in rows("ehovy/race", level, "test"):
        new = {"id": row["example_id"], "article": row["article"], "questions": [], "options": [], "answers": []}
        passage = passages.setdefault(row["example_id"], new)
        passage["questions"].append(row["question"])
        passage["options"].append(row["options"])
        passage["answers"].append(row["answer"])
    return list(passages.values())


def _right_option(row: dict, number: int) -> str:
    return row["options"][number][_LETTERS.index(row["answers"][number])]


def _llama_context(row: dict, number: int) -> str:
    """GPT-3's format: the passage, its earlier questions with their answers, and the question."""
    earlier = "".join(f"Q: {row['questions'][n]}\n\nA: {_right_option(row, n)}\n\n" for n in range(number))
    return f"Article: {row['article']}\n\n{earlier}Q: {row['questions'][number]}\n\nA:"


def _lm_eval_context(row: dict) -> str:
    """lm-evaluation-harness's format: the last question of a passage after the others, whose blanks are filled in."""
    text = f"Article: {row['article']}\n\n"
    for n, asked in enumerate(row["questions"][:-1]):
        if asked.endswith(_BLANK):
            text += f"{asked[:-5]}{_right_option(row, n)}\n"  # the harness cuts five characters and leaves one space
        else:
            text += f"Question: {asked}\nAnswer: {_right_option(row, n)}\n"
    return text + row["questions"][-1]


def _build_race(records: TaskRecords, settings: Settings) -> list[Item]:
    """One item per question, or under lm-evaluation-harness's protocol one per passage."""
    items = []
    for row in records.test:
        last = len(row["questions"]) - 1
        for n in [last] if settings.protocol == "lm_eval" else range(last + 1):
            context = _lm_eval_context(row) if settings.protocol == "lm_eval" else _llama_context(row, n)
            asked = choice_question(context, row["options"][n], gold=_LETTERS.index(row["answers"][n]))
            items.append(choice_item(f"{row['id']}/{n + 1}", asked, answer_context="A:"))
    return items


def _race_task(level: str, size: int) -> Task:
    """RACE-middle or RACE-high."""
    return Task(
        f"race_{level}", f"RACE-{level}", lambda files, settings: TaskRecords(_read_race(files, level)), _build_race,
        judge_each(judge_choices), headline_metrics("acc_answer", "acc_raw"),
        origin=f"https://www.cs.cmu.edu/~glai1/data/race/ (RACE.tar.gz; race/test/{level}/*.txt)",
        hub=lambda rows, settings: TaskRecords(_hub_race(rows, level)), size=size)


TASKS = (_race_task("middle", 1436), _race_task("high", 3498))
