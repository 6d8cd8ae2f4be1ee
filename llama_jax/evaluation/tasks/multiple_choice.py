"""Common-sense questions with choices (Table 3): BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC and OpenBookQA."""

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from llama_jax.evaluation.data import Files, Rows
from llama_jax.evaluation.statistics import judge_choices
from llama_jax.evaluation.task import Choice, Item, Records, Settings, Task, each

MOST_SHOTS = 64


class Question(NamedTuple):
    """One record, worded. With partial scoring (WinoGrande) the contexts differ and the continuation is the same."""

    contexts: list[str]
    """One a choice."""
    continuations: list[str]
    gold: int

    @property
    def solved(self) -> str:
        """The right answer in place, as a worked example."""
        return self.contexts[self.gold] + self.continuations[self.gold]


def question(context: str, choices: list[str], gold: int) -> Question:
    """One context, every choice after a space."""
    return Question([context] * len(choices), [" " + choice for choice in choices], gold)


def item(key: str, asked: Question, *, prefix: str = "", answer_context: str = "Answer:", **fields) -> Item:
    """Requests as `judge_choices` wants them; `prefix` stands before every context."""
    choices = [Choice(prefix + context, text) for context, text in zip(asked.contexts, asked.continuations, strict=True)]
    bare = [Choice(answer_context, text) for text in asked.continuations]
    return Item(key, (*choices, *bare), asked.gold, **fields)


def shots_before(key: str, pool: list[str], settings: Settings) -> str:
    """Worked examples for one item, drawn from its key and the seed; nothing where none are asked for."""
    if not settings.num_fewshot:
        return ""
    drawn = random.Random(f"{settings.seed}/{key}").sample(pool, min(settings.num_fewshot, len(pool)))
    return "".join(f"{shot}\n\n" for shot in drawn)


def boolq(row: dict, settings: Settings) -> Question:
    """GPT-3's wording, and that harness's; the title opens the passage as SuperGLUE has it."""
    passage = f"{row['title']} -- {row['passage']}"
    if settings.protocol == "lm_eval":
        return question(f"{passage}\nQuestion: {row['question']}?\nAnswer:", ["no", "yes"], int(row["answer"]))
    return question(f"{passage}\nquestion: {row['question']}?\nanswer:", ["no", "yes"], int(row["answer"]))


def piqa(row: dict, settings: Settings) -> Question:
    """The goal; that harness asks for an answer."""
    context = f"Question: {row['goal']}\nAnswer:" if settings.protocol == "lm_eval" else row["goal"]
    return question(context, [row["sol1"], row["sol2"]], int(row["label"]))


def siqa(row: dict, settings: Settings) -> Question:
    """Context and question; labels count from 1."""
    context = f"{row['context']} {row['question']}"
    choices = [row["answerA"], row["answerB"], row["answerC"]]
    return question(f"Q: {context}\nA:" if settings.protocol == "lm_eval" else context, choices, int(row["label"]) - 1)


def clean(text: str) -> str:
    """HellaSwag's WikiHow marks, as [title] and [step], taken out."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def hellaswag(row: dict, settings: Settings) -> Question:
    """activity: context."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return question(clean(context), [clean(ending) for ending in row["endings"]], int(row["label"]))


def winogrande(row: dict, settings: Settings) -> Question:
    """Partial scoring: the sentence up to the blank with either option, then the same rest of it."""
    before, _, after = row["sentence"].partition("_")
    rest = " " + after.strip()
    return Question([before + row["option1"], before + row["option2"]], [rest, rest], int(row["label"]) - 1)


def arc(row: dict, settings: Settings) -> Question:
    """3 to 5 choices; labels are A.. or 1.."""
    choices = row["question"]["choices"]
    labels = [choice["label"] for choice in choices]
    return question(f"Question: {row['question']['stem']}\nAnswer:", [choice["text"] for choice in choices],
                    labels.index(row["answerKey"]))


def openbookqa(row: dict, settings: Settings) -> Question:
    """The bare stem."""
    return arc(row, settings)._replace(contexts=[row["question"]["stem"]] * len(row["question"]["choices"]))


def with_labels(files: Files, name: str, label_name: str, labels: tuple[str, ...], *texts: str) -> list[dict]:
    """Records of a file with the fields `texts`, each with its "label" from the file beside it."""
    rows, given = files.jsonl(name, dict.fromkeys(texts, str)), files.lines(label_name)
    for number in range(max(len(rows), len(given))):
        there = number < len(rows) and number < len(given)
        files.require(there, label_name, number + 1, f"{name} has {len(rows)} records and {label_name} {len(given)} labels")
        files.require(given[number] in labels, label_name, number + 1,
                      f"expected one of {', '.join(labels)}, got {given[number]!r}")
    return [row | {"label": label} for row, label in zip(rows, given, strict=True)]


def read_boolq(files: Files, split: str) -> list[dict]:
    """Passages, questions, and true or false."""
    name = f"boolq/{split}.jsonl"
    rows = files.jsonl(name, {"question": str, "title": str, "answer": object, "passage": str})
    for number, row in enumerate(rows, 1):
        files.require(isinstance(row["answer"], bool), name, number, f"the answer should be true or false, got {row['answer']!r}")
    return rows


def read_piqa(files: Files, split: str) -> list[dict]:
    """Goals with two solutions; labels 0 and 1."""
    name = {"dev": "valid", "train": "train"}[split]
    return with_labels(files, f"piqa/{name}.jsonl", f"piqa/{name}-labels.lst", ("0", "1"), "goal", "sol1", "sol2")


def read_siqa(files: Files, split: str) -> list[dict]:
    """Situations with three answers; labels 1 to 3."""
    return with_labels(files, f"siqa/{split}.jsonl", f"siqa/{split}-labels.lst", ("1", "2", "3"),
                       "context", "question", "answerA", "answerB", "answerC")


def read_hellaswag(files: Files, split: str) -> list[dict]:
    """Contexts with four endings."""
    name = f"hellaswag/hellaswag_{'val' if split == 'dev' else split}.jsonl"
    rows = files.jsonl(name, {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": [str], "label": object})
    for number, row in enumerate(rows, 1):
        files.require(str(row["label"]) in map(str, range(len(row["endings"]))), name, number,
                      f"label {row['label']!r} names none of its {len(row['endings'])} endings")
    return rows


def read_winogrande(files: Files, split: str) -> list[dict]:
    """Sentences with a blank and two options; labels 1 and 2."""
    name = {"dev": "dev", "train": "train_xl"}[split]
    keys = ("sentence", "option1", "option2")
    rows = with_labels(files, f"winogrande/{name}.jsonl", f"winogrande/{name}-labels.lst", ("1", "2"), *keys)
    for number, row in enumerate(rows, 1):
        files.require("_" in row["sentence"], f"winogrande/{name}.jsonl", number, "the sentence has no blank _")
    return rows


def with_choices(files: Files, name: str) -> list[dict]:
    """Records whose answerKey must be one of their choices' labels."""
    choices = [{"text": str, "label": str}]
    rows = files.jsonl(name, {"id": object, "question": {"stem": str, "choices": choices}, "answerKey": str})
    for number, row in enumerate(rows, 1):
        labels = [choice["label"] for choice in row["question"]["choices"]]
        files.require(len(set(labels)) == len(labels), name, number, f"two choices have one label: {', '.join(labels)}")
        row["answerKey"] = row["answerKey"].strip()
        files.require(row["answerKey"] in labels, name, number, f"answer {row['answerKey']!r} is none of {', '.join(labels)}")
    return rows


def read_arc(kind: str) -> Callable[[Files, str], list[dict]]:
    """A reader of ARC-Easy or ARC-Challenge."""
    return lambda files, split: with_choices(files, f"arc/ARC-{kind}-{split.capitalize()}.jsonl")


def read_openbookqa(files: Files, split: str) -> list[dict]:
    """Stems with four choices."""
    return with_choices(files, f"openbookqa/{split}.jsonl")


def as_official(row: dict) -> dict:
    """ARC and OpenBookQA as the hub has them, in the form of their files."""
    columns = row["choices"]
    choices = [{"text": text, "label": label} for text, label in zip(columns["text"], columns["label"], strict=True)]
    stem = row.get("question_stem") or row["question"]
    return {"id": row["id"], "question": {"stem": stem, "choices": choices}, "answerKey": row["answerKey"].strip()}


def boolq_of_hub(row: dict) -> dict:
    """SuperGLUE's copy, whose passage holds the title."""
    title, _, passage = row["passage"].partition(" -- ")
    return {"question": row["question"], "title": title, "answer": bool(row["label"]), "passage": passage}


def with_answer(row: dict) -> dict:
    """The hub's WinoGrande, labelled inside the record."""
    return row | {"label": row["answer"]}


def same(row: dict) -> dict:
    """A record that is as the file has it."""
    return row


class Source(NamedTuple):
    """Where one task's records are."""

    read: Callable[[Files, str], list[dict]]
    split: str
    """Of the official files: dev or test."""
    origin: str
    hub: tuple[str, str | None, str]
    """path, configuration and split of the hub's copy."""
    convert: Callable[[dict], dict] = same
    size: int = 0
    """Records of the official split."""


def choice_task(name: str, title: str, word: Callable[[dict, Settings], Question], source: Source,
                norm: str = "char") -> Task:
    """A task of `word`ed records; `norm` is the paper's normalisation."""
    def read(files: Files, settings: Settings) -> Records:
        shots = source.read(files, "train") if settings.num_fewshot else []
        return Records(source.read(files, source.split), shots)

    def hub(rows: Rows, settings: Settings) -> Records:
        path, config, split = source.hub
        shots = [source.convert(row) for row in rows(path, config, "train")] if settings.num_fewshot else []
        return Records([source.convert(row) for row in rows(path, config, split)], shots)

    def build(records: Records, settings: Settings) -> list[Item]:
        pool = [word(row, settings).solved for row in records.shots]
        return [item(str(n), word(row, settings), prefix=shots_before(f"{name}/{n}", pool, settings))
                for n, row in enumerate(records.test)]

    headline = {"llama": f"acc_{norm}", "lm_eval": LM_EVAL_HEADLINES.get(name, "acc_raw"), "raw": "acc_raw"}
    return Task(name, title, read, build, each(judge_choices), headline, origin=source.origin, hub=hub,
                most_fewshot=MOST_SHOTS, size=source.size)


LM_EVAL_HEADLINES = dict.fromkeys(("piqa", "hellaswag", "arc_easy", "arc_challenge", "openbookqa"), "acc_char")
"""Tasks for which that harness has acc_norm; the others only have acc."""

ARC = "https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip (as arc/ARC-Easy-*.jsonl and ARC-Challenge-*.jsonl)"

TASKS = (
    choice_task("boolq", "BoolQ", boolq, Source(
        read_boolq, "dev", "https://github.com/google-research-datasets/boolean-questions",
        ("aps/super_glue", "boolq", "validation"), boolq_of_hub, 3270), norm="answer"),
    choice_task("piqa", "PIQA", piqa, Source(
        read_piqa, "dev", "https://yonatanbisk.com/piqa", ("baber/piqa", None, "validation"), size=1838)),
    choice_task("siqa", "SIQA", siqa, Source(
        read_siqa, "dev", "https://storage.googleapis.com/ai2-mosaic/public/socialiqa/socialiqa-train-dev.zip",
        ("lighteval/siqa", None, "validation"), size=1954)),
    choice_task("hellaswag", "HellaSwag", hellaswag, Source(
        read_hellaswag, "dev", "https://github.com/rowanz/hellaswag/tree/master/data",
        ("Rowan/hellaswag", None, "validation"), size=10_042)),
    choice_task("winogrande", "WinoGrande", winogrande, Source(
        read_winogrande, "dev", "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
        ("allenai/winogrande", "winogrande_xl", "validation"), with_answer, 1267)),
    choice_task("arc_easy", "ARC-e", arc, Source(
        read_arc("Easy"), "test", ARC, ("allenai/ai2_arc", "ARC-Easy", "test"), as_official, 2376)),
    choice_task("arc_challenge", "ARC-c", arc, Source(
        read_arc("Challenge"), "test", ARC, ("allenai/ai2_arc", "ARC-Challenge", "test"), as_official, 1172)),
    choice_task("openbookqa", "OBQA", openbookqa, Source(
        read_openbookqa, "test", "https://ai2-public-datasets.s3.amazonaws.com/open-book-qa/OpenBookQA-V1-Sep2018.zip",
        ("allenai/openbookqa", "main", "test"), as_official, 500), norm="answer"),
)
