"""Reading comprehension (Table 6): RACE-middle and RACE-high."""

from llama_jax.evaluation.data import Files, Rows
from llama_jax.evaluation.statistics import judge_choices
from llama_jax.evaluation.task import Item, Records, Settings, Task, each
from llama_jax.evaluation.tasks.multiple_choice import item, question

LETTERS = "ABCD"
BLANK = "  _  ."
"""How a question ends that is a sentence with its end left out."""


def read(files: Files, level: str) -> list[dict]:
    """Passages, each with its questions, options and answers; the file's number is the id."""
    records = []
    for name in files.names(f"race/test/{level}/*.txt"):
        row = files.json(name, {"article": str, "questions": [str], "options": [[str]], "answers": [str]})
        counts = {len(row["questions"]), len(row["options"]), len(row["answers"])}
        files.require(len(counts) == 1, name, 1, "questions, options and answers should be equally many")
        for number, (options, answer) in enumerate(zip(row["options"], row["answers"], strict=True), 1):
            files.require(answer in tuple(LETTERS[: len(options)]), name, number, f"answer {answer!r} names none of its options")
        records.append(row | {"id": f"{level}/{name.rpartition('/')[2].removesuffix('.txt')}"})
    return records


def from_hub(rows: Rows, level: str) -> list[dict]:
    """The hub has one question a row; rows of one passage stand together."""
    passages: dict[str, dict] = {}
    for row in rows("ehovy/race", level, "test"):
        passage = passages.setdefault(row["example_id"], {"id": row["example_id"], "article": row["article"],
                                                          "questions": [], "options": [], "answers": []})
        for field in ("question", "options", "answer"):
            passage[field.removesuffix("s") + "s"].append(row[field])
    return list(passages.values())


def right(row: dict, number: int) -> str:
    """The text of the right option of a question."""
    return row["options"][number][LETTERS.index(row["answers"][number])]


def llama(row: dict, number: int) -> str:
    """GPT-3's format: the passage's earlier questions are shown with their answers."""
    earlier = "".join(f"Q: {row['questions'][n]}\n\nA: {right(row, n)}\n\n" for n in range(number))
    return f"Article: {row['article']}\n\n{earlier}Q: {row['questions'][number]}\n\nA:"


def lm_eval(row: dict) -> str:
    """That harness asks the last question of a passage alone, after the others with blanks filled in."""
    text = f"Article: {row['article']}\n\n"
    for n, asked in enumerate(row["questions"][:-1]):
        filled = asked.endswith(BLANK)
        text += f"{asked[:-5]}{right(row, n)}\n" if filled else f"Question: {asked}\nAnswer: {right(row, n)}\n"
    return text + row["questions"][-1]


def build(records: Records, settings: Settings) -> list[Item]:
    """A question an item, or a passage an item for that harness."""
    items = []
    for row in records.test:
        last = len(row["questions"]) - 1
        for n in [last] if settings.protocol == "lm_eval" else range(last + 1):
            context = lm_eval(row) if settings.protocol == "lm_eval" else llama(row, n)
            asked = question(context, row["options"][n], LETTERS.index(row["answers"][n]))
            items.append(item(f"{row['id']}/{n + 1}", asked, answer_context="A:"))
    return items


def race(level: str, size: int) -> Task:
    """RACE-`level`."""
    return Task(f"race_{level}", f"RACE-{level}", lambda files, settings: Records(read(files, level)), build,
                each(judge_choices), headline={"llama": "acc_answer", "lm_eval": "acc_raw", "raw": "acc_raw"},
                origin=f"https://www.cs.cmu.edu/~glai1/data/race/ (RACE.tar.gz; race/test/{level}/*.txt)",
                hub=lambda rows, settings: Records(from_hub(rows, level)), size=size)


TASKS = (race("middle", 1436), race("high", 3498))
