"""Web archives: reading, main text, languages, and the command as a whole."""

import gzip
import json
import re

import pytest

from llama_jax.clean.items import DamagedInput, Dropped
from llama_jax.clean.main_text import extract_html, main_text
from llama_jax.clean.warc import decode_html, read_warc
from llama_jax.errors import ConfigError, DataError
from tests.clean.webpages import clean_pages, damages, page, read_output, reasons, web_archive

ENGLISH = ("The bridge over the river was closed on Tuesday, because the water had risen by more than three metres in a night.",
           "A spokesman of the council said that nobody had been hurt, and that the road would be open again within the week.",
           "The museum on the other bank has moved its paintings to the upper floor, where they will stay until the summer.")
GERMAN = ("Die Brücke über den Fluss wurde am Dienstag gesperrt, weil das Wasser in einer Nacht um drei Meter gestiegen war.",
          "Ein Sprecher der Stadt sagte, niemand sei verletzt worden, und die Straße werde noch in dieser Woche wieder geöffnet.",
          "Das Museum am anderen Ufer hat seine Gemälde in das obere Stockwerk gebracht, wo sie bis zum Sommer bleiben werden.")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_real_pages(shared_data, tmp_path):
    documents = clean_pages(shared_data / "corpus" / "commoncrawl", tmp_path / "out")
    texts = {document["metadata"]["url"]: document["text"] for document in documents}
    assert len(texts) == 22  # 23 pages, one of them in Aragonese
    assert reasons(tmp_path / "out") == {"language: an": 1}
    facts = texts["https://soldaini.net/facts/"].splitlines()
    assert facts[:2] == ["Facts", "In no particular order, here are some facts about me:"]
    assert facts[-1].startswith("- My 10th degree academic ancestor is Siméon Denis Poisson. Find the rest of my academic")
    assert len(facts) == 11
    assert "0 | Luca Soldaini | Natural Language Processing, Information Retrieval |" in texts["https://soldaini.net/lineage/"]
    hci = texts["https://joe.cat/"]
    assert ("I obtained a PhD degree from the Language Technologies Institute at CMU specializing in Human-Computer Interaction, "
            "Sensemaking, Crowdsourcing, and Applied Machine Learning.") in hci  # which the source breaks into four lines
    posts = "https://maria-antoniak.github.io/"  # whose main part no name tells
    mastodon = texts[posts + "2023/07/04/notes-on-mastodon.html"].splitlines()
    assert mastodon[0] == "Some things to know about Mastodon"
    assert [line for line in mastodon if line in ("TL;DR", "Your server matters", "Conversations are broken")] == [
        "TL;DR", "Your server matters", "Conversations are broken"]
    assert "- There are also many good reasons to use Mastodon!" in mastodon
    assert "  process_string,\n  train_topic_model," in texts[posts + "2020/03/25/pip.html"]  # code in a <figure>
    blog = texts["https://amyxzhang.wordpress.com/"]  # eight posts
    begins = [blog.index(text) for text in ("Having Trouble Keeping Up", "Is Slack eating email?", "Year in Reviews",
                                            "What is a Neighborhood?", "Where in the World Are You?")]
    assert begins == sorted(begins)
    for text in texts.values():
        for menu in ("Skip to content", "Toggle navigation", "Search for:", "Powered by", "<p", "</", "&nbsp;"):
            assert menu not in text
        assert all(line.strip() for line in text.splitlines())
    assert all(document["metadata"]["date"].startswith("2024-04-25") for document in documents)


def test_what_is_dropped_and_why(folder, tmp_path):
    (folder / "a.warc.gz").write_bytes(web_archive(page(*ENGLISH), page("Too short."), page(*GERMAN),
                                                    "<html><body></body></html>"))
    (folder / "b.warc").write_bytes(web_archive("\x89PNG", content_type="image/png", compressed=False))
    (folder / "c.warc.gz").write_bytes(web_archive(page(*ENGLISH), status="404 Not Found"))
    (folder / "d.warc.gz").write_bytes(web_archive(page(*ENGLISH), kind="metadata"))
    documents = clean_pages(folder, tmp_path / "out")
    assert [document["text"] for document in documents] == ["\n".join(ENGLISH)]
    assert documents[0]["id"] == "a.warc.gz/urn:uuid:0"
    metadata = documents[0]["metadata"]
    assert metadata.pop("language_score") > 0.9
    assert metadata == {"url": "http://example.com/0", "date": "2019-08-17T20:00:00Z", "language": "en"}
    assert reasons(tmp_path / "out") == {"under 300 characters": 1, "language: de": 1, "no main text": 1, "not HTML": 1,
                                         "HTTP status is not 200": 1}


def test_german_among_english(folder, tmp_path, play):
    lines = [line for line in play.split("\n") if len(line) > 30]
    english = [" ".join(lines[i : i + 15]) for i in range(0, 450, 15)]
    german = [" ".join(f"{GERMAN[(i + j) % 3]} {word}." for j, word in enumerate(("Erst", "Dann", "Bald")))
              for i in range(30)]
    mixed = [text for pair in zip(english, german, strict=True) for text in pair]
    (folder / "a.wet.gz").write_bytes(web_archive(*mixed, kind="conversion"))
    documents = clean_pages(folder, tmp_path / "out")
    assert [document["text"] for document in documents] == english
    assert reasons(tmp_path / "out")["language: de"] + reasons(tmp_path / "out")["no line of its own"] == 30
    both = clean_pages(folder, tmp_path / "both", languages=("de", "en"))
    assert {document["metadata"]["language"] for document in both} == {"de", "en"}
    assert len(clean_pages(folder, tmp_path / "all", languages=())) == len(both)


@pytest.mark.slow
def test_same_output_for_any_number_of_workers(folder, tmp_path, shared_data):
    for number in range(3):
        pages = [page(*ENGLISH[:number], *(f"{line} It is said that {word} knew." for line in ENGLISH))
                 for word in ("Anne", "Bert", "Carla")]
        (folder / f"{number}.warc.gz").write_bytes(web_archive(*pages))
    (folder / "real.warc.gz").write_bytes((shared_data / "corpus" / "commoncrawl" / "sample-0000.warc.gz").read_bytes())
    clean_pages(folder, tmp_path / "one", workers=1)
    clean_pages(folder, tmp_path / "four", workers=4)
    names = sorted(file.name for file in (tmp_path / "one").glob("*.zst"))
    assert names and names == sorted(file.name for file in (tmp_path / "four").glob("*.zst"))
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "four" / name).read_bytes() for name in names)


def test_damaged_files_are_counted_and_what_came_before_stays(folder, tmp_path):
    whole = web_archive(page(*ENGLISH), page(*(f"{line} And so on." for line in ENGLISH)))
    (folder / "a.warc.gz").write_bytes(whole[:-40])
    other = page(*(f"{line} Or not." for line in ENGLISH))
    (folder / "b.warc").write_bytes(web_archive(other, page(*ENGLISH), compressed=False)[:-99])
    (folder / "c.warc.gz").write_bytes(b"no gzip")
    (folder / "d.warc").write_bytes(b"x" * 1000)
    (folder / "e.warc.gz").write_bytes(b"")
    (folder / "f.warc").write_bytes(web_archive(page(*GERMAN), compressed=False) + b"garbage\r\n" * 20)
    documents = clean_pages(folder, tmp_path / "out")
    assert [document["id"].partition("/")[0] for document in documents] == ["a.warc.gz", "b.warc"]
    found = " ".join(damages(tmp_path / "out"))
    for text in ("a.warc.gz: damaged .gz", "b.warc: the last record is cut off", "c.warc.gz: damaged .gz",
                 "d.warc: no WARC file", "e.warc.gz: empty file", "f.warc: damaged WARC"):
        assert text in found


def test_nothing_kept_is_an_error(folder, tmp_path):
    (folder / "a.warc.gz").write_bytes(web_archive(page(*GERMAN)))
    with pytest.raises(DataError, match="nothing was kept"):
        clean_pages(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="unknown language"):
        clean_pages(folder, tmp_path / "new", languages=("klingon",))


def test_wet_texts_stay_as_they_are(folder, tmp_path):
    text = "\n".join(["Home | Products", *ENGLISH, "", "   ", "© 2019 Council"])
    (folder / "a.warc.wet.gz").write_bytes(web_archive(text, b"\xff\xfe not UTF-8" * 40, kind="conversion"))
    documents = clean_pages(folder, tmp_path / "out")
    assert [document["text"] for document in documents] == ["\n".join(["Home | Products", *ENGLISH, "© 2019 Council"])]
    assert reasons(tmp_path / "out") == {"not UTF-8": 1}


@pytest.mark.parametrize(("encoding", "header", "head"), [
    ("utf-8", "text/html", ""),
    ("utf-8", "text/html; charset=ISO-8859-1", ""),  # a wrong header
    ("cp1252", "text/html; charset=ISO-8859-1", ""),
    ("iso-8859-15", "text/html", "<meta charset=iso-8859-15>"),
    ("cp1252", "text/html", '<meta http-equiv="Content-Type" content="text/html; charset=windows-1252">'),
    ("utf-16", "text/html", ""),
    ("cp1252", "text/html; charset=no-such-thing", ""),  # detected
])
def test_encodings(encoding, header, head):
    html = page(*GERMAN, head=head)
    assert decode_html(html.encode(encoding), header).lstrip("\ufeff") == html


def test_east_asian_encodings():
    text = "日本語のテキストです。" * 20
    assert decode_html(text.encode("iso-2022-jp"), "text/html; charset=ISO-2022-JP") == text
    assert decode_html(text.encode("cp932"), "text/html; charset=Shift_JIS") == text
    chinese = "中文的句子，镕字不在旧的字符集里。"
    assert decode_html(chinese.encode("gb18030"), "text/html; charset=gb2312") == chinese


def test_bytes_without_meaning_are_no_text():
    with pytest.raises(Dropped, match="unknown encoding"):
        decode_html(bytes(range(256)) * 4)
    assert decode_html(b"\xff\xfea") == "\ufffd"


def test_extraction():
    html = ("<html><body><article><h1>On bridges</h1>\n<p>One\n   line   of\ttext, which the source\nbreaks in pieces.</p>"
            f"<p>{ENGLISH[0]}</p><ul><li>first\n item</li><li>second</li></ul><table><tr><th>a</th><th>b</th></tr>"
            f"<tr><td>one</td><td></td></tr></table><p>{ENGLISH[1]}</p></article></body></html>")
    assert extract_html(html).splitlines() == [
        "On bridges", "One line of text, which the source breaks in pieces.", ENGLISH[0], "- first item", "- second", "a | b", "",
        "one", ENGLISH[1]]
    code = f"<html><body><article><p>{ENGLISH[0]}</p><p>{ENGLISH[1]}</p><pre>def f():\n    return 1</pre></article></body></html>"
    assert "def f():\n    return 1" in extract_html(code)


def test_a_main_part_without_a_name():
    """The element that holds nearly all paragraphs is it, where none is named, or the named one holds little of the page."""
    menu = "<ul><li><a href=/>Home</a></li><li><a href=/b>Bridges</a></li></ul>"
    footer = "<footer><p>All rights reserved.</p></footer>"
    text = f"<h1>On bridges</h1><p>{ENGLISH[0]}</p><ul><li>first item</li></ul><h2>Why</h2><p>{ENGLISH[1]}</p>"
    expected = ["On bridges", ENGLISH[0], "- first item", "Why", ENGLISH[1]]
    for body in (f"<div>{menu}<div class=x>{text}</div></div>{footer}", f"<div>{menu}</div>{text}{footer}",
                 f"<table><tr><td>{menu}</td><td>{text}</td></tr></table>{footer}",
                 f"{menu}<article><p>News.</p></article><div>{text}</div>{footer}"):
        assert extract_html(f"<html><body>{body}</body></html>").splitlines()[-5:] == expected
    named = f"<article><p>{ENGLISH[0]}</p><p>{ENGLISH[1]}</p></article><div>{menu}<p>{ENGLISH[2]}</p></div>"
    assert extract_html(f"<html><body>{named}</body></html>").splitlines() == list(ENGLISH[:2])


@pytest.mark.parametrize("html", ["", " ", "<", "<html>", "\0\0\0", "<pre" * 50_000, "<div>" * 30_000, "]]>", "<a href='",
                                  "<html><body>" + "<table><tr><td>" * 3_000, '<?xml version="1.0" encoding="x"?><html/>'])
def test_odd_html_ends_in_a_reason(html):
    with pytest.raises((Dropped, RecursionError)):
        main_text(html, {"content_type": "text/html"})


def test_large_pages_are_dropped(tmp_path):
    file = tmp_path / "a.warc.gz"
    file.write_bytes(web_archive(page("word " * 300_000), page(*ENGLISH)))
    first, second = read_warc(file)
    assert isinstance(first, Dropped) and str(first) == "page of more than 1 MiB"
    assert ENGLISH[0] in second.text


def test_what_follows_a_record_is_looked_for_in_bounded_memory(tmp_path, monkeypatch):
    good = web_archive(page(*ENGLISH), compressed=False)
    (tmp_path / "a.warc").write_bytes(good + b"x" * 300_000)
    (tmp_path / "b.warc").write_bytes(re.sub(rb"Content-Length: \d+\r\n", b"", good))
    monkeypatch.setattr("llama_jax.clean.warc.MAX_BYTES", 100_000)
    records = read_warc(tmp_path / "a.warc")
    assert ENGLISH[0] in next(records).text
    with pytest.raises(DamagedInput, match="no record within"):
        next(records)
    with pytest.raises(DamagedInput, match="a record without Content-Length"):
        next(read_warc(tmp_path / "b.warc"))


@pytest.mark.slow
def test_a_line_of_100_mb_and_a_bomb(folder, tmp_path):
    bomb = gzip.compress(bytes(1 << 30))  # 1 GiB of zeros in 1 MB
    (folder / "a.warc.gz").write_bytes(web_archive("x" * 100_000_000, bomb, page(*ENGLISH)))
    (folder / "b.warc.gz").write_bytes(web_archive("x" * 100_000_000, kind="conversion"))
    (folder / "c.warc.gz").write_bytes(gzip.compress(b"x" * 100_000_000))
    documents = clean_pages(folder, tmp_path / "out")
    assert [document["text"] for document in documents] == ["\n".join(ENGLISH)]
    assert reasons(tmp_path / "out")["a record of more than 64 MiB"] == 2
    assert list(damages(tmp_path / "out")) == ["c.warc.gz: no WARC file"]


def test_compressed_bodies(tmp_path):
    """A body with Content-Encoding gzip is read; one that grows beyond the limit is dropped while it is read."""
    bodies = [(page(*ENGLISH).encode(), ENGLISH[0]), (bytes(50 << 20), "page of more than 1 MiB")]
    for number, (body, answer) in enumerate(bodies):
        data = web_archive(gzip.compress(body), compressed=False)
        data = data.replace(b"Content-Type: text/html\r\n", b"Content-Type: text/html\r\nContent-Encoding: gzip\r\n")
        size = int(data.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        data = data.replace(b"Content-Length: %d" % size, b"Content-Length: %d" % (size + len(b"Content-Encoding: gzip\r\n")))
        (tmp_path / f"{number}.warc").write_bytes(data)
        [found] = read_warc(tmp_path / f"{number}.warc")
        assert answer in (str(found) if isinstance(found, Dropped) else found.text)


def test_reader_raises_after_the_last_good_record(tmp_path):
    file = tmp_path / "a.warc.gz"
    file.write_bytes(web_archive(page(*ENGLISH), page(*GERMAN))[:-30])
    records = read_warc(file)
    assert ENGLISH[2] in next(records).text
    with pytest.raises(DamagedInput):
        next(records)


def test_report_counts_lines(folder, tmp_path):
    (folder / "a.wet").write_bytes(web_archive("\n".join(ENGLISH), "\n".join([*ENGLISH, ENGLISH[0].upper() + "!", *GERMAN]),
                                               kind="conversion", compressed=False))
    clean_pages(folder, tmp_path / "out", languages=("de", "en"))
    [step] = [step for step in json.loads((tmp_path / "out" / "report.json").read_text()) if step["step"] == "duplicate lines"]
    assert step["other"] == {"lines": 10, "lines_removed": 4}
    assert [document["text"] for document in read_output(tmp_path / "out")] == ["\n".join(ENGLISH), "\n".join(GERMAN)]
