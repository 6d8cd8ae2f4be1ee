"""Stack Exchange: the real coffee dump against what its rows say, and damaged, hostile and unusual dumps."""

import io
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import py7zr
import pytest
import zstandard

from llama_jax.clean import InputFile, Workplace, collect_counts, find_input_files, run_stages
from llama_jax.clean import posts as posts_module
from llama_jax.clean.html_text import html_to_text
from llama_jax.clean.items import DamagedInput, Dropped
from llama_jax.clean.kinds import KINDS
from llama_jax.clean.posts import address_of, read_posts, site_of
from llama_jax.clean.stackexchange import LARGEST_SITES, recipe, thread_text
from llama_jax.cli.clean_options import CleanOptions
from llama_jax.errors import ConfigError


@pytest.fixture
def coffee(shared_data):
    return shared_data / "corpus" / "stackexchange" / "coffee-Posts.xml"


def clean(inputs, output: Path, *, workers: int = 1, **options):
    """Run both stages; the documents, and what was dropped over all steps."""
    files = [InputFile(Path(file), Path(file).name) for file in inputs]
    place = Workplace(files, output)
    asked = CleanOptions("stackexchange", tuple(map(str, inputs)), str(output), **options)
    run_stages(recipe(place, asked), place, settings={}, workers=workers)
    lines = [line for file in sorted(output.glob("*.jsonl.zst")) for line in io.TextIOWrapper(zstandard.open(file, "rb"))]
    dropped = Counter()
    for step in collect_counts(output):
        dropped.update({reason: count for reason, (count, _) in step.dropped.items()})
    return [json.loads(line) for line in lines], dropped


def row(number, kind=1, body="<p>text</p>", **values):
    attributes = {"Id": number, "PostTypeId": kind, "Body": body, **values}
    given = (f"{name}={quoteattr(str(value))}" for name, value in attributes.items() if value is not None)
    return f"  <row {' '.join(given)} />"


def dump(folder: Path, *rows: str, name: str = "tea-Posts.xml", end: str = "\n</posts>") -> Path:
    file = folder / name
    file.write_text('<?xml version="1.0" encoding="utf-8"?>\n<posts>\n' + "\n".join(rows) + end)
    return file


def test_coffee_questions_and_answers_are_those_of_the_dump(coffee, tmp_path):
    documents, dropped = clean([coffee], tmp_path / "out")
    rows = [element.attrib for element in ElementTree.fromstring(coffee.read_bytes()).iter("row")]
    kinds = Counter(values["PostTypeId"] for values in rows)
    assert (kinds["1"], kinds["2"], len(rows)) == (225, 327, 592)
    assert dropped == {"neither question nor answer": 40}
    assert len(documents) == 225
    assert sum(len(document["metadata"]["answer_scores"]) for document in documents) == 327
    by_id = {document["id"]: document for document in documents}
    for values in rows:
        if values["PostTypeId"] == "1":
            document = by_id[f"coffee/{values['Id']}"]
            scores = [int(answer["Score"]) for answer in rows if answer.get("ParentId") == values["Id"]]
            assert document["metadata"]["answer_scores"] == sorted(scores, reverse=True)
            assert document["text"].startswith(f"Q: {' '.join(values['Title'].split())}\n\n")
    for document in documents:
        assert not re.findall(r"</?[a-z][a-z0-9]*[^<>]*>|&(?:lt|amp|quot);", document["text"])


def test_first_coffee_question_in_full(coffee, tmp_path):
    """Its accepted answer (score 15) comes first for its score; the other two have score 2, and the earlier one comes first."""
    document = clean([coffee], tmp_path / "out")[0][0]
    starts = [part[:40] for part in document["text"].split("\n\n") if part.startswith(("Q: ", "A: "))]
    assert starts == ["Q: How should I store whole bean coffee?", "A: In a cool, dark, dry, place and whene",
                      "A: I would add to NOT store it in the re", "A: Room temperature, open-air is fine (f"]
    assert document["metadata"] == {
        "site": "coffee", "url": "https://coffee.stackexchange.com/q/1", "title": "How should I store whole bean coffee?",
        "score": 20, "date": "2015-01-27T20:09:32.720", "tags": ["storage", "whole-bean"], "answer_scores": [15, 2, 2],
        "licenses": []}


@pytest.mark.slow
def test_output_does_not_depend_on_workers_nor_on_buckets_of_an_interrupted_task(coffee, tmp_path, monkeypatch):
    monkeypatch.setattr("llama_jax.clean.stackexchange._BUCKET_BYTES", 100_000)
    monkeypatch.setattr("llama_jax.clean.stackexchange._BUFFER", 1_000)
    other = dump(tmp_path, row(1, Title="Green?"), row(2, 2, ParentId=1))
    left = tmp_path / "four" / ".work" / "buckets" / "00003" / "00001.jsonl.zst"
    clean([coffee, other], tmp_path / "one")
    place = Workplace([InputFile(coffee, coffee.name), InputFile(other, other.name)], tmp_path / "four")
    stages = recipe(place, CleanOptions("stackexchange", (), ""))
    left.parent.mkdir(parents=True)
    left.write_bytes(zstandard.compress(b"half a line"))
    (tmp_path / "four" / "settings.json").write_bytes((tmp_path / "one" / "settings.json").read_bytes())
    run_stages(stages, place, settings={}, workers=4)
    files = sorted(file.name for file in (tmp_path / "one").glob("*.zst"))
    assert len(files) == 8  # 0.76 MB in buckets of 0.1
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "four" / name).read_bytes()


def test_seven_zip_gives_the_same_documents(coffee, tmp_path):
    archive = tmp_path / "coffee.stackexchange.com.7z"
    with py7zr.SevenZipFile(archive, "w") as target:
        target.writestr("<users/>" * 1000, "Users.xml")
        target.write(coffee, "Posts.xml")
    assert clean([archive], tmp_path / "a")[0] == clean([coffee], tmp_path / "b")[0]


def test_seven_zip_without_posts_damaged_or_grown_too_far(tmp_path, monkeypatch):
    comments = tmp_path / "stackoverflow.com-Comments.7z"
    with py7zr.SevenZipFile(comments, "w") as target:
        target.writestr("<comments/>", "Comments.xml")
    assert [str(item) for item in read_posts(comments)] == ["an archive without Posts.xml"]

    good = tmp_path / "tea.stackexchange.com.7z"
    with py7zr.SevenZipFile(good, "w") as target:
        target.write(dump(tmp_path, *(row(n, Title=f"{n}") for n in range(5_000))), "Posts.xml")
    reader = read_posts(good)
    assert next(reader).metadata["post"] == 0
    reader.close()  # ends the thread that decompresses

    for name, data in {"cut": good.read_bytes()[:500], "text": b"no archive", "empty": b""}.items():
        (tmp_path / f"{name}.7z").write_bytes(data)
        with pytest.raises(DamagedInput, match=r"damaged \.7z"):
            list(read_posts(tmp_path / f"{name}.7z"))
    broken = bytearray(good.read_bytes())
    broken[len(broken) // 2] ^= 255
    (tmp_path / "broken.7z").write_bytes(broken)
    with pytest.raises(DamagedInput, match=r"damaged \.7z"):
        list(read_posts(tmp_path / "broken.7z"))

    monkeypatch.setattr(posts_module, "_SMALL_ARCHIVE", 1000)
    monkeypatch.setattr(posts_module, "_LARGEST_GROWTH", 5)
    with pytest.raises(DamagedInput, match="limit"):
        list(read_posts(good))


def test_posts_with_missing_attributes_twice_deleted_or_orphaned(tmp_path):
    documents, dropped = clean([dump(
        tmp_path,
        row(1, Title="A  title", Score="nonsense", Tags="|a|b|", ContentLicense="CC BY-SA 4.0"),
        row(2, 2, "<p>second</p>", ParentId=1, Score=-3),
        row(3, 2, "<p>first</p>", ParentId=1),
        row(4, 2, ParentId=99), row(5, 2), row(6, 2, ParentId="x"),
        row(7, Title="empty", body=""), row(8, Title="no body", body=None),
        row("", Title="no id"), row(1, Title="again"), row(9, DeletionDate="2020-01-01"), row(10, 5), row(11, None),
        row(12, Title="only an image", body="<img src='x'>"),
        row(13, body="<p>no title</p>"), row(14, 2, "<p>x</p>", ParentId=13),
    )], tmp_path / "out")
    assert [document["text"] for document in documents] == ["Q: A title\n\ntext\n\nA: first\n\nA: second", "Q: no title\n\nA: x"]
    assert documents[0]["metadata"]["score"] == 0
    assert documents[0]["metadata"]["tags"] == ["a", "b"]
    assert documents[0]["metadata"]["licenses"] == ["CC BY-SA 4.0"]
    assert dropped == {"an answer without its question": 1, "an answer that names no question": 2, "no text": 2, "no Id": 1,
                       "a post that was there before": 1, "deleted": 1, "neither question nor answer": 2, "empty": 1}


def test_questions_without_answers_stay_unless_asked(tmp_path):
    file = dump(tmp_path, row(1, Title="alone"), row(2, Title="answered"), row(3, 2, ParentId=2))
    assert [document["id"] for document in clean([file], tmp_path / "all")[0]] == ["tea/1", "tea/2"]
    documents, dropped = clean([file], tmp_path / "answered", answered_only=True)
    assert [document["id"] for document in documents] == ["tea/2"]
    assert dropped == {"a question without answers": 1}


def test_equal_scores_go_by_date_and_then_by_number(tmp_path):
    answers = [row(n, 2, f"<p>{n}</p>", ParentId=1, Score=5, CreationDate=date)
               for n, date in ((5, "2020-01-02"), (4, "2020-01-02"), (3, "2020-01-03"), (2, "2020-01-01"))]
    documents, _ = clean([dump(tmp_path, *answers, row(1, Title="t", AcceptedAnswerId=3))], tmp_path / "out")
    assert re.findall(r"A: (\d)", documents[0]["text"]) == ["2", "4", "5", "3"]


def test_damaged_rows_are_dropped_alone_and_a_cut_file_is_damaged(tmp_path):
    bad = row(2, Title="bad").replace('Title="bad"', 'Title="bad" Title="twice"')
    control = row(3, Title="control").replace("control", "&#x1;")
    unknown = row(4, Title="entity").replace("entity", "&unknown;")
    items = list(read_posts(dump(tmp_path, row(1, Title="good"), bad, control, unknown, row(5, Title="good"))))
    assert [str(item) if isinstance(item, Dropped) else item.metadata["post"] for item in items] == [
        1, "invalid XML", "invalid XML", "invalid XML", 5]

    reader = read_posts(dump(tmp_path, row(1), row(2)[:30], end=""))
    assert next(reader).metadata["post"] == 1
    assert str(next(reader)) == "invalid XML"
    with pytest.raises(DamagedInput, match="ends before </posts>"):
        next(reader)


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"<users><row Id='1'/></users>", "<posts>".encode("utf-16")])
def test_other_files_are_damaged_input(tmp_path, data):
    (tmp_path / "Posts.xml").write_bytes(data)
    with pytest.raises(DamagedInput, match="no <posts>"):
        list(read_posts(tmp_path / "Posts.xml"))


def test_rows_need_no_lines_and_survive_block_borders(tmp_path, monkeypatch):
    rows = [row(n, Title=f"title {n}", body="<p>ä &gt; b</p>\r\n") for n in range(1, 60)]
    file = dump(tmp_path, " ".join(rows).replace(" />", "></row>", 3))
    monkeypatch.setattr(posts_module, "_BLOCK", 97)
    assert [item.metadata["post"] for item in read_posts(file)] == list(range(1, 60))


def test_a_huge_post_is_dropped_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(posts_module, "MAX_BYTES", 5_000)
    monkeypatch.setattr(posts_module, "_BLOCK", 1_000)
    items = list(read_posts(dump(tmp_path, row(1), row(2, body="x" * 20_000), row(3))))
    kept = [item.metadata["post"] for item in items if not isinstance(item, Dropped)]
    assert kept == [1, 3]
    assert "post of more than" in str(items[1])


def test_entities_do_not_grow(tmp_path):
    file = tmp_path / "Posts.xml"
    file.write_text('<!DOCTYPE p [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><posts>' + row(1, body="&b;").replace(
        "&amp;b;", "&b;") + "</posts>")
    assert [str(item) for item in read_posts(file)] == ["invalid XML"]


@pytest.mark.parametrize(("path", "site"), [
    ("coffee-Posts.xml", "coffee"), ("math.stackexchange.com/Posts.xml", "math"), ("stackoverflow.com-Posts.7z", "stackoverflow"),
    ("ru.stackoverflow.com.7z", "ru.stackoverflow"), ("mathoverflow.net.7z", "mathoverflow"),
    ("Posts/tex.stackexchange.com.7z", "tex"), ("meta.math.stackexchange.com.7z", "meta.math"),
    ("meta.stackexchange.com.7z", "meta"), ("coffee-Posts.xml.gz", "coffee")])
def test_names_of_sites(path, site):
    assert site_of(Path(path)) == site


def test_addresses_of_posts():
    assert address_of("ru.stackoverflow", "7") == "https://ru.stackoverflow.com/q/7"
    assert address_of("mathoverflow", "7") == "https://mathoverflow.net/q/7"
    assert address_of("meta.math", "7") == "https://meta.math.stackexchange.com/q/7"


def test_sites_that_are_asked_for(tmp_path):
    math = dump(tmp_path, row(1, Title="1+1"), name="math-Posts.xml")
    tea = dump(tmp_path, row(1, Title="Green?"), name="tea-Posts.xml")
    assert len(LARGEST_SITES) == len(set(LARGEST_SITES)) == 28
    for number, sites in enumerate((("largest",), ("math",))):
        documents, dropped = clean([math, tea], tmp_path / str(number), sites=sites)
        assert [document["id"] for document in documents] == ["math/1"]
        assert dropped == {"a site that is not among --sites": 1}
    assert len(clean([math, tea], tmp_path / "all")[0]) == 2
    with pytest.raises(ConfigError, match=r"no posts of maths; its sites are math, tea"):
        clean([math, tea], tmp_path / "wrong", sites=("maths", "tea"))
    with pytest.raises(ConfigError, match="no posts of"):
        clean([tea], tmp_path / "small", sites=("largest",))


def test_a_folder_of_a_dump_is_read_for_its_posts_alone(tmp_path):
    folder = tmp_path / "tea.stackexchange.com"
    folder.mkdir()
    dump(folder, row(1), name="Posts.xml")
    (folder / "Users.xml").write_text("<users/>")
    found = find_input_files((str(tmp_path),), KINDS["stackexchange"])
    assert [file.name for file in found] == ["tea.stackexchange.com/Posts.xml"]


def test_layout_of_a_thread():
    assert thread_text("- a list", ["- one\n- two", "plain"], title="T") == "Q: T\n\n- a list\n\nA:\n\n- one\n- two\n\nA: plain"


@pytest.mark.parametrize(("html", "text"), [
    ("<p>one\n two</p>\n\n<p>three<br>four</p>", "one two\n\nthree\nfour"),
    ("<p><code>vector&lt;int&gt; v</code> &amp; x &lt; 5, <em>a</em> <b>b</b></p>", "`vector<int> v` & x < 5, a b"),
    ("<pre><code>if (a &lt; b &amp;&amp; c) {\n\n    f(&quot;x&quot;);\n}\n</code></pre>",
     '```\nif (a < b && c) {\n\n    f("x");\n}\n```'),
    ("<pre>```\nx</pre>", "````\n```\nx\n````"),
    ("<p><code>a`b</code></p>", "``a`b``"),
    ("<ul><li>one</li><li>two<ol start='3'><li>x<br>y</li><li>z</li></ol></li></ul>", "- one\n- two\n  3. x\n     y\n  4. z"),
    ("<ul><li><p>a</p><pre>b\n c</pre></li><li><p>d</p></li></ul>", "- a\n\n  ```\n  b\n   c\n  ```\n\n- d"),
    ("<blockquote><p>a</p><blockquote>b</blockquote></blockquote>", "> a\n>\n> > b"),
    ('<a href="http://a.b/?x=1&amp;y=2">see</a> <a href="http://a.b/">a.b</a> <a href="/q/1">here</a>',
     "see (http://a.b/?x=1&y=2) a.b here"),
    ('<a class="post-tag" href="https://x.y/tagged/tea">tea</a> '
     '<a href="http://i.j/k.png"><img alt="enter image description here"></a>',
     "tea"),
    ('<img src="x" alt="a cup">', "[image: a cup]"),
    ("10<sup>6</sup> H<sub>2</sub>O <sup>small print</sup> <s>no</s> <kbd>Ctrl</kbd>", "10^6 H2O small print ~~no~~ Ctrl"),
    ('Swiss water<sup><strong><a href="http://a.com/b">1</a></strong></sup>', "Swiss water^1 (http://a.com/b)"),
    ('<p><span class="math-container">$a&lt;b$</span></p>', "$a<b$"),
    ("<h2>Head</h2><hr><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>",
     "## Head\n\n---\n\na | b\n1 | 2"),
    ("<!-- language: lang-js --><p>a<!-- b -->c</p><script>x</script>", "ac"),
    ("unclosed <b>bold <p>next</div> stray &nosuch; &#0;", "unclosed bold\n\nnext\n\nstray &nosuch; �"),
    ("<?xml version='1.0' encoding='latin-1'?>é", "é"),
    ("<ul></ul><pre></pre><blockquote></blockquote><ol><ul><li>x</li></ul></ol>", "   - x"),
    ("", "")])
def test_html(html, text):
    assert html_to_text(html) == text


def test_deeply_nested_html_is_dropped():
    assert html_to_text("<blockquote>" * 50 + "x").endswith("> x")
    with pytest.raises(Dropped, match="nested too deeply"):
        html_to_text("<blockquote>" * 5000 + "x")
