"""Wikipedia: which pages of a dump are articles, what is known of them, and real articles without markup."""

import bz2
import gzip
import json
from types import SimpleNamespace

import pytest

from llama_jax.clean import wikipedia
from llama_jax.clean.items import DamagedInput, Dropped, InputFile, RawDocument
from llama_jax.clean.report import collect_counts
from llama_jax.clean.stages import Workplace, run_stages
from llama_jax.clean.steps import ReadDocuments
from llama_jax.clean.wikipedia import keep_language, read_wikipedia, recipe
from llama_jax.clean.wikitext import wikitext_to_prose

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="de">
<siteinfo><sitename>Wikipedia</sitename><dbname>dewiki</dbname><base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
<namespaces><namespace key="0" /></namespaces></siteinfo>
"""
PAGE = """<page><title>{title}</title><ns>{ns}</ns><id>7</id>{more}<revision><id>8</id><timestamp>2022-06-01T00:00:00Z</timestamp>
<contributor><username>Title</username><id>9</id></contributor><model>{model}</model><text>{text}</text></revision></page>
"""


def page(text: str, title: str = "Käse &amp; Brot", ns: str = "0", more: str = "", model: str = "wikitext") -> str:
    return PAGE.format(title=title, ns=ns, more=more, text=text, model=model)


def read(folder, text: str | bytes, name: str = "dewiki.xml") -> list[RawDocument | Dropped]:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_wikipedia(folder / name))


def test_an_article(tmp_path):
    [item] = read(tmp_path, HEAD + page("'''Käse''' &lt;ref&gt;") + "</mediawiki>")
    assert item == RawDocument("'''Käse''' <ref>", "7", {
        "title": "Käse & Brot", "language": "de", "timestamp": "2022-06-01T00:00:00Z",
        "url": "https://de.wikipedia.org/wiki/K%C3%A4se_%26_Brot"})


def test_what_is_no_article(tmp_path):
    pages = [page("a", ns="1"), page("#R", more='<redirect title="b" />'), page("{}", model="json"), page(" "), page("kept")]
    items = read(tmp_path, HEAD + "".join(pages) + "</mediawiki>")
    assert [str(item) for item in items[:4]] == ["not an article", "redirect", "not wikitext", "no text or title"]
    assert len(items) == 5 and items[4].text == "kept"


def test_the_last_revision_counts(tmp_path):
    old = "<revision><id>1</id><timestamp>2001-01-01T00:00:00Z</timestamp><text>old</text></revision>"
    [item] = read(tmp_path, HEAD + page("new", more=old) + "</mediawiki>")
    assert (item.text, item.metadata["timestamp"]) == ("new", "2022-06-01T00:00:00Z")


@pytest.mark.parametrize(("head", "name", "language"), [
    (HEAD, "enwiki.xml", "de"),
    (HEAD.replace("dewiki", "be_x_oldwiki"), "a.xml", "be-x-old"),
    (HEAD.replace("dewiki", "dewiktionary"), "a.xml", "de"),
    ("<mediawiki>", "frwiki-20220601-pages-articles1.xml-p1p9.xml", "fr"),
    ("<mediawiki>", "dump.xml", ""),
])
def test_languages(tmp_path, head, name, language):
    [item] = read(tmp_path, head + page("a") + "</mediawiki>", name)
    assert item.metadata["language"] == language


def test_keep_language():
    assert keep_language("a", {"language": ""}, languages=()) == "a"
    assert keep_language("a", {"language": "de"}, languages=("de", "en")) == "a"
    with pytest.raises(Dropped, match="language ja"):
        keep_language("a", {"language": "ja"}, languages=("de", "en"))
    with pytest.raises(Dropped, match="language unknown"):
        keep_language("a", {"language": ""}, languages=("de", "en"))


BOMB = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<mediawiki>&b;</mediawiki>"""


@pytest.mark.parametrize(("text", "message"), [
    (BOMB, "document type"),
    ("<a>" * 60, "within each other"),
    ("no XML", "damaged XML"),
    ("", "damaged XML"),
    ("<mediawiki>\0</mediawiki>", "damaged XML"),
])
def test_damaged_files(tmp_path, text, message):
    with pytest.raises(DamagedInput, match=message):
        read(tmp_path, text)


def test_what_comes_before_the_damage_stays(tmp_path):
    text = (HEAD + page("one") + page("two") + "<page><title>thr").encode()
    for name, data in (("a.xml", text), ("a.xml.gz", gzip.compress(text)[:-5]), ("a.xml.bz2", bz2.compress(text + b"&&"))):
        (tmp_path / name).write_bytes(data)
        items = []
        with pytest.raises(DamagedInput):
            for item in read_wikipedia(tmp_path / name):
                items.append(item.text)
        assert items == ["one", "two"], name


def test_a_page_without_end_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(wikipedia, "LONGEST_PAGE", 1 << 20)
    [item, other] = read(tmp_path, HEAD + page("a" * ((1 << 20) + 1)) + page("b") + "</mediawiki>")
    assert isinstance(item, Dropped) and str(item) == "a page of more than 1 million characters" and other.text == "b"
    monkeypatch.setattr(wikipedia, "MAX_BYTES", 1 << 20)
    with pytest.raises(DamagedInput, match="a tag of more than 1 MiB"):
        read(tmp_path, "<mediawiki a='" + "b" * (3 << 20) + "'/>")


@pytest.fixture(scope="module")
def articles(shared_data) -> dict[str, str]:
    """The real dump: title -> text, or the reason why it was dropped."""
    result = {}
    for item in read_wikipedia(shared_data / "corpus/wikipedia/enwiki-shortened.xml.bz2"):
        if isinstance(item, RawDocument):
            try:
                result[item.metadata["title"]] = wikitext_to_prose(item.text, item.metadata)
            except Dropped as dropped:
                result[item.metadata["title"]] = f"dropped: {dropped}"
    return result


def test_real_pages(shared_data):
    """Of 206 pages 99 are redirects and one is in the namespace Wikipedia (counted with grep)."""
    items = list(read_wikipedia(shared_data / "corpus/wikipedia/enwiki-shortened.xml.bz2"))
    dropped = [str(item) for item in items if isinstance(item, Dropped)]
    assert (len(items), dropped.count("redirect"), dropped.count("not an article"), len(dropped)) == (206, 99, 1, 100)


def test_real_disambiguation_pages(articles):
    assert sorted(title for title, text in articles.items() if text.startswith("dropped")) == [
        "Aa River", "Aberdeen (disambiguation)", "Ada", "Alien", "Animal (disambiguation)", "Argument (disambiguation)",
        "Asia Minor (disambiguation)", "Austin (disambiguation)"]


MARKUP = ["{{", "}}", "[[", "]]", "<ref", "{|", "'''", "''", "==", "|-", "style=", "File:", "thumb|", "||", "&nbsp;", "http",
          "()", "\2", "\3", "\4", "\5", "(,", ",)", "\nReferences\n", "\nSee also\n", "\nExternal links\n", "\n\n\n"]


@pytest.mark.parametrize("markup", MARKUP)
def test_no_markup_is_left_in_real_articles(articles, markup):
    assert not [title for title, text in articles.items() if markup in text]


def test_real_articles_to_the_letter(articles):
    assert articles["Aristotle"].startswith(
        "Aristotle\n\nAristotle (Ἀριστοτέλης, Aristotélēs; 384–322 BC) was a Greek philosopher and scientist born in the city of "
        "Stagira, Chalkidice, on the northern periphery of Classical Greece. His father, Nicomachus, died when")
    assert articles["Acid"].startswith(
        "Acid\n\nAn acid (from the Latin acidus/acēre meaning sour) is a chemical substance whose aqueous solutions are "
        "characterized by a sour taste, the ability to turn blue litmus red, and the ability to react with bases and")
    assert "diameter is:\n$A =\\left ( \\frac{1329\\times10^{-H/5} }{D} \\right ) ^2$,\n" in articles["Albedo"]
    assert "acyclic or open-chain compounds) have the general chemical formula CnH2n+2. For example" in articles["Alkane"]
    assert "The highest point is Mount Tahat (3003 m)." in articles["Algeria"]
    assert "acids are often generalized in the form HA ⇌ H⁺ + A⁻" in articles["Acid"]
    assert articles["Algorithms (journal)"].count("\n") < 12


def test_the_recipe(tmp_path):
    (tmp_path / "dewiki.xml").write_text(HEAD + page("Käse ist gut. {{x}}") + page("{{Begriffsklärung}}") + "</mediawiki>")
    (tmp_path / "jawiki.xml").write_text(HEAD.replace("dewiki", "jawiki") + page("日本") + "</mediawiki>")
    files = [InputFile(tmp_path / name, name) for name in ("dewiki.xml", "jawiki.xml")]
    place = Workplace(files, tmp_path / "out")
    assert run_stages(recipe(place, SimpleNamespace(languages=None)), place, settings={})
    [document] = [document for rank in range(2) for document in ReadDocuments(tmp_path / "out").run(rank=rank)]
    assert (document.id, document.text) == ("dewiki.xml/7", "Käse & Brot\n\nKäse ist gut.")
    dropped = {reason: number for step in collect_counts(tmp_path / "out") for reason, (number, _) in step.dropped.items()}
    assert dropped == {"language ja": 1, "disambiguation page": 1}
    assert json.loads((tmp_path / "out/settings.json").read_text())["files"]
    place = Workplace(files, tmp_path / "japanese")
    assert run_stages(recipe(place, SimpleNamespace(languages=("ja",))), place, settings={})
    [document] = [document for rank in range(2) for document in ReadDocuments(tmp_path / "japanese").run(rank=rank)]
    assert document.text == "Käse & Brot\n\n日本"
