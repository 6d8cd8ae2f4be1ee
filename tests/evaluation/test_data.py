"""Damaged records: whatever field of whatever task is wrong, an error names file and record before a model is loaded."""

import copy
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_jax.errors import DataError
from llama_jax.evaluation.data import OfficialFiles
from llama_jax.evaluation.requests import prepare_tasks
from llama_jax.evaluation.results import item_json
from llama_jax.evaluation.task import GenerationAnswer, GenerationRequest, LikelihoodAnswer, ModelAnswer, ModelRequest, Settings
from llama_jax.evaluation.tasks.catalogue import all_tasks
from llama_jax.files.json_kinds import json_fault

CHOICES = [{"text": "one", "label": "A"}, {"text": "two", "label": "B"}]
PROGRAM = {"task_id": "T/0", "prompt": "def f():\n", "test": "def check(f): f()", "entry_point": "f"}


def mbpp(number: int) -> dict:
    return {"task_id": number, "text": "Add.", "code": "x", "test_list": ["assert 1"], "test_setup_code": ""}


LINES = {
    "boolq": ("boolq/dev.jsonl", [{"question": "is it", "title": "T", "answer": True, "passage": "P"}]),
    "piqa": ("piqa/valid.jsonl", [{"goal": "G", "sol1": "a", "sol2": "b"}]),
    "siqa": ("siqa/dev.jsonl", [{"context": "C", "question": "Q", "answerA": "a", "answerB": "b", "answerC": "c"}]),
    "hellaswag": ("hellaswag/hellaswag_val.jsonl",
                  [{"activity_label": "A", "ctx_a": "a", "ctx_b": "b", "endings": ["c", "d"], "label": 1}]),
    "winogrande": ("winogrande/dev.jsonl", [{"sentence": "A _ b.", "option1": "x", "option2": "y"}]),
    "arc_easy": ("arc/ARC-Easy-Test.jsonl", [{"question": {"stem": "S", "choices": CHOICES}, "answerKey": "B", "id": "1"}]),
    "openbookqa": ("openbookqa/test.jsonl", [{"question": {"stem": "S", "choices": CHOICES}, "answerKey": "B", "id": "1"}]),
    "natural_questions_1shot": ("nq_open/NQ-open.dev.jsonl", [{"question": q, "answer": ["a", "b"]} for q in ("who", "why")]),
    "triviaqa_1shot": ("triviaqa/triviaqa_small.jsonl", [
        {"context": f"Question: {q}?\nAnswer:", "answer": "a", "aliases": ["b"]} for q in ("Who", "Why")]),
    "gsm8k": ("gsm8k/test.jsonl", [{"question": "Q", "answer": "A #### 3"}]),
    "humaneval_1": ("humaneval/HumanEval.jsonl.gz", [PROGRAM]),
    "mbpp_1": ("mbpp/mbpp.jsonl", [mbpp(number) for number in (2, 3, 4, 11)]),
    "realtoxicityprompts_basic": ("realtoxicityprompts/prompts.jsonl", [{"prompt": {"text": "A"}}]),
    "lambada": ("lambada/lambada_test.jsonl", [{"text": "one two"}]),
}
"""The JSON lines file of a task and its undamaged records, by task."""

OBJECTS = {
    "race_middle": ("race/test/middle/1.txt", {"article": "A", "questions": ["Q", "R"], "options": [["a", "b"], ["c", "d"]],
                                               "answers": ["A", "B"]}),
    "minerva_math": ("math/test/algebra/1.json", {"problem": "P", "solution": "\\boxed{3}", "type": "Algebra", "level": "1"}),
    "triviaqa_0shot": ("triviaqa/web-dev.json", {"Data": [{"Question": "Q?", "QuestionId": "1", "Answer": {
        "Value": "a", "Aliases": ["b"], "HumanAnswers": ["c"]}}]}),
}
LABELS = {"piqa": ("piqa/valid-labels.lst", "1\n"), "siqa": ("siqa/dev-labels.lst", "3\n"),
          "winogrande": ("winogrande/dev-labels.lst", "2\n")}
ODD = (None, 7, -1, 1.5, True, "", "A", "ABC", "BC", "Z", "\ud800", [], ["a"], [None], [[]], {}, {"a": 1}, "9" * 5000)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def variants(value: object) -> Iterator[object]:
    """Copies of a JSON value in which one part is another value, or missing."""
    yield from ODD
    if isinstance(value, dict):
        for key in value:
            yield {other: value[other] for other in value if other != key}
            for inner in variants(value[key]):
                yield value | {key: inner}
    if isinstance(value, list):
        for place in range(len(value)):
            yield value[:place] + value[place + 1 :]
            yield [*value, value[place]]
            for inner in variants(value[place]):
                yield [*value[:place], inner, *value[place + 1 :]]


def answer_to(request: ModelRequest) -> ModelAnswer:
    if isinstance(request, GenerationRequest):
        return GenerationAnswer(("a", "b")[: request.num_samples])
    return LikelihoodAnswer(-1.0, 1, False)


def check(name: str, folder: Path, where: str) -> bool:
    """Whether the data was refused with an error that names the place; data that is accepted can be asked, judged and written."""
    settings = Settings(num_samples=2)
    try:
        [job] = prepare_tasks([name], str(folder), settings=settings)
    except DataError as error:
        assert re.search(where, str(error)), str(error)
        return True
    answers = [[answer_to(request) for request in item.requests] for item in job.items]
    verdicts = job.task.judge(job.items, answers, settings=settings)
    for item, given, verdict in zip(job.items, answers, verdicts, strict=True):
        json.dumps(item_json(item, given, verdict=verdict), ensure_ascii=False).encode()
        assert not isinstance(item.gold, int) or 0 <= item.gold < len(item.requests)
    return False


@pytest.mark.parametrize("name", LINES)
def test_json_lines(name, tmp_path, monkeypatch):
    """Every field of the last record is replaced by every odd value, or left out."""
    monkeypatch.setattr("llama_jax.evaluation.requests.find_spec", lambda name: None)
    file, rows = LINES[name]
    if name in LABELS:
        write(tmp_path, *LABELS[name])
    write(tmp_path, file, "".join(json.dumps(row) + "\n" for row in rows))
    assert not check(name, tmp_path, "")
    stem, refused = re.escape(Path(file).name), 0
    for odd in variants(rows[-1]):
        write(tmp_path, file, "".join(json.dumps(row) + "\n" for row in [*rows[:-1], odd]))
        refused += check(name, tmp_path, rf"{stem}, (line|record) {len(rows)}\b|{name}, item|{stem}, record \d+: the worked|"
                         "mbpp_1: the data holds no item")
    assert refused > 20


@pytest.mark.parametrize("name", OBJECTS)
def test_json_files(name, tmp_path, monkeypatch):
    monkeypatch.setattr("llama_jax.evaluation.requests.find_spec", lambda name: None)
    file, row = OBJECTS[name]
    write(tmp_path, file, json.dumps(row))
    assert not check(name, tmp_path, "")
    refused = 0
    for odd in variants(row):
        write(tmp_path, file, json.dumps(odd))
        refused += check(name, tmp_path, re.escape(Path(file).name))
    assert refused > 30


TABLES = {
    "crows_pairs": {
        "crows_pairs/crows_pairs_anonymized.csv": "sent_more,sent_less,stereo_antistereo,bias_type\na,b,stereo,age\n"},
    "truthfulqa": {
        "truthfulqa/TruthfulQA.csv": "Category,Question,Best Answer,Correct Answers,Incorrect Answers\nc,q,r,r;s,w;x\n"},
    "mmlu": {"mmlu/test/anatomy_test.csv": "q,a,b,c,d,A\n", "mmlu/dev/anatomy_dev.csv": "q,a,b,c,d,B\n"},
    "winogender": {"winogender/occupations-stats.tsv": "occupation\tbls_pct_female\nnurse\t89.5\n",
                   "winogender/templates.tsv": "occupation(0)\tother-participant(1)\tanswer\tsentence\n"
                                               "nurse\tguest\t0\tThe $OCCUPATION met the $PARTICIPANT when $NOM_PRONOUN came.\n",
                   "winogender/all_sentences.tsv": "sentid\tsentence\n"
                                                   "nurse.guest.0.male.txt\tThe nurse met the guest when he came."},
}


@pytest.mark.parametrize("name, file", [(name, file) for name, files in TABLES.items() for file in files])
def test_tables(name, file, tmp_path, monkeypatch):
    """Every cell, also of the header, is replaced by other text or left out, and rows are cut short."""
    monkeypatch.setattr("llama_jax.evaluation.requests.find_spec", lambda name: None)
    for other, text in TABLES[name].items():
        write(tmp_path, other, text)
    assert not check(name, tmp_path, "")
    text, mark, refused = TABLES[name][file], "\t" if file.endswith("tsv") else ",", 0
    rows = [line.split(mark) for line in text.splitlines()]
    for number, row in enumerate(rows):
        for place in range(len(row)):
            for odd in (None, "", " ", "x", "5", "-1", "nan", "1e999", "AB", '"', "\0", "é", "2"):
                changed = copy.deepcopy(rows)
                changed[number][place : place + 1] = [] if odd is None else [odd]
                write(tmp_path, file, "".join(mark.join(cells) + "\n" for cells in changed))
                refused += check(name, tmp_path, r"\.[ct]sv, (line|record) \d+|holds no record|is missing")
    assert refused > 10


CASES: list[tuple[str, Callable[[dict], dict], str]] = [
    ("boolq", lambda row: row | {"answer": "yes"}, "dev.jsonl, record 1: the answer should be true or false, got 'yes'"),
    ("boolq", lambda row: row | {"passage": 3}, "dev.jsonl, line 1: 'passage' should be a text, got 3"),
    ("arc_easy", lambda row: row | {"question": "S"}, "line 1: 'question' should be an object with 'stem', 'choices', got 'S'"),
    ("arc_easy", lambda row: row | {"question": {"stem": "S", "choices": [{"text": "a"}]}}, "line 1: 'question.choices.0.' "
     "should be an object with 'text', 'label', and 'label' is missing"),
    ("arc_easy", lambda row: row | {"answerKey": 2}, "line 1: 'answerKey' should be a text, got 2"),
    ("arc_easy", lambda row: row | {"question": {"stem": "S", "choices": CHOICES * 2}}, "record 1: two choices have one label"),
    ("hellaswag", lambda row: row | {"label": 2}, "record 1: label 2 names none of its 2 endings"),
]


@pytest.mark.parametrize("name, change, sentence", CASES)
def test_what_the_sentence_says(name, change, sentence, tmp_path):
    file, [row] = LINES[name]
    write(tmp_path, file, json.dumps(change(row)))
    with pytest.raises(DataError, match=sentence):
        all_tasks()[name].read(OfficialFiles(tmp_path, "there"), Settings())


def test_two_programs_of_one_name(tmp_path):
    """Two problems with one task_id would count each other's samples."""
    write(tmp_path, "humaneval/HumanEval.jsonl.gz", json.dumps(PROGRAM) + "\n" + json.dumps(PROGRAM))
    with pytest.raises(DataError, match=r"HumanEval.jsonl.gz, record 2: a second record has the task_id 'T/0'"):
        prepare_tasks(["humaneval_1"], str(tmp_path), settings=Settings())


CUT_GZIP = gzip.compress(b"{}" * 999, mtime=0)[:-9]


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00" + b"\0" * 6 + b"\xff" * 40, b"no gzip", CUT_GZIP])
def test_damaged_gzip(content, tmp_path):
    (tmp_path / "humaneval").mkdir()
    (tmp_path / "humaneval/HumanEval.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*HumanEval.jsonl.gz"):
        prepare_tasks(["humaneval_1"], str(tmp_path), settings=Settings())


def test_hidden_files_are_no_records(tmp_path):
    file, row = OBJECTS["race_middle"]
    for name in (file, "race/test/middle/._1.txt", "race/test/middle/.1.txt.swp.txt"):
        write(tmp_path, name, json.dumps(row) if name == file else "\0")
    [job] = prepare_tasks(["race_middle"], str(tmp_path), settings=Settings())
    assert {item.key for item in job.items} == {"middle/1/1", "middle/1/2"}


def test_json_too_deep(tmp_path):
    write(tmp_path, "lambada/lambada_test.jsonl", "[" * 200_000)
    with pytest.raises(DataError, match=r"lambada_test.jsonl, line 1: not JSON"):
        prepare_tasks(["lambada"], str(tmp_path), settings=Settings())


def test_rows_of_the_hub_that_lack_a_column(tmp_path, monkeypatch):
    class Rows(list):
        _fingerprint = "f00d"

    import sys
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    library = ModuleType("datasets")
    library.__spec__ = ModuleSpec("datasets", None)
    library.load_dataset = lambda path, config, split: Rows([{"question": "q"}])
    monkeypatch.setitem(sys.modules, "datasets", library)
    for name in ("piqa", "arc_easy", "boolq", "mmlu", "race_middle", "triviaqa_0shot", "gsm8k", "humaneval_1", "truthfulqa"):
        with pytest.raises(DataError, match=rf"the hub's rows of hub:.* are not what {name} expects"):
            prepare_tasks([name], str(tmp_path), settings=Settings())


def test_fault_in_words():
    kind = {"a": str, "b": [{"c": int}]}
    assert json_fault({"a": "x", "b": [{"c": 1}], "more": None}, kind) == ""
    assert json_fault({"a": "x", "b": [{"c": True}]}, kind) == "'b[0].c' should be a whole number, got True"
    assert json_fault({"a": "\ud800", "b": []}, kind) == "'a' should be valid Unicode text, and holds half of a surrogate pair"
    assert json_fault({"a": "x", "b": []}, kind) == "'b' should be a list that is not empty, got []"
    assert json_fault([], kind) == "expected an object with 'a', 'b', got []"


@pytest.mark.parametrize("text, context, word", [
    ("hear me speak", "hear me", "speak"), ("hear me speak ", "hear me", "speak"), ("hear me speak \n", "hear me", "speak"),
    (" hear me  speak\t", " hear me ", "speak")])
def test_the_last_word_of_lambada(text, context, word, tmp_path):
    write(tmp_path, "lambada/lambada_test.jsonl", json.dumps({"text": text}))
    [job] = prepare_tasks(["lambada"], str(tmp_path), settings=Settings())
    [item] = job.items
    assert (item.requests[0].context, item.requests[0].continuation, item.gold) == (context, f" {word}", word)
