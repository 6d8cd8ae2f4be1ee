"""NaturalQuestions and TriviaQA: prompts, worked examples and scores on real records."""

import gzip
import json
import shutil

import pytest

from llama_jax.errors import DataError
from llama_jax.evaluation.data import OfficialFiles
from llama_jax.evaluation.task import GenerationAnswer, Settings
from llama_jax.evaluation.tasks.closed_book import TASKS

BY_NAME = {task.name: task for task in TASKS}


def items(name, folder, **settings):
    task, settings = BY_NAME[name], Settings(**settings)
    return task.build(task.read(OfficialFiles(folder, task.origin), settings), settings)


def test_prompts_of_real_records(shared_data):
    found = items("natural_questions_0shot", shared_data / "eval")
    assert len(found) == 200 and found[0].gold == ["1988"] and found[2].gold == ["Salzburg, Austria", "Austria"]
    assert found[0].requests[0].text == "Answer these questions:\nQ: The last time la dodgers won the world series?\nA:"
    assert found[0].requests[0].stop == ("\n",) and found[0].requests[0].temperature == 0
    trivia = items("triviaqa_0shot", shared_data / "eval")
    assert len(trivia) == 32 and trivia[1].gold == ["Scorpio", "Skorpio", "Scorpio (disambiguation)"]
    assert trivia[1].requests[0].text == "Answer these questions:\nQ: What star sign is Jamie Lee Curtis?\nA:"


def test_prompts_of_that_harness(shared_data):
    nq = items("natural_questions_0shot", shared_data / "eval", protocol="lm_eval")[0].requests[0]
    assert nq.text == "Answer these questions:\n\nQ: the last time la dodgers won the world series?\nA:"
    assert nq.stop == ("\n", ".", ",")
    trivia = items("triviaqa_0shot", shared_data / "eval", protocol="lm_eval")[1].requests[0].text
    assert trivia == "Question: What star sign is Jamie Lee Curtis??\nAnswer:"


@pytest.mark.parametrize("asked, printed", [
    ("who wrote the book the origin of species", "Who wrote the book the origin of species?"),
    ("Who wrote it?", "Who wrote it?"), ("élan vital is whose idea ", "Élan vital is whose idea?"),
    ("9 x 9 is what", "9 x 9 is what?"), ("a", "A?")])
@pytest.mark.parametrize("protocol", ["llama", "raw"])
def test_questions_of_nq_are_printed_as_in_figure_3(asked, printed, protocol, tmp_path):
    """Capital letter and question mark: in question and worked examples, not in lm-evaluation-harness's protocol or TriviaQA."""
    (tmp_path / "nq_open").mkdir()
    (tmp_path / "nq_open/NQ-open.dev.jsonl").write_text(json.dumps({"question": "what else", "answer": ["b"]}))
    (tmp_path / "nq_open/NQ-open.train.jsonl").write_text(json.dumps({"question": asked, "answer": ["Ada"]}))
    text = items("natural_questions_1shot", tmp_path, protocol=protocol)[0].requests[0].text
    assert text == f"Answer these questions:\nQ: {printed}\nA: Ada\nQ: What else?\nA:"
    (tmp_path / "triviaqa").mkdir()
    (tmp_path / "triviaqa/triviaqa_small.jsonl").write_text(json.dumps(
        {"context": f"Question: {asked}\nAnswer:", "answer": "Ada", "aliases": []}))
    assert items("triviaqa_0shot", tmp_path)[0].requests[0].text.endswith(f"Q: {asked}\nA:")


@pytest.mark.parametrize("shots", [1, 5, 64])
def test_worked_examples_are_other_questions_with_their_answers(shots, shared_data):
    rows = [json.loads(line) for line in (shared_data / "eval/nq_open/NQ-open.dev.jsonl").read_text().splitlines()]
    questions = [row["question"][0].upper() + row["question"][1:] + "?" for row in rows]
    solved = {f"Q: {question}\nA: {row['answer'][0]}" for question, row in zip(questions, rows, strict=True)}
    found = items(f"natural_questions_{shots}shot", shared_data / "eval")
    for item, question in zip(found[:20], questions, strict=False):
        head, *lines = item.requests[0].text.split("\n")
        pairs = ["\n".join(lines[n : n + 2]) for n in range(0, 2 * shots, 2)]
        assert head == "Answer these questions:" and lines[2 * shots :] == [f"Q: {question}", "A:"]
        assert len(set(pairs)) == shots and set(pairs) <= solved and not any(question in pair for pair in pairs)
        assert item.tags == {"worked examples": f"{shots} from nq_open/NQ-open.dev.jsonl"}
    assert found == items(f"natural_questions_{shots}shot", shared_data / "eval")
    assert found != items(f"natural_questions_{shots}shot", shared_data / "eval", seed=1)
    assert items("natural_questions_0shot", shared_data / "eval", num_fewshot=shots)[3].requests == found[3].requests


def test_the_training_file_gives_the_worked_examples_where_it_is(shared_data, tmp_path):
    shutil.copytree(shared_data / "eval/nq_open", tmp_path / "nq_open")
    (tmp_path / "nq_open/NQ-open.train.jsonl").write_text('{"question": "who wrote it", "answer": ["Ada", "Ada L"]}\n')
    found = items("natural_questions_5shot", tmp_path)[0]
    assert found.requests[0].text.startswith("Answer these questions:\nQ: Who wrote it?\nA: Ada\nQ: The last time")
    assert found.tags == {"worked examples": "1 from nq_open/NQ-open.train.jsonl"}


def test_the_official_file_of_triviaqa(shared_data, tmp_path):
    (tmp_path / "triviaqa").mkdir()
    for kind in "web", "wikipedia":  # the same question in both counts once
        shutil.copy(shared_data / "eval/triviaqa/triviaqa_sample.json", tmp_path / f"triviaqa/{kind}-dev.json")
    [item] = items("triviaqa_0shot", tmp_path)
    assert item.gold == ["Sunset Boulevard", "Sunset Blvd", "West Sunset Boulevard", "Sunset Bulevard", "Sunset Blvd."]
    assert "Q: Which Lloyd Webber musical premiered in the US on 10th December 1993?\nA:" in item.requests[0].text


@pytest.mark.parametrize("text, right, harness", [
    (" 1988\nQ: who", 1, 1), (" 1988.", 1, 1), (" In 1988", 0, 0), (" the 1988, again", 1, 1), (" 1988. It was", 0, 1),
    ("", 0, 0)])
def test_scores(text, right, harness, shared_data):
    task = BY_NAME["natural_questions_0shot"]
    found = items(task.name, shared_data / "eval")[:1]
    [verdict] = task.judge(found, [[GenerationAnswer((text,))]], settings=Settings())
    assert verdict.metrics == {"exact_match": right, "exact_match_cut_at_dot": harness}


@pytest.mark.parametrize("content, message", [
    (None, "NQ-open.dev.jsonl is missing; get it from https://github.com"),
    ('{"question": "a", "answer": ["b"]}\n{"question": "c", "ans', "line 2: not JSON"),
    ('{"question": "a"}', "line 1: expected an object with 'question', 'answer', and 'answer' is missing"),
    ('{"question": "a", "answer": []}', "record 1: the answer should be a list of texts, got"),
    ('{"question": "a\\ud83d", "answer": ["b"]}', "line 1: 'question' should be valid Unicode text, and holds half"),
    ("[" * 100_000, r"line 1: not JSON \(maximum recursion depth"),
    ("", "holds no record")])
def test_bad_files(content, message, tmp_path):
    (tmp_path / "nq_open").mkdir()
    if content is not None:
        (tmp_path / "nq_open/NQ-open.dev.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        items("natural_questions_0shot", tmp_path)


@pytest.mark.parametrize("content, message", [
    ('{"Data": []}', '"Data" should be a list of questions'),
    ('{"Data": [{"Question": "a"}]}', "expected a Question and an Answer"),
    ('{"Data": [{"Question": "a", "Answer": {"Aliases": ["b"]}}]}', "expected a Question and an Answer"),
    ('{"Data": [', "cut short"), (None, "wikipedia-dev.json is missing; get it from https://nlp.cs.washington.edu/triviaqa")])
def test_bad_official_files_of_triviaqa(content, message, tmp_path):
    (tmp_path / "triviaqa").mkdir()
    if content is not None:
        (tmp_path / "triviaqa/web-dev.json").write_text(content)
    with pytest.raises(DataError, match=message):
        items("triviaqa_0shot", tmp_path)


def test_the_hub_gives_the_same(shared_data):
    def rows(path, config, split):
        if path == "google-research-datasets/nq_open":
            return [json.loads(line) for line in (shared_data / "eval/nq_open/NQ-open.dev.jsonl").read_text().splitlines()]
        data = json.loads((shared_data / "eval/triviaqa/triviaqa_sample.json").read_text())["Data"]
        return [{"question_id": row["QuestionId"], "question": row["Question"],
                 "answer": {"value": row["Answer"]["Value"], "aliases": row["Answer"]["Aliases"]}} for row in data] * 2

    nq, trivia, settings = BY_NAME["natural_questions_0shot"], BY_NAME["triviaqa_0shot"], Settings()
    assert nq.build(nq.hub(rows, settings), settings) == items(nq.name, shared_data / "eval")
    [item] = trivia.build(trivia.hub(rows, settings), settings)
    assert item.gold == ["Sunset Boulevard", "Sunset Blvd", "West Sunset Boulevard", "Sunset Bulevard", "Sunset Blvd."]
    with_shots = nq.build(nq.hub(rows, Settings(num_fewshot=5)), Settings(num_fewshot=5))
    assert with_shots[0].tags == {"worked examples": "5 from the hub's train split"}


def test_marks_line_ends_and_blank_lines_are_no_content(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": "one\\u2028"}\r\n\r\n{"a": "two\xc2\x85"}\r\n')
    assert [row["a"] for row in OfficialFiles(tmp_path).read_jsonl("x.jsonl", {"a": str})] == ["one\u2028", "two\x85"]


def test_a_damaged_gz_is_named(tmp_path):
    """A gzip file is refused wherever it is damaged."""
    whole = gzip.compress(bytes(range(256)) * 40)
    for at in range(10, len(whole), 7):
        (tmp_path / "x.gz").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"cannot read .*x.gz: .*; get it anew"):
            OfficialFiles(tmp_path).read_bytes("x.gz")
