"""Common-sense multiple choice (Table 3): BoolQ, PIQA, SIQA, HellaSwag, WinoGrande, ARC and OpenBookQA."""

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from llama_jax.evaluation.choices import ChoiceQuestion, choice_item, choice_question, judge_choices
from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.task import Item, Settings, Task, TaskRecords, judge_each

_MOST_SHOTS = 64
"""Most worked examples that can be shown."""


def _worked_examples(key: str, pool: list[str], *, settings: Settings) -> str:
    """Worked examples for one item, drawn by its key and the seed; nothing where none are asked for."""
    if not settings.num_fewshot:
        return ""
    drawn = random.Random(f"{settings.seed}/{key}").sample(pool, min(settings.num_fewshot, len(pool)))
    return "".join(f"{shot}\n\n" for shot in drawn)


def _boolq_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """GPT-3's wording, or lm-evaluation-harness's; the title opens the passage as in SuperGLUE."""
    passage = f"{row['title']} -- {row['passage']}"
    if settings.protocol == "lm_eval":
        context = f"{passage}\nQuestion: {row['question']}?\nAnswer:"
    else:
        context = f"{passage}\nquestion: {row['question']}?\nanswer:"
    return choice_question(context, ["no", "yes"], gold=int(row["answer"]))


def _piqa_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """The bare goal; lm-evaluation-harness words it as a question."""
    context = f"Question: {row['goal']}\nAnswer:" if settings.protocol == "lm_eval" else row["goal"]
    return choice_question(context, [row["sol1"], row["sol2"]], gold=int(row["label"]))


def _siqa_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """Context and question; the labels of the file count from 1."""
    context = f"{row['context']} {row['question']}"
    if settings.protocol == "lm_eval":
        context = f"Q: {context}\nA:"
    return choice_question(context, [row["answerA"], row["answerB"], row["answerC"]], gold=int(row["label"]) - 1)


def without_wikihow_marks(text: str) -> str:
    """A text of HellaSwag without the marks of its WikiHow articles, as [title] and [step]."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _hellaswag_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """The activity and the context, followed by one of four endings."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    endings = [without_wikihow_marks(ending) for ending in row["endings"]]
    return choice_question(without_wikihow_marks(context), endings, gold=int(row["label"]))


def winogrande_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """Partial scoring: the sentence up to its blank with either option there, followed by the rest of the sentence."""
    before, _, after = row["sentence"].partition("_")
    rest = " " + after.strip()
    return ChoiceQuestion([before + row["option1"], before + row["option2"]], [rest, rest], int(row["label"]) - 1)


def arc_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """Three to five choices, which are labelled A, B, ... or 1, 2, ..."""
    choices = row["question"]["choices"]
    labels = [choice["label"] for choice in choices]
    return choice_question(f"Question: {row['question']['stem']}\nAnswer:", [choice["text"] for choice in choices],
                           gold=labels.index(row["answerKey"]))


def _openbookqa_question(row: dict, settings: Settings) -> ChoiceQuestion:
    """The bare stem, under both protocols."""
    return arc_question(row, settings)._replace(contexts=[row["question"]["stem"]] * len(row["question"]["choices"]))


def _read_with_labels(
    files: OfficialFiles, name: str, *, label_file: str, labels: tuple[str, ...], texts: tuple[str, ...]
) -> list[dict]:
    """Records of a file with the fields `texts`, each with a "label" from the file beside it."""
    rows, given = files.read_jsonl(name, dict.fromkeys(texts, str)), files.read_lines(label_file)
    for number in range(max(len(rows), len(given))):
        there = number < len(rows) and number < len(given)
        files.require(there, f"{name} has {len(rows)} records and {label_file} {len(given)} labels",
                      file=label_file, record=number + 1)
        files.require(given[number] in labels, f"expected one of {', '.join(labels)}, got {given[number]!r}",
                      file=label_file, record=number + 1)
    return [row | {"label": label} for row, label in zip(rows, given, strict=True)]


def _read_boolq(files: OfficialFiles, split: str) -> list[dict]:
    name = f"boolq/{split}.jsonl"
    rows = files.read_jsonl(name, {"question": str, "title": str, "answer": object, "passage": str})
    for number, row in enumerate(rows, 1):
        files.require(isinstance(row["answer"], bool), f"the answer should be true or false, got {row['answer']!r}",
                      file=name, record=number)
    return rows


def _read_piqa(files: OfficialFiles, split: str) -> list[dict]:
    name = {"dev": "valid", "train": "train"}[split]
    return _read_with_labels(files, f"piqa/{name}.jsonl", label_file=f"piqa/{name}-labels.lst", labels=("0", "1"),
                             texts=("goal", "sol1", "sol2"))


def _read_siqa(files: OfficialFiles, split: str) -> list[dict]:
    return _read_with_labels(files, f"siqa/{split}.jsonl", label_file=f"siqa/{split}-labels.lst", labels=("1", "2", "3"),
                             texts=("context", "question", "answerA", "answerB", "answerC"))


def _read_hellaswag(files: OfficialFiles, split: str) -> list[dict]:
    name = f"hellaswag/hellaswag_{'val' if split == 'dev' else split}.jsonl"
    rows = files.read_jsonl(name, {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": [str], "label": object})
    for number, row in enumerate(rows, 1):
        files.require(str(row["label"]) in map(str, range(len(row["endings"]))),
                      f"label {row['label']!r} names none of its {len(row['endings'])} endings", file=name, record=number)
    return rows


def _read_winogrande(files: OfficialFiles, split: str) -> list[dict]:
    name = {"dev": "dev", "train": "train_xl"}[split]
    rows = _read_with_labels(files, f"winogrande/{name}.jsonl", label_file=f"winogrande/{name}-labels.lst", labels=("1", "2"),
                             texts=("sentence", "option1", "option2"))
    for number, row in enumerate(rows, 1):
        files.require("_" in row["sentence"], "the sentence has no blank _", file=f"winogrande/{name}.jsonl", record=number)
    return rows


def _read_with_choices(files: OfficialFiles, name: str) -> list[dict]:
    """Records of ARC or OpenBookQA, whose answerKey must be the label of one of their choices."""
    choices = [{"text": str, "label": str}]
    rows = files.read_jsonl(name, {"id": object, "question": {"stem": str, "choices": choices}, "answerKey": str})
    for number, row in enumerate(rows, 1):
        labels = [choice["label"] for choice in row["question"]["choices"]]
        files.require(len(set(labels)) == len(labels), f"two choices have one label: {', '.join(labels)}",
                      file=name, record=number)
        row["answerKey"] = row["answerKey"].strip()
        files.require(row["answerKey"] in labels, f"answer {row['answerKey']!r} is none of {', '.join(labels)}",
                      file=name, record=number)
    return rows


def arc_reader(kind: str) -> Callable[[OfficialFiles, str], list[dict]]:
    """A reader of ARC-Easy or ARC-Challenge."""
    return lambda files, split: _read_with_choices(files, f"arc/ARC-{kind}-{split.capitalize()}.jsonl")


def _read_openbookqa(files: OfficialFiles, split: str) -> list[dict]:
    return _read_with_choices(files, f"openbookqa/{split}.jsonl")


def _arc_record_from_hub(row: dict) -> dict:
    """A record of ARC or OpenBookQA from the hub, in the form of the official files."""
    columns = row["choices"]
    choices = [{"text": text, "label": label} for text, label in zip(columns["text"], columns["label"], strict=True)]
    stem = row.get("question_stem") or row["question"]
    return {"id": row["id"], "question": {"stem": stem, "choices": choices}, "answerKey": row["answerKey"].strip()}


def _boolq_record_from_hub(row: dict) -> dict:
    """A record of SuperGLUE's copy of BoolQ, whose passage begins with the title."""
    title, _, passage = row["passage"].partition(" -- ")
    return {"question": row["question"], "title": title, "answer": bool(row["label"]), "passage": passage}


def _winogrande_record_from_hub(row: dict) -> dict:
    """A record of the hub's WinoGrande, which holds its label itself."""
    return row | {"label": row["answer"]}


def _unchanged(row: dict) -> dict:
    """A record that the hub has in the form of the official files."""
    return row


class _DataSource(NamedTuple):
    """Where one task's records are."""

    read: Callable[[OfficialFiles, str], list[dict]]
    split: str
    """Split of the official files: dev or test."""
    origin: str
    hub: tuple[str, str | None, str]
    """(path, configuration, split) of the hub's copy."""
    convert: Callable[[dict], dict] = _unchanged
    """A record in the form of the official files, from the hub's."""
    size: int = 0
    """Number of records of the official split."""


def _choice_task(
    name: str, title: str, *, word: Callable[[dict, Settings], ChoiceQuestion], source: _DataSource, norm: str = "char"
) -> Task:
    """A task from the function that words its records as questions; `norm` is the paper's normalisation."""
    def read(files: OfficialFiles, settings: Settings) -> TaskRecords:
        shots = source.read(files, "train") if settings.num_fewshot else []
        return TaskRecords(source.read(files, source.split), shots)

    def hub(rows: HubRows, settings: Settings) -> TaskRecords:
        path, config, split = source.hub
        shots = [source.convert(row) for row in rows(path, config, "train")] if settings.num_fewshot else []
        return TaskRecords([source.convert(row) for row in rows(path, config, split)], shots)

    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        pool = [word(row, settings).solved for row in records.shots]
        items = []
        for number, row in enumerate(records.test):
            prefix = _worked_examples(f"{name}/{number}", pool, settings=settings)
            items.append(choice_item(str(number), word(row, settings), prefix=prefix))
        return items

    headline = {"llama": f"acc_{norm}", "lm_eval": _LM_EVAL_HEADLINES.get(name, "acc_raw"), "raw": "acc_raw"}
    return Task(name, title, read, build, judge_each(judge_choices), headline, origin=source.origin, hub=hub,
                most_fewshot=_MOST_SHOTS, size=source.size)


_LM_EVAL_HEADLINES = dict.fromkeys(("piqa", "hellaswag", "arc_easy", "arc_challenge", "openbookqa"), "acc_char")
"""Tasks for which lm-evaluation-harness reports acc_norm, which is per character; for the others it has acc alone."""

_ARC_ORIGIN = ("https://ai2-public-datasets.s3.amazonaws.com/arc/ARC-V1-Feb2018.zip "
               "(as arc/ARC-Easy-*.jsonl and ARC-Challenge-*.jsonl)")

TASKS = (
    _choice_task("boolq", "BoolQ", word=_boolq_question, norm="answer", source=_DataSource(
        _read_boolq, "dev", "https://github.com/google-research-datasets/boolean-questions",
        ("aps/super_glue", "boolq", "validation"), _boolq_record_from_hub, size=3270)),
    _choice_task("piqa", "PIQA", word=_piqa_question, source=_DataSource(
        _read_piqa, "dev", "https://yonatanbisk.com/piqa", ("baber/piqa", None, "validation"), size=1838)),
    _choice_task("siqa", "SIQA", word=_siqa_question, source=_DataSource(
        _read_siqa, "dev", "https://storage.googleapis.com/ai2-mosaic/public/socialiqa/socialiqa-train-dev.zip",
        ("lighteval/siqa", None, "validation"), size=1954)),
    _choice_task("hellaswag", "HellaSwag", word=_hellaswag_question, source=_DataSource(
        _read_hellaswag, "dev", "https://github.com/rowanz/hellaswag/tree/master/data",
        ("Rowan/hellaswag", None, "validation"), size=10_042)),
    _choice_task("winogrande", "WinoGrande", word=winogrande_question, source=_DataSource(
        _read_winogrande, "dev", "https://storage.googleapis.com/ai2-mosaic/public/winogrande/winogrande_1.1.zip",
        ("allenai/winogrande", "winogrande_xl", "validation"), _winogrande_record_from_hub, size=1267)),
    _choice_task("arc_easy", "ARC-e", word=arc_question, source=_DataSource(
        arc_reader("Easy"), "test", _ARC_ORIGIN, ("allenai/ai2_arc", "ARC-Easy", "test"), _arc_record_from_hub, size=2376)),
    _choice_task("arc_challenge", "ARC-c", word=arc_question, source=_DataSource(
        arc_reader("Challenge"), "test", _ARC_ORIGIN, ("allenai/ai2_arc", "ARC-Challenge", "test"), _arc_record_from_hub,
        size=1172)),
    _choice_task("openbookqa", "OBQA", word=_openbookqa_question, norm="answer", source=_DataSource(
        _read_openbookqa, "test", "https://ai2-public-datasets.s3.amazonaws.com/open-book-qa/OpenBookQA-V1-Sep2018.zip",
        ("allenai/openbookqa", "main", "test"), _arc_record_from_hub, size=500)),
)
