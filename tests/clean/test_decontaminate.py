"""Decontamination: what stands in an evaluation set is cut out of documents, and of other texts nothing."""

import bz2
import gzip
import json
import pickle
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.clean.decontaminate import (
    Decontaminator,
    EvaluationText,
    NgramIndex,
    build_ngram_index,
    count_documents,
    decontaminate,
    read_evaluation_texts,
    split_words,
    word_spans,
)
from llama_jax.errors import DataError
from llama_jax.evaluation.tasks.catalogue import all_tasks

QUESTION = "Which of the seven bridges that cross the river was built before the old town hall burned down in 1723?"
"""Twenty words."""


def index_of(*texts: str, whole: bool = True) -> NgramIndex:
    return build_ngram_index([EvaluationText("set", text, whole) for text in texts])


def filler(length: int, seed: int = 0) -> str:
    """Words of no meaning, each of five characters with its space, so that `length` should be a multiple of five."""
    rng = random.Random(seed)
    return "".join("".join(rng.choices("bcdfghjklm", k=4)) + " " for _ in range(length // 5))


@pytest.fixture(scope="module")
def evaluation(shared_data) -> tuple[list[EvaluationText], list[str]]:
    return read_evaluation_texts(shared_data / "eval")


@pytest.fixture(scope="module")
def real_index(evaluation) -> NgramIndex:
    return build_ngram_index(evaluation[0])


def test_a_word_is_lower_case_without_punctuation():
    assert split_words("The  cat's “best-known” trick,\n(e.g.) _A_ 3.5% — don't!") == [
        "the", "cats", "bestknown", "trick", "eg", "a", "35", "dont"]


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from(" \n\t.,-_aAİΣ\x1c\u3000\u0307"))))
def test_every_word_has_its_place(text):
    spans = word_spans(text)
    assert [split_words(text[begin:end]) for begin, end in spans] == [[word] for word in split_words(text)]


@pytest.mark.parametrize("variant", [
    QUESTION, QUESTION.upper(), QUESTION.replace(" ", "\n "), QUESTION.replace(" ", " - "), f"({QUESTION})",
    " ".join(QUESTION.split()[:13]), " ".join(QUESTION.split()[-13:]),
])
def test_a_match_and_200_characters_on_either_side_are_cut_out(variant):
    before, after = filler(1000, 1), " " + filler(1500, 2)
    pieces, hits = decontaminate(before + variant + after, index_of(QUESTION))
    assert pieces == [before[:-200], after[200:]]
    assert hits == {"set": len(split_words(variant)) - 12}


def test_twelve_words_of_a_longer_text_are_no_match():
    text = filler(1000, 1) + " ".join(QUESTION.split()[:12]) + " " + filler(1000, 2)
    assert decontaminate(text, index_of(QUESTION)) == ([text], {})


def test_texts_of_eight_to_twelve_words_match_as_a_whole():
    short = "who wrote the song that the sailors sang"
    text = f"{filler(1000, 1)} Who wrote the song that the sailors sang? {filler(1000, 2)}"
    assert decontaminate(text, index_of(short)).hits == {"set": 1}
    assert decontaminate(text, index_of(short, whole=False)) == ([text], {})
    assert decontaminate(text, index_of(short.rpartition(" ")[0])) == ([text], {}), "seven words"
    sung = text.replace("sang", "sung")
    assert decontaminate(sung, index_of(short)) == ([sung], {})


@pytest.mark.parametrize("before, after, kept", [(398, 398, []), (399, 398, ["x" * 200]), (398, 399, ["y" * 200]), (0, 0, [])])
def test_pieces_below_200_characters_are_dropped(before, after, kept):
    """Of each side, the window takes 200 characters, the space beside the match included."""
    assert decontaminate(f"{'x' * before} {QUESTION} {'y' * after}", index_of(QUESTION)).pieces == kept


@pytest.mark.parametrize("matches, kept", [(9, 10), (10, 0)])
def test_a_document_in_more_than_ten_pieces_is_dropped(matches, kept):
    text = QUESTION.join(filler(1000, seed) for seed in range(matches + 1))
    assert len(decontaminate(text, index_of(QUESTION)).pieces) == kept


def test_matches_side_by_side_are_cut_out_together():
    text = filler(1000, 1) + f"{QUESTION} {filler(300, 2)}" * 12 + filler(1000, 3)
    pieces, hits = decontaminate(text, index_of(QUESTION))
    assert pieces == [text[:800], text[text.rindex("1723?") + 5 + 200:]] and hits == {"set": 12 * 8}


def test_ngrams_of_more_than_ten_documents_are_ignored():
    other = QUESTION.replace("seven", "eight")
    index = index_of(QUESTION, other)
    documents = [f"{filler(500, seed)} {QUESTION}" for seed in range(10)] + [f"{QUESTION} {QUESTION}"] + [other]
    counts = count_documents(documents, index)
    assert {number: sorted(some.tolist()) for number, some in counts.items()} == {13: [1] * 4 + [11] * 4 + [12] * 4}
    parts = [count_documents(some, index) for some in (documents[:5], documents[5:])]
    np.testing.assert_array_equal(parts[0][13] + parts[1][13], counts[13])

    rare = index.without_frequent(counts)
    assert decontaminate(documents[0], rare) == ([documents[0]], {})
    assert decontaminate(documents[-1], rare).hits == {"set": 4}, "those with the word that the others lack"
    assert index.without_frequent(counts, most=12).hashes[13].tolist() == index.hashes[13].tolist()
    assert index.without_frequent(counts, most=0).hashes == {}


def test_numbers_alone_are_no_evidence():
    calendar = " ".join(map(str, range(1, 32)))
    text = filler(1000) + calendar
    assert decontaminate(text, index_of(f"assert days() == [{calendar}]")) == ([text], {})
    assert decontaminate(f"x {QUESTION}", index_of(QUESTION)).hits


def test_every_set_of_the_project_is_read(evaluation):
    """All tasks but `perplexity`, which measures files of the user's; LAMBADA's file is not among the samples."""
    texts, missing = evaluation
    assert missing == ["lambada"]
    sets = dict.fromkeys(text.set_name for text in texts)
    assert list(sets) == [
        "boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa", "natural_questions",
        "triviaqa", "race_middle", "race_high", "gsm8k", "minerva_math", "humaneval", "mbpp", "mmlu", "realtoxicityprompts",
        "crows_pairs", "winogender", "truthfulqa"]
    assert {task for task in all_tasks() if not any(task.startswith(name) for name in sets)} == {"lambada", "perplexity"}


def test_what_of_an_item_is_searched_for(evaluation):
    """Passages, sentences with their blanks filled, solutions; no worked example of a prompt."""
    by_set: dict[str, list[EvaluationText]] = {}
    for text in evaluation[0]:
        by_set.setdefault(text.set_name, []).append(text)

    def holds(name: str, part: str) -> bool:
        return any(part in text.text for text in by_set[name])

    assert holds("boolq", "does ethanol take more energy make that produces")
    assert holds("winogrande", "Sarah was a much better surgeon than Maria so Maria always got the easier cases")
    assert holds("gsm8k", "Janet sells 16 - 3 - 4 =")
    assert not holds("gsm8k", "There are 15 trees in the grove")


def test_a_planted_item_of_every_set_is_caught(evaluation, real_index, play):
    """The longest text of each of a few items, in the middle of a play."""
    for name in real_index.sets:
        texts = [text for text in evaluation[0] if text.set_name == name]
        planted = [text.text for text in texts if len(split_words(text.text)) >= (8 if text.whole else 13)]
        assert len(planted) > len(texts) / 8, name
        for text in random.Random(0).sample(planted, min(5, len(planted))):
            if sum(any(map(str.isalpha, word)) for word in split_words(text)) < 8:
                continue  # test cases of numbers
            pieces, hits = decontaminate(f"{play[:2000]}\n\n{text}\n\n{play[2000:4000]}", real_index)
            assert hits[name] >= 1, text
            assert len(pieces) >= 2 and pieces[0] == play[: len(pieces[0])] and pieces[-1] == play[4000 - len(pieces[-1]) : 4000]


def test_real_texts_lose_nothing(shared_data, real_index):
    """Web pages, an encyclopedia, questions and answers, books and a paper: 8.9 MB without a match."""
    corpus, texts = shared_data / "corpus", []
    for file in sorted((corpus / "c4").iterdir()):
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt") as lines:
            texts += [json.loads(line)["text"] for line in lines]
    with bz2.open(corpus / "wikipedia/enwiki-shortened.xml.bz2", "rt") as stream:
        texts += stream.read().split("<page>")
    texts += re.split(r"<row ", (corpus / "stackexchange/coffee-Posts.xml").read_text("utf-8-sig"))
    texts += [file.read_text(errors="replace") for kind in ("books", "arxiv") for file in (corpus / kind).iterdir()]
    clean = Decontaminator(real_index)
    assert all(clean(text) == [text] for text in texts)
    report = clean.report()
    assert (report["documents"], report["cut"], report["dropped"], report["removed_characters"]) == (len(texts), 0, 0, 0)
    assert len(texts) > 800 and set(report["sets"]) == set(real_index.sets)
    assert {tuple(counts.values()) for counts in report["sets"].values()} == {(0, 0)}


def test_counts():
    index = build_ngram_index([EvaluationText("one", QUESTION, True), EvaluationText("two", QUESTION, True),
                               EvaluationText("three", "nothing of this is in any document that is looked at here", True)])
    clean = Decontaminator(pickle.loads(pickle.dumps(index)))
    assert clean("a document") == ["a document"]
    assert len(clean(filler(1000) + QUESTION)) == 1
    assert clean(QUESTION) == []
    assert clean.report() == {
        "documents": 3, "cut": 1, "dropped": 1, "removed_characters": 200 + 2 * len(QUESTION),
        "sets": {"one": {"documents": 2, "ngrams": 16}, "two": {"documents": 2, "ngrams": 16},
                 "three": {"documents": 0, "ngrams": 0}}}


def test_a_folder_without_sets(tmp_path):
    with pytest.raises(DataError, match=r"holds no evaluation set; name the folder that eval\.py takes as --data_dir"):
        read_evaluation_texts(tmp_path)
    (tmp_path / "boolq").mkdir()
    (tmp_path / "boolq/dev.jsonl").write_text('{"question": ')
    with pytest.raises(DataError, match=r"boolq/dev.jsonl, line 1: not JSON"):
        read_evaluation_texts(tmp_path)
