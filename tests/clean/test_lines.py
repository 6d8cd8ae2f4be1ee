"""Line-level deduplication: against a set in memory, over any division into files and parts."""

import random

import numpy as np
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.clean import lines as lines_module
from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.kinds import KINDS
from llama_jax.clean.lines import CompareLines, HashLines, RemoveLines, hash_lines, normalize_line, remove_lines
from llama_jax.clean.stages import Workplace
from tests.clean.webpages import clean_pages, web_archive


def test_normalisation():
    assert normalize_line("  Événement n° 42 – «Été» 2019! ") == "evenement n 00 ete 0000"
    assert normalize_line("Read   more...") == normalize_line("READ MORE") == "read more"
    assert normalize_line("*** | --- _ ©") == ""
    assert normalize_line("Привет, мир") == "привет мир"
    assert hash_lines("a\n***\nA.").tolist()[1] == 0
    # SHA-1 of "abc" is a9993e364706816a ba3e..., FIPS 180
    assert hash_lines("ABC").tolist() == [0xA9993E364706816A]


def test_a_line_without_words_goes_with_the_line_before():
    text = "---\nfirst\n***\nsecond\n}\nthird\n}"
    gone = np.array([False, True, False, False, False, True, False])
    assert remove_lines(text, gone, hashes=hash_lines(text)) == "---\nsecond\n}"
    assert remove_lines("---\nfirst\n**", np.array([False, True, False]), hashes=hash_lines("---\nfirst\n**")) == ""


def expected(tasks: list[list[str]]) -> list[list[str]]:
    """The documents that stay, by a set of the lines seen."""
    seen: set[str] = set()
    result = []
    for documents in tasks:
        result.append([])
        for text in documents:
            kept = []
            for line in text.split("\n"):
                if normalize_line(line) not in seen:
                    kept.append(line)
                seen.add(normalize_line(line))
            if kept:
                result[-1].append("\n".join(kept))
    return result


WORDS = st.sampled_from(["alpha", "Alpha!", "beta", "gamma 1", "gamma 2", "delta", "épsilon", "epsilon"])
TASKS = st.lists(st.lists(st.lists(WORDS, min_size=1, max_size=5).map("\n".join), max_size=4), min_size=1, max_size=4)


@settings(max_examples=40)
@given(TASKS, st.integers(1, 5))
def test_the_first_occurrence_stays(tmp_path_factory, tasks, parts):
    folder = tmp_path_factory.mktemp("lines")
    for rank, documents in enumerate(tasks):
        list(HashLines(folder).run(iter([Document(text, str(i)) for i, text in enumerate(documents)]), rank, len(tasks)))
    for part in range(parts):
        CompareLines(folder, len(tasks)).run(None, part, parts)
    found = []
    for rank, documents in enumerate(tasks):
        step = RemoveLines(folder, examples=folder / "examples")
        kept = step.run(iter([Document(text, str(i)) for i, text in enumerate(documents)]), rank, len(tasks))
        found.append([document.text for document in kept])
    assert found == expected(tasks)


def test_a_thousand_planted_lines(tmp_path, play):
    """Copies in other files, later in the same file and in the same document, in other case, digits and punctuation."""
    draw = random.Random(0)
    verses = list({normalize_line(line): line for line in play.split("\n") if len(line) > 25}.values())[:3000]
    pages = [verses[i : i + 15] for i in range(0, 3000, 15)]
    planted = 0
    crowded = []
    for number, page_lines in enumerate(pages):
        copies = draw.sample(verses[: 15 * number + 15], 5)
        planted += 5
        changes = draw.choices((str.upper, str.title, "{}!".format, "« {} »".format), k=5)
        crowded.append([*page_lines, *(change(copy) for change, copy in zip(changes, copies, strict=True))])
    assert planted == 1000
    (tmp_path / "in").mkdir()
    for file in range(4):
        texts = ["\n".join(page_lines) for page_lines in crowded[50 * file : 50 * file + 50]]
        (tmp_path / "in" / f"{file}.wet.gz").write_bytes(web_archive(*texts, kind="conversion"))
    documents = clean_pages(tmp_path / "in", tmp_path / "out", languages=())
    assert [document["text"].split("\n") for document in documents] == pages


def test_parts_depend_on_the_input_alone(tmp_path, monkeypatch):
    (tmp_path / "a.wet").write_bytes(bytes(1000))
    place = Workplace(find_input_files((str(tmp_path),), KINDS["commoncrawl"]), tmp_path / "out")
    assert lines_module.deduplicate_lines_stage(place).tasks == 1
    monkeypatch.setattr(lines_module, "_INPUT_PER_PART", 300)
    assert lines_module.deduplicate_lines_stage(place).tasks == 4
