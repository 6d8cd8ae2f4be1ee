"""CCNet's quality filter: the order of perplexities, the buckets, the models, and what is said of mistakes."""

import random
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from llama_jax.clean.items import Dropped
from llama_jax.clean.perplexity import add_perplexity, keep_buckets, normalize_for_perplexity
from llama_jax.errors import ConfigError, DataError
from tests.clean.webpages import clean_pages, read_output, reasons, web_archive


@pytest.fixture(scope="module")
def crawl(tmp_path_factory, play):
    """A folder with in/, pages, and play.txt to train on: 10 pages of that play, 10 with lines shuffled, 10 of its words."""
    folder = tmp_path_factory.mktemp("perplexity")
    draw = random.Random(0)
    lines = [line for line in play.split("\n") if len(line) > 20]
    tested = [lines[i : i + 12] for i in range(2000, 2360, 12)]

    def shuffled(line: str) -> str:
        words = line.split()
        return " ".join(draw.sample(words, len(words)))

    words = sorted({word for line in lines for word in line.split()})
    kinds = [lambda line: line, shuffled, lambda line: " ".join(draw.sample(words, 7))]
    pages = ["\n".join(kinds[number % 3](line) for line in page_lines) for number, page_lines in enumerate(tested)]
    (folder / "in").mkdir()
    for file in range(2):
        data = web_archive(*pages[15 * file : 15 * file + 15], kind="conversion")
        (folder / "in" / f"{file}.wet.gz").write_bytes(data)
    (folder / "play.txt").write_text("\n".join(lines[:2000] + lines[2360:]))
    return folder


@pytest.fixture(scope="module")
def scored(crawl):
    """An output folder with pages of all buckets, and the model."""
    clean_pages(crawl / "in", crawl / "out", perplexity_text=(str(crawl / "play.txt"),), language_threshold=0.0,
                buckets=("head", "middle", "tail"))
    return crawl / "out"


def kind_of(document: dict) -> int:
    file, _, number = document["id"].partition("/urn:uuid:")
    return (15 * int(file[0]) + int(number)) % 3


def test_buckets_come_in_order(scored):
    documents = read_output(scored)
    assert len(documents) == 30 and not reasons(scored)
    values = [[document["metadata"]["perplexity"] for document in documents if kind_of(document) == kind] for kind in range(3)]
    assert np.median(values[0]) < np.median(values[1]) < np.median(values[2])
    assert sum(plain < words for plain in values[0] for words in values[2]) >= 95  # of 100 pairs
    in_order = sorted(documents, key=lambda document: document["metadata"]["perplexity"])
    buckets = [document["metadata"]["bucket"] for document in in_order]
    assert buckets == sorted(buckets)  # head, middle, tail
    assert all(9 <= buckets.count(bucket) <= 11 for bucket in ("head", "middle", "tail"))


def test_the_model_again_and_thresholds(crawl, scored):
    before = {document["id"]: document["metadata"]["perplexity"] for document in read_output(scored)}
    low, high = sorted(before.values())[5], sorted(before.values())[12]
    again = clean_pages(crawl / "in", crawl / "again", perplexity_model=str(scored / "perplexity.npz"), language_threshold=0.0,
                        perplexity_thresholds=(low, high), buckets=("head", "middle"))
    assert {document["id"]: document["metadata"]["perplexity"] for document in again} == {
        name: value for name, value in before.items() if value < high}
    assert [document["metadata"]["bucket"] for document in again].count("head") == 5
    assert reasons(crawl / "again")["perplexity: tail"] == len(before) - 12


def test_training_is_deterministic(crawl, scored):
    clean_pages(crawl / "in", crawl / "twice", perplexity_text=(str(crawl / "play.txt"),), language_threshold=0.0)
    assert (crawl / "twice" / "perplexity.npz").read_bytes() == (scored / "perplexity.npz").read_bytes()


def test_perplexity_of_text_without_words_is_high_and_finite(scored):
    metadata: dict = {}
    assert add_perplexity("\u200b\n \n", metadata, model=str(scored / "perplexity.npz")) == "\u200b\n \n"
    assert np.isfinite(metadata["perplexity"])
    add_perplexity("\U0001f600" * 30_000, metadata, model=str(scored / "perplexity.npz"))
    assert 1 < metadata["perplexity"] < 1e9


def test_buckets_by_thresholds():
    edit, metadata = keep_buckets(("head", "tail"), thresholds=(100.0, 200.0)), {}
    for value, bucket in ((99.99, "head"), (200.0, "tail"), (1e8, "tail")):
        metadata["perplexity"] = value
        assert edit("text", metadata) == "text" and metadata["bucket"] == bucket
    with pytest.raises(Dropped, match=r"^perplexity: middle$"):
        edit("text", {"perplexity": 100.0})


def test_normalisation():
    assert normalize_for_perplexity(" “Voilà”,  l’été – 1984\u00ad ") == "\"voila\", l'ete - 0000"


@pytest.mark.parametrize(("options", "message"), [
    ({"perplexity_thresholds": (1.0, 2.0)}, "need a model"),
    ({"perplexity_text": ("a.txt",), "perplexity_model": "b.npz"}, "give one of them"),
    ({"perplexity_text": ("a.txt",), "languages": ("en", "de")}, "model of one language"),
    ({"perplexity_model": "a.npz", "perplexity_thresholds": (2.0, 1.0)}, "two numbers"),
])
def test_options_that_do_not_fit(crawl, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        clean_pages(crawl / "in", tmp_path / "out", **options)


def test_models_that_are_none(crawl, tmp_path, monkeypatch):
    for name, data in (("a.npz", b"no zip"), ("b.npz", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="not a model of perplexity"):
            clean_pages(crawl / "in", tmp_path / "out", perplexity_model=str(tmp_path / name))
    with pytest.raises(DataError, match="does not exist"):
        clean_pages(crawl / "in", tmp_path / "out", perplexity_model=str(tmp_path / "none.npz"))
    with pytest.raises(DataError, match="does not exist"):
        clean_pages(crawl / "in", tmp_path / "out", perplexity_text=(str(tmp_path / "none"),))
    (tmp_path / "en.arpa").write_text("")
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ConfigError, match="pip install kenlm"):
        clean_pages(crawl / "in", tmp_path / "out", perplexity_model=str(tmp_path / "en.arpa"))


def test_text_that_is_too_small(crawl, tmp_path):
    (tmp_path / "small.txt").write_text("A word.")
    with pytest.raises(DataError, match="too small to train"):
        clean_pages(crawl / "in", tmp_path / "out", perplexity_text=(str(tmp_path / "small.txt"),))


@pytest.mark.skipif(find_spec("kenlm") is None, reason="needs kenlm")
def test_a_model_of_kenlm(tmp_path):
    (tmp_path / "a.arpa").write_text("\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n"
                                     "-1\t<unk>\n-99\t<s>\t0\n-0.5\t</s>\n-0.25\tsea\t-0.5\n"
                                     "\n\\2-grams:\n-0.125\t<s> sea\n\n\\end\\\n")
    metadata: dict = {}
    add_perplexity("Sea\n\nland", metadata, model=str(tmp_path / "a.arpa"))
    # sea after <s>: -0.125; </s> after sea: -0.5 - 0.5; land, unknown: -1; </s>: -0.5; four tokens
    assert metadata["perplexity"] == round(10 ** (2.625 / 4), 2)
