"""C4: lines and pages by the rules of Raffel et al. (2020), one language, whole pages once, spans of three sentences once."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.clean.c4 import (
    bad_words_pattern,
    check_page,
    check_sentences,
    drop_spans,
    filter_lines,
    read_pages,
    recipe,
    words_of_page,
    words_of_spans,
)
from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.items import Dropped
from llama_jax.clean.kinds import KINDS
from llama_jax.clean.report import collect_counts
from llama_jax.clean.sentences import split_sentences
from llama_jax.clean.stages import Workplace, run_stages
from llama_jax.cli.clean_options import CleanOptions
from llama_jax.errors import ConfigError, DataError


@pytest.mark.parametrize(("text", "sentences"), [
    ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
    ("Mr. Darcy came at 5 p.m. on Monday. He left.", ["Mr. Darcy came at 5 p.m. on Monday. ", "He left."]),
    ("J. R. R. Tolkien wrote it. “Did he?” “Yes.”", ["J. R. R. Tolkien wrote it. ", "“Did he?” ", "“Yes.”"]),
    ("It cost 3.50 in the U.S. market. www.example.com is a site.", ["It cost 3.50 in the U.S. market. ",
                                                                     "www.example.com is a site."]),
    ("He said so (twice.) And left…  Then came back.", ["He said so (twice.) ", "And left…  ", "Then came back."]),
    ("Ein Satz. Über den zweiten. und kein dritter.", ["Ein Satz. ", "Über den zweiten. und kein dritter."]),
    ("A line\nis a sentence\n\n", ["A line\n", "is a sentence\n", "\n"]), ("今日は。元気？はい", ["今日は。", "元気？", "はい"]),
    ("", []), ("...", ["..."])])
def test_sentences(text, sentences):
    if "www" in text:
        sentences = [text]  # a small letter begins no sentence
    assert split_sentences(text) == sentences


@given(st.text(alphabet="aB1 .!?\n\"')”。é\u2028"))
def test_sentences_join_to_the_text(text):
    assert "".join(split_sentences(text)) == text


def test_lines():
    lines = {
        "This line is kept.": "", "Is this one kept?": "", 'She said "it is kept"': "", "Er sagte: “Ja, das bleibt”": "",
        "Home | About | Contact": "no mark at the end", "Read more of this ...": "no mark at the end",
        "Hello there.": "under 3 words", "Please enable Javascript in your browser.": "JavaScript",
        "By this you accept our Terms of Use.": "policy", "This site uses cookies to be better.": "policy",
        f"One {'x' * 1001} too long.": "a word over 1000 characters",
        "A claim[12] that needs one[citation needed].": ""}
    text, removed = filter_lines("\n".join(f"  {line} \n" for line in lines), least_words=3)
    assert text.splitlines() == ["This line is kept.", "Is this one kept?", 'She said "it is kept"', "Er sagte: “Ja, das bleibt”",
                                 "A claim that needs one."]
    expected = [reason for reason in lines.values() if reason]
    assert removed == {reason: expected.count(reason) for reason in expected}
    assert filter_lines("Hello there.", least_words=2)[0] == "Hello there."


@pytest.mark.parametrize(("text", "reason"), [
    ("Lorem Ipsum dolor sit amet.", "lorem ipsum"), ("function f() { return 1; }", "curly bracket"), ("a }", "curly bracket")])
def test_pages(text, reason):
    with pytest.raises(Dropped, match=reason):
        check_page(text, {})
    assert check_page("Nothing of that kind.", {}) == "Nothing of that kind."


def test_bad_words(tmp_path):
    (tmp_path / "words.txt").write_text("darn\n\nHoly  Cow\n")
    file = str(tmp_path / "words.txt")
    for text in ("Darn it.", "It is a HOLY COW!"):
        with pytest.raises(Dropped, match="bad word"):
            check_page(text, {}, bad_words=file)
    for text in ("He darned a sock.", "The unholy cow.", ""):
        assert check_page(text, {}, bad_words=file) == text
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no bad words"):
        bad_words_pattern(str(tmp_path / "empty.txt"))
    with pytest.raises(DataError, match="cannot read the bad words in .*nowhere: No such file"):  # noqa: RUF043
        bad_words_pattern(str(tmp_path / "nowhere"))


def test_number_of_sentences():
    with pytest.raises(Dropped, match="under 5 sentences"):
        check_sentences("One. Two. Three. Four.", {}, least=5)
    assert check_sentences("One. Two.\nThree. Four. Five.", {}, least=5)


def test_keys():
    assert words_of_page("Hello,  World!\nAgain.") == words_of_page("hello world again") == ["hello world again"]
    assert words_of_spans("One. Two. Three. Four.") == ["one\ntwo\nthree", "two\nthree\nfour"]
    assert words_of_spans("One. Two.") == []


def test_spans():
    text = "One. Two. Three.\nFour. Five. Six."
    assert drop_spans(text, [0]) == "Four. Five. Six."
    assert drop_spans(text, [1]) == "One.\nFive. Six."
    assert drop_spans(text, [1, 2]) == "One.\nSix."
    with pytest.raises(Dropped, match="all of its spans are repeated"):
        drop_spans(text, [0, 1, 2, 3])


GOOD = ["The harbour lay quiet in the early morning.", "Fishermen were mending their nets on the quay.",
        "A ferry came in from the islands at seven.", "Its passengers hurried to the market with baskets.",
        "By noon the square was full of voices.", "The old clock struck twelve, and nobody looked up."]
GERMAN = ["Der Hafen lag am frühen Morgen noch ganz still.", "Fischer flickten auf dem Kai ihre Netze.",
          "Um sieben Uhr kam eine Fähre von den Inseln.", "Ihre Fahrgäste eilten mit Körben zum Markt.",
          "Gegen Mittag war der Platz voller Stimmen.", "Die alte Uhr schlug zwölf, und niemand sah auf."]
OTHER = ["Rain fell on the hills for three days.", "The river rose above its banks.", "Nobody had seen such water before."]


def clean(folder: Path, pages: list[str], *, workers: int = 1, files: int = 2, **options) -> Path:
    """Clean pages in several files of JSON lines; returns the output folder."""
    (folder / "in").mkdir(parents=True)
    size = -(-len(pages) // files)
    for number in range(files):
        lines = [json.dumps({"text": text}) + "\n" for text in pages[number * size:(number + 1) * size]]
        (folder / "in" / f"{number}.jsonl").write_text("".join(lines))
    place = Workplace(find_input_files((str(folder / "in"),), KINDS["c4"]), folder / "out")
    asked = CleanOptions("c4", ("in",), "out", **options)
    assert run_stages(recipe(place, asked), place, settings={}, workers=workers)
    return folder / "out"


def dropped_at(output: Path) -> dict[str, dict[str, int]]:
    return {step.step: {reason: number for reason, (number, _) in step.dropped.items()} for step in collect_counts(output)}


def test_recipe(tmp_path, documents):
    good, german = " ".join(GOOD), "\n".join(GERMAN)
    pages = [good, german, "Menu\nHome\nLogin", "This page is short.", f"{good} {{}}", good.upper().replace(" ", "  "),
             "\n".join([*OTHER, *GOOD[:3], "All of this is new here.", "The end is not yet near."]),
             " ".join([*GOOD[1:4], *OTHER])]
    for workers in (1, 2):
        output = clean(tmp_path / str(workers), pages, workers=workers)
        kept = documents(output)
        assert [(record["id"], record["text"]) for record in kept] == [
            ("0.jsonl/0", good), ("1.jsonl/2", "\n".join([*OTHER, "All of this is new here.", "The end is not yet near."]))]
        assert kept[0]["metadata"]["language"] == "en"
        dropped = dropped_at(output)
        assert dropped["pages"] == {"curly bracket": 1} and dropped["lines"] == {"no line left": 1}
        assert dropped["sentences"] == {"under 5 sentences": 1} and dropped["language"] == {"language: de": 1}
        assert dropped["duplicates"] == {"duplicate": 1} and dropped["spans"] == {"all of its spans are repeated": 1}
    assert [record["text"] for record in documents(clean(tmp_path / "de", [german, good], languages=("de",)))] == [german]
    assert len(documents(clean(tmp_path / "all", [german, good], languages=()))) == 2


def test_repeated_within_a_page(tmp_path, documents):
    [record] = documents(clean(tmp_path, [" ".join([*GOOD, *GOOD])]))
    assert record["text"] == " ".join(GOOD)


def test_options(tmp_path, documents):
    assert documents(clean(tmp_path / "a", ["The cat sat here. It was warm."], min_sentences=2))
    short = ["The cat sat here. It was warm.\nIt is so."] * 2
    assert not documents(clean(tmp_path / "b", short, min_sentences=2, min_line_words=9))
    with pytest.raises(ConfigError, match="must be at least 0, got -1 and 3"):
        clean(tmp_path / "c", [], min_sentences=-1)
    with pytest.raises(ConfigError, match="unknown language 'klingon'"):
        clean(tmp_path / "d", [], languages=("klingon",))


def test_records(tmp_path):
    file = tmp_path / "a.json"
    file.write_bytes(b'{"text": "One.", "url": "http://a.b", "metadata": {"title": "T", "length": 4}}\n{"text": 1}\n[]\n'
                     b'{"te\n\xff\n{"text": "Two.", "metadata": "odd"}')
    items = list(read_pages(file))
    assert [str(item) if isinstance(item, Dropped) else item.text for item in items] == [
        "One.", "no `text`", "no JSON object", "no JSON", "no JSON", "Two."]
    assert items[0].metadata == {"url": "http://a.b", "title": "T"} and items[-1].metadata == {}
    assert [item.id for item in items] == ["0", "1", "2", "3", "4", "5"]


def test_real_pages(tmp_path, shared_data, documents, untimed):
    """Of the 30 pages, five are lists of links, calendars and fragments; the other 25 stay, without their menus."""
    source = shared_data / "corpus" / "c4"
    outputs = []
    for workers in (1, 2):
        place = Workplace(find_input_files((str(source),), KINDS["c4"]), tmp_path / str(workers))
        run_stages(recipe(place, CleanOptions("c4", (), "")), place, settings={}, workers=workers)
        outputs.append(documents(place.output))
    assert outputs[0] == outputs[1] and len(outputs[0]) == 25
    texts = {record["id"]: record["text"] for record in outputs[0]}
    assert "dolma_cc_en_head-0174.jsonl/9" not in texts, "headlines that are cut off"
    assert "dolma_documents_000.json.gz/8" not in texts, "a calendar"
    law = texts["dolma_documents_000.json.gz/3"]
    assert law.startswith("In Kazemi Estate v Islamic Republic of Iran, 2014 SCC 62,") and "Founding Board" not in law
    assert texts["dolma_cc_en_head-0174.jsonl/1"].startswith("Nova Scotia violinist Gillian Smith just released her debut")
