"""Reading comprehension (Table 6): RACE-middle and RACE-high."""

from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.statistics import judge_choices
from llama_jax.evaluation.task import Item, Settings, Task, TaskRecords, judge_each
from llama_jax.evaluation.tasks.multiple_choice import choice_item, choice_question

_LETTERS = "ABCD"
_BLANK = "  _  ."
"""How a question ends that is a sentence with its end left out."""


def _read_race(files: OfficialFiles, level: str) -> list[dict]:
    """Passages, each with its questions, options and answers; the file's number is the id."""
    records = []
    for name in files.names(f"race/test/{level}/*.txt"):
        row = files.json(name, {"article": str, "questions": [str], "options": [[str]], "answers": [str]})
        counts = {len(row["questions"]), len(row["options"]), len(row["answers"])}
        files.require(len(counts) == 1, name, 1, "questions, options and answers should be equally many")
        for number, (options, answer) in enumerate(zip(row["options"], row["answers"], strict=True), 1):
            files.require(answer in tuple(_LETTERS[: len(options)]), name, number, f"answer {answer!r} names none of its options")
        records.append(row | {"id": f"{level}/{name.rpartition('/')[2].removesuffix('.txt')}"})
    return records


def _hub_race(rows: HubRows, level: str) -> list[dict]:
    """The hub has one question a row; rows of one passage stand together."""
    passages: dict[str, dict] = {}
    for row in rows("ehovy/race", level, "test"):
        passage = passages.setdefault(row["example_id"], {"id": row["example_id"], "article": row["article"],
                                                          "questions": [], "options": [], "answers": []})
        for field in ("question", "options", "answer"):
            passage[field.removesuffix("s") + "s"].append(row[field])
    return list(passages.values())


def _right_option(row: dict, number: int) -> str:
    """The text of the right option of a question."""
    return row["options"][number][_LETTERS.index(row["answers"][number])]


def _llama_context(row: dict, number: int) -> str:
    """GPT-3's format: the passage's earlier questions are shown with their answers."""
    earlier = "".join(f"Q: {row['questions'][n]}\n\nA: {_right_option(row, n)}\n\n" for n in range(number))
    return f"Article: {row['article']}\n\n{earlier}Q: {row['questions'][number]}\n\nA:"


def _lm_eval_context(row: dict) -> str:
    """That harness asks the last question of a passage alone, after the others with blanks filled in."""
    text = f"Article: {row['article']}\n\n"
    for n, asked in enumerate(row["questions"][:-1]):
        filled = asked.endswith(_BLANK)
        text += f"{asked[:-5]}{_right_option(row, n)}\n" if filled else f"Question: {asked}\nAnswer: {_right_option(row, n)}\n"
    return text + row["questions"][-1]


def _build_race(records: TaskRecords, settings: Settings) -> list[Item]:
    """A question an item, or a passage an item for that harness."""
    items = []
    for row in records.test:
        last = len(row["questions"]) - 1
        for n in [last] if settings.protocol == "lm_eval" else range(last + 1):
            context = _lm_eval_context(row) if settings.protocol == "lm_eval" else _llama_context(row, n)
            asked = choice_question(context, row["options"][n], _LETTERS.index(row["answers"][n]))
            items.append(choice_item(f"{row['id']}/{n + 1}", asked, answer_context="A:"))
    return items


def _race_task(level: str, size: int) -> Task:
    """RACE-`level`."""
    return Task(f"race_{level}", f"RACE-{level}", lambda files, settings: TaskRecords(_read_race(files, level)), _build_race,
                judge_each(judge_choices), headline={"llama": "acc_answer", "lm_eval": "acc_raw", "raw": "acc_raw"},
                origin=f"https://www.cs.cmu.edu/~glai1/data/race/ (RACE.tar.gz; race/test/{level}/*.txt)",
                hub=lambda rows, settings: TaskRecords(_hub_race(rows, level)), size=size)


TASKS = (_race_task("middle", 1436), _race_task("high", 3498))
