"""Common-sense questions with choices (Table 3): BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC and OpenBookQA."""

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.statistics import judge_choices
from llama_jax.evaluation.task import Item, LikelihoodRequest, Settings, Task, TaskRecords, judge_each

_MOST_SHOTS = 64


class ChoiceQuestion(NamedTuple):
    """One record, worded. With partial scoring (WinoGrande) the contexts differ and the continuation is the same."""

    contexts: list[str]
    """One a choice."""
    continuations: list[str]
    gold: int

    @property
    def solved(self) -> str:
        """The right answer in place, as a worked example."""
        return self.contexts[self.gold] + self.continuations[self.gold]


def choice_question(context: str, choices: list[str], gold: int) -> ChoiceQuestion:
    """One context, every choice after a space."""
    return ChoiceQuestion([context] * len(choices), [" " + choice for choice in choices], gold)


def choice_item(key: str, asked: ChoiceQuestion, *, prefix: str = "", answer_context: str = "Answer:", **fields) -> Item:
    """Requests as `judge_choices` wants them; `prefix` stands before every context."""
    choices = [LikelihoodRequest(prefix + context, text)
               for context, text in zip(asked.contexts, asked.continuations, strict=True)]
    bare = [LikelihoodRequest(answer_context, text) for text in asked.continuations]
    return Item(key, (*choices, *bare), asked.gold, **fields)


def _worked_examples(key: str, pool: list[str], settings: Settings) -> str:
    """Worked examples for one item, drawn from its key and the seed; nothing where none are asked for."""
    if not settings.num_fewshot:
        return ""
    drawn = random.Random(f"{settings.seed}/{key}").sample(pool, min(settings.num_fewshot, len(pool)))
    return "".join(f"{shot}\n\n" for shot in drawn)


def _boolq_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """GPT-3's wording, and that harness's; the title opens the passage as SuperGLUE has it."""
    passage = f"{row['title']} -- {row['passage']}"
    if settings.protocol == "lm_eval":
        return choice_question(f"{passage}\nQuestion: {row['question']}?\nAnswer:", ["no", "yes"], int(row["answer"]))
    return choice_question(f"{passage}\nquestion: {row['question']}?\nanswer:", ["no", "yes"], int(row["answer"]))


def _piqa_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """The goal; that harness asks for an answer."""
    context = f"Question: {row['goal']}\nAnswer:" if settings.protocol == "lm_eval" else row["goal"]
    return choice_question(context, [row["sol1"], row["sol2"]], int(row["label"]))


def _siqa_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """Context and question; labels count from 1."""
    context = f"{row['context']} {row['question']}"
    choices = [row["answerA"], row["answerB"], row["answerC"]]
    return choice_question(f"Q: {context}\nA:" if settings.protocol == "lm_eval" else context, choices, int(row["label"]) - 1)


def without_wikihow_marks(text: str) -> str:
    """HellaSwag's WikiHow marks, as [title] and [step], taken out."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _hellaswag_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """activity: context."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    endings = [without_wikihow_marks(ending) for ending in row["endings"]]
    return choice_question(without_wikihow_marks(context), endings, int(row["label"]))


def winogrande_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """Partial scoring: the sentence up to the blank with either option, then the same rest of it."""
    before, _, after = row["sentence"].partition("_")
    rest = " " + after.strip()
    return ChoiceQuestion([before + row["option1"], before + row["option2"]], [rest, rest], int(row["label"]) - 1)


def arc_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """3 to 5 choices; labels are A.. or 1.."""
    choices = row["question"]["choices"]
    labels = [choice["label"] for choice in choices]
    return choice_question(f"Question: {row['question']['stem']}\nAnswer:", [choice["text"] for choice in choices],
                    labels.index(row["answerKey"]))


def _openbookqa_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """The bare stem."""
    return arc_question(row, settings)._replace(contexts=[row["question"]["stem"]] * len(row["question"]["choices"]))


def _read_with_labels(files: OfficialFiles, name: str, label_name: str, labels: tuple[str, ...], *texts: str) -> list[dict]:
    """Records of a file with the fields `texts`, each with its "label" from the file beside it."""
    rows, given = files.jsonl(name, dict.fromkeys(texts, str)), files.lines(label_name)
    for number in range(max(len(rows), len(given))):
        there = number < len(rows) and number < len(given)
        files.require(there, label_name, number + 1, f"{name} has {len(rows)} records and {label_name} {len(given)} labels")
        files.require(given[number] in labels, label_name, number + 1,
                      f"expected one of {', '.join(labels)}, got {given[number]!r}")
    return [row | {"label": label} for row, label in zip(rows, given, strict=True)]


def _read_boolq(files: OfficialFiles, split: str) -> list[dict]:
    """Passages, questions, and true or false."""
    name = f"boolq/{split}.jsonl"
    rows = files.jsonl(name, {"question": str, "title": str, "answer": object, "passage": str})
    for number, row in enumerate(rows, 1):
        files.require(isinstance(row["answer"], bool), name, number, f"the answer should be true or false, got {row['answer']!r}")
    return rows


def _read_piqa(files: OfficialFiles, split: str) -> list[dict]:
    """Goals with two solutions; labels 0 and 1."""
    name = {"dev": "valid", "train": "train"}[split]
    return _read_with_labels(files, f"piqa/{name}.jsonl", f"piqa/{name}-labels.lst", ("0", "1"), "goal", "sol1", "sol2")


def _read_siqa(files: OfficialFiles, split: str) -> list[dict]:
    """Situations with three answers; labels 1 to 3."""
    return _read_with_labels(files, f"siqa/{split}.jsonl", f"siqa/{split}-labels.lst", ("1", "2", "3"),
                       "context", "question", "answerA", "answerB", "answerC")


def _read_hellaswag(files: OfficialFiles, split: str) -> list[dict]:
    """Contexts with four endings."""
    name = f"hellaswag/hellaswag_{'val' if split == 'dev' else split}.jsonl"
    rows = files.jsonl(name, {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": [str], "label": object})
    for number, row in enumerate(rows, 1):
        files.require(str(row["label"]) in map(str, range(len(row["endings"]))), name, number,
                      f"label {row['label']!r} names none of its {len(row['endings'])} endings")
    return rows


def _read_winogrande(files: OfficialFiles, split: str) -> list[dict]:
    """Sentences with a blank and two options; labels 1 and 2."""
    name = {"dev": "dev", "train": "train_xl"}[split]
    keys = ("sentence", "option1", "option2")
    rows = _read_with_labels(files, f"winogrande/{name}.jsonl", f"winogrande/{name}-labels.lst", ("1", "2"), *keys)
    for number, row in enumerate(rows, 1):
        files.require("_" in row["sentence"], f"winogrande/{name}.jsonl", number, "the sentence has no blank _")
    return rows


def _read_with_choices(files: OfficialFiles, name: str) -> list[dict]:
    """Records whose answerKey must be one of their choices' labels."""
    choices = [{"text": str, "label": str}]
    rows = files.jsonl(name, {"id": object, "question": {"stem": str, "choices": choices}, "answerKey": str})
    for number, row in enumerate(rows, 1):
        labels = [choice["label"] for choice in row["question"]["choices"]]
        files.require(len(set(labels)) == len(labels), name, number, f"two choices have one label: {', '.join(labels)}")
        row["answerKey"] = row["answerKey"].strip()
        files.require(row["answerKey"] in labels, name, number, f"answer {row['answerKey']!r} is none of {', '.join(labels)}")
    return rows


def arc_reader(kind: str) -> Callable[[OfficialFiles, str], list[dict]]:
    """A reader of ARC-Easy or ARC-Challenge."""
    return lambda files, split: _read_with_choices(files, f"arc/ARC-{kind}-{split.capitalize()}.jsonl")


def _read_openbookqa(files: OfficialFiles, split: str) -> list[dict]:
    """Stems with four choices."""
    return _read_with_choices(files, f"openbookqa/{split}.jsonl")


def _arc_record_from_hub(row: dict) -> dict:
    """ARC and OpenBookQA as the hub has them, in the form of their files."""
    columns = row["choices"]
    choices = [{"text": text, "label": label} for text, label in zip(columns["text"], columns["label"], strict=True)]
    stem = row.get("question_stem") or row["question"]
    return {"id": row["id"], "question": {"stem": stem, "choices": choices}, "answerKey": row["answerKey"].strip()}


def _boolq_record_from_hub(row: dict) -> dict:
    """SuperGLUE's copy, whose passage holds the title."""
    title, _, passage = row["passage"].partition(" -- ")
    return {"question": row["question"], "title": title, "answer": bool(row["label"]), "passage": passage}


def _winogrande_record_from_hub(row: dict) -> dict:
    """The hub's WinoGrande, labelled inside the record."""
    return row | {"label": row["answer"]}


def _unchanged(row: dict) -> dict:
    """A record that is as the file has it."""
    return row


class _DataSource(NamedTuple):
    """Where one task's records are."""

    read: Callable[[OfficialFiles, str], list[dict]]
    split: str
    """Of the official files: dev or test."""
    origin: str
    hub: tuple[str, str | None, str]
    """path, configuration and split of the hub's copy."""
    convert: Callable[[dict], dict] = _unchanged
    size: int = 0
    """Records of the official split."""


def _choice_task(name: str, title: str, word: Callable[[dict, Settings], ChoiceQuestion], source: _DataSource,
                norm: str = "char") -> Task:
    """A task of `word`ed records; `norm` is the paper's normalisation."""
    def read(files: OfficialFiles, settings: Settings) -> TaskRecords:
        shots = source.read(files, "train") if settings.num_fewshot else []
        return TaskRecords(source.read(files, source.split), shots)

    def hub(rows: HubRows, settings: Settings) -> TaskRecords:
        path, config, split = source.hub
        shots = [source.convert(row) for row in rows(path, config, "train")] if settings.num_fewshot else []
        return TaskRecords([source.convert(row) for row in rows(path, config, split)], shots)

    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        pool = [word(row, settings).solved for row in records.shots]
        return [choice_item(str(n), word(row, settings), prefix=_worked_examples(f"{name}/{n}", pool, settings))
                for n, row in enumerate(records.test)]

    headline = {"llama": f"acc_{norm}", "lm_eval": _LM_EVAL_HEADLINES.get(name, "acc_raw"), "raw": "acc_raw"}
    return Task(name, title, read, build, judge_each(judge_choices), headline, origin=source.origin, hub=hub,
                most_fewshot=_MOST_SHOTS, size=source.size)


_LM_EVAL_HEADLINES = dict.fromkeys(("piqa", "hellaswag", "arc_easy", "arc_challenge", "openbookqa"), "acc_char")
"""Tasks for which that harness has acc_norm; the others only have acc."""

_ARC_ORIGIN = ("https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip "
               "(as arc/ARC-Easy-*.jsonl and ARC-Challenge-*.jsonl)")

TASKS = (
    _choice_task("boolq", "BoolQ", _boolq_question, _DataSource(
        _read_boolq, "dev", "https://github.com/google-research-datasets/boolean-questions",
        ("aps/super_glue", "boolq", "validation"), _boolq_record_from_hub, 3270), norm="answer"),
    _choice_task("piqa", "PIQA", _piqa_question, _DataSource(
        _read_piqa, "dev", "https://yonatanbisk.com/piqa", ("baber/piqa", None, "validation"), size=1838)),
    _choice_task("siqa", "SIQA", _siqa_question, _DataSource(
        _read_siqa, "dev", "https://storage.googleapis.com/ai2-mosaic/public/socialiqa/socialiqa-train-dev.zip",
        ("lighteval/siqa", None, "validation"), size=1954)),
    _choice_task("hellaswag", "HellaSwag", _hellaswag_question, _DataSource(
        _read_hellaswag, "dev", "https://github.com/rowanz/hellaswag/tree/master/data",
        ("Rowan/hellaswag", None, "validation"), size=10_042)),
    _choice_task("winogrande", "WinoGrande", winogrande_question, _DataSource(
        _read_winogrande, "dev", "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
        ("allenai/winogrande", "winogrande_xl", "validation"), _winogrande_record_from_hub, 1267)),
    _choice_task("arc_easy", "ARC-e", arc_question, _DataSource(
        arc_reader("Easy"), "test", _ARC_ORIGIN, ("allenai/ai2_arc", "ARC-Easy", "test"), _arc_record_from_hub, 2376)),
    _choice_task("arc_challenge", "ARC-c", arc_question, _DataSource(
        arc_reader("Challenge"), "test", _ARC_ORIGIN, ("allenai/ai2_arc", "ARC-Challenge", "test"), _arc_record_from_hub, 1172)),
    _choice_task("openbookqa", "OBQA", _openbookqa_question, _DataSource(
        _read_openbookqa, "test", "https://ai2-public-datasets.s3.amazonaws.com/open-book-qa/OpenBookQA-V1-Sep2018.zip",
        ("allenai/openbookqa", "main", "test"), _arc_record_from_hub, 500), norm="answer"),
)
