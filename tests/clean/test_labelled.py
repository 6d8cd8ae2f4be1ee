"""Fifty real documents that a reader would keep, chosen by hand, are kept by their kinds; what is planted among them goes."""

import json
import random
import shutil
from pathlib import Path

import pytest

from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.kinds import KINDS, load_recipe
from llama_jax.clean.report import collect_counts
from llama_jax.clean.stages import Workplace, run_stages
from llama_jax.cli.clean_options import CleanOptions

HEAD, OTHER_HEAD, DOCUMENTS = "dolma_cc_en_head-0091.jsonl", "dolma_cc_en_head-0174.jsonl", "dolma_documents_000.json.gz"
BLOG = "https://maria-antoniak.github.io"

GOOD = {
    "c4": [*(f"{HEAD}/{line}" for line in (3, 5, 6, 7, 8, 9)), *(f"{OTHER_HEAD}/{line}" for line in (1, 2, 3, 4, 6, 7, 8)),
           *(f"{DOCUMENTS}/{line}" for line in (0, 1, 3, 4, 6, 7, 9))],
    "commoncrawl": [f"{BLOG}/2023/07/04/notes-on-mastodon.html", f"{BLOG}/2023/04/11/paperpile-to-zotero.html",
                    f"{BLOG}/2022/07/27/topic-modeling-for-the-people.html", f"{BLOG}/2020/03/25/pip.html",
                    f"{BLOG}/2018/11/19/data-science-crash-course.html", "https://kyleclo.com/research/", "https://joe.cat/",
                    "https://soldaini.net/facts/", "https://www.jonathanbragg.com/", "https://amyxzhang.wordpress.com/"],
    "stackexchange": [f"coffee/{question}" for question in (1, 2, 3, 5, 6, 14, 16, 79, 96, 116)],
    "wikipedia": [f"enwiki-shortened.xml.bz2/{page}" for page in (308, 612, 634, 655, 662, 681, 736)],
    "books": ["pride_and_prejudice_1342-0.txt", "tinyshakespeare.txt"],
    "arxiv": ["emcee_1202.3665.tex"],
}
"""Kind -> ids of its documents; of web pages, their addresses."""
SENTENCES = {
    "c4": ["He holds an MBA degree from Stanford University.", "Here are some of the ice sports with the longest histories."],
    "commoncrawl": ["This is a no nonsense guide to making your Python project installable via pip."],
    "stackexchange": ["How should I store whole bean coffee?", "What is the difference between Robusta and Arabica?"],
    "wikipedia": ["Aristotle (", "Apollo 11 was th", "The aardwolf (Prot"],
    "books": ["It is a truth universally acknowledged", "Before we proceed any further, hear me speak."],
    "arxiv": ["Probabilistic data analysis---including Bayesian inference"],
}
GERMAN = ("Der Hafen lag am frühen Morgen noch ganz still. Fischer flickten auf dem Kai ihre Netze. Um sieben Uhr kam eine Fähre "
          "von den Inseln. Ihre Fahrgäste eilten mit Körben zum Markt. Gegen Mittag war der Platz voller Stimmen.")


def clean(kind: str, source: Path, output: Path) -> dict[str, dict[str, int]]:
    """Clean, and return what every step dropped, as {step: {reason: documents}}."""
    place = Workplace(find_input_files((str(source),), KINDS[kind]), output)
    asked = CleanOptions(kind, (str(source),), str(output))
    assert run_stages(load_recipe(kind)(place, asked), place, settings={}, workers=1)
    return {step.step: {reason: number for reason, (number, _) in step.dropped.items()} for step in collect_counts(output)}


def test_fifty():
    assert sum(map(len, GOOD.values())) == 50


@pytest.mark.parametrize("kind", GOOD)
def test_nothing_good_is_dropped(tmp_path, shared_data, documents, untimed, kind):
    clean(kind, shared_data / "corpus" / kind, tmp_path / "out")
    kept = documents(tmp_path / "out")
    names = {record["metadata"].get("url") if kind == "commoncrawl" else record["id"] for record in kept}
    assert not set(GOOD[kind]) - names
    text = "\n".join(record["text"] for record in kept)
    for sentence in SENTENCES[kind]:
        assert sentence in text


def test_planted_pages(tmp_path, shared_data, documents):
    source = tmp_path / "c4"
    shutil.copytree(shared_data / "corpus" / "c4", source, copy_function=shutil.copyfile)
    source.chmod(0o755)
    pages = [json.loads(line)["text"] for line in (source / HEAD).read_text().splitlines()]
    planted = [pages[6], pages[7].upper(), "  " + pages[9].replace(" ", "  "), GERMAN, GERMAN]
    (source / "planted.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in planted))
    dropped = clean("c4", source, tmp_path / "out")
    assert dropped["duplicates"] == {"duplicate": 3} and dropped["language"] == {"language: de": 2}
    assert not [record for record in documents(tmp_path / "out") if record["id"].startswith("planted")]
    assert set(GOOD["c4"]) <= {record["id"] for record in documents(tmp_path / "out")}


def test_planted_book(tmp_path, shared_data, documents):
    """A copy of a novel without its header, in which every thirtieth line is another."""
    source = tmp_path / "books"
    shutil.copytree(shared_data / "corpus" / "books", source, copy_function=shutil.copyfile)
    source.chmod(0o755)
    lines = (source / GOOD["books"][0]).read_text(encoding="utf-8-sig").splitlines()[60:-400]
    chance = random.Random(5)
    for number in range(0, len(lines), 30):
        lines[number] = f"another line {chance.random()}"
    (source / "z_other_edition.txt").write_text("\n".join(lines))
    dropped = clean("books", source, tmp_path / "out")
    assert dropped["overlap"] == {"more than 90% overlap": 1}
    assert [record["id"] for record in documents(tmp_path / "out")] == GOOD["books"]
