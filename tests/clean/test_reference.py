"""The classifier of references: what it learns, against scikit-learn's solution, and in the command."""

import json
import random
from importlib.util import find_spec

import numpy as np
import pytest

from llama_jax.clean.reference import _FEATURES, fit_classifier, page_features, reference_probability
from llama_jax.errors import ConfigError, DataError
from tests.clean.webpages import clean_pages, page, read_output, reasons, web_archive

SCHOLARLY = ("According to the study, published in the journal, the authors measured {} in samples and found that {}",
             "The historian describes how {} was restored by the ministry, while {} is documented in letters of that century",
             "Researchers at the institute reported that {} differs from earlier results, which concerned {} and its origin")
SELLING = ("Buy {} today with free shipping, and save on {} when you sign up for our newsletter before the offer ends",
           "Click here for the best deals on {}, add {} to your cart, and enjoy our discount on the next order",
           "Our customers love {} and give it five stars; order {} now and get a gift card with your purchase")
THINGS = ("the bridge", "porcelain", "a violin", "the harbour", "clocks", "old maps", "the garden", "lamps", "silver", "a coat",
          "the mill", "glass", "paper", "the tower", "boats", "carpets", "honey", "salt", "books", "the railway")


def texts(templates: tuple[str, ...], number: int, seed: int) -> list[str]:
    """Pages of six sentences with other things in them."""
    draw = random.Random(seed)
    return [". ".join(draw.choice(templates).format(*draw.sample(THINGS, 2)) for _ in range(6)) + "." for _ in range(number)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    for name in ("cited", "random", "in"):
        (folder / name).mkdir()
    (folder / "cited" / "a.warc.gz").write_bytes(web_archive(*(page(text) for text in texts(SCHOLARLY, 60, 1))))
    (folder / "random" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(SELLING, 90, 2)))
    mixed = [text for pair in zip(texts(SCHOLARLY, 20, 3), texts(SELLING, 20, 4), strict=True) for text in pair]
    (folder / "in" / "a.wet.gz").write_bytes(web_archive(*mixed, kind="conversion"))
    return folder


def test_two_kinds_of_pages_are_told_apart(folders):
    trained = {"reference_pages": (str(folders / "cited"),), "random_pages": (str(folders / "random"),)}
    documents = clean_pages(folders / "in", folders / "out", **trained)
    assert [document["text"] for document in documents] == texts(SCHOLARLY, 20, 3)
    assert reasons(folders / "out") == {"unlike references": 20}
    assert all(document["metadata"]["reference_score"] > 0.5 for document in documents)
    steps = {step["step"]: step for step in json.loads((folders / "out" / "report.json").read_text())}
    assert steps["train reference"]["documents_in"] == 150
    assert steps["train reference"]["other"] == {
        "held-out random pages": 18, "held-out random pages classified as references": 0,
        "held-out references": 12, "held-out references classified as references": 12}
    again = clean_pages(folders / "in", folders / "again", reference_model=str(folders / "out" / "reference.npz"))
    assert again == documents
    everything = clean_pages(folders / "in", folders / "all", reference_model=str(folders / "out" / "reference.npz"),
                             reference_threshold=0.0)
    assert len(everything) == 40


@pytest.mark.skipif(find_spec("sklearn") is None, reason="needs scikit-learn")
@pytest.mark.filterwarnings("ignore")
def test_the_solution_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    pages = [page_features(text) for text in texts(SCHOLARLY, 30, 5) + texts(SELLING, 45, 6)]
    labels = np.repeat([True, False], [30, 45])
    weights = fit_classifier(pages, labels)
    used = np.unique(np.concatenate(pages))
    dense = np.array([np.isin(used, features) / len(features) ** 0.5 for features in pages])
    # scikit-learn's sum of losses has weights 75 * importance, and its penalty is 1 / (2 C): C = 1 / 0.1
    peer = LogisticRegression(C=10, class_weight="balanced", tol=1e-8, max_iter=10_000).fit(dense, labels)
    np.testing.assert_allclose(weights[used], peer.coef_[0], atol=2e-3)
    np.testing.assert_allclose(weights[-1], peer.intercept_[0], atol=2e-3)
    assert np.count_nonzero(weights[:-1]) == len(used)


def test_features():
    # two words and one pair; case and punctuation do not count, order does
    assert len(page_features("The bridge")) == 3
    assert page_features("the, BRIDGE!").tolist() == page_features("The bridge").tolist()
    assert len(set(page_features("bridge the").tolist()) & set(page_features("the bridge").tolist())) == 2
    assert len(page_features("")) == 0 and len(page_features("one")) == 1
    assert len(page_features("a b " * 100_000)) == 4
    assert 0 <= page_features("\ud800 x")[0] < _FEATURES
    assert reference_probability("", np.zeros(_FEATURES + 1, np.float32)) == 0.5


def test_mistakes_are_explained(folders, tmp_path):
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.txt").write_text("One page.")
    (tmp_path / "a.npz").write_bytes(b"none")
    cited, few = (str(folders / "cited"),), (str(tmp_path / "few"),)
    for options, error, message in [
        ({"reference_pages": cited}, ConfigError, "needs both"),
        ({"reference_pages": cited, "random_pages": cited, "reference_model": "a"}, ConfigError, "give one of them"),
        ({"reference_pages": cited, "random_pages": few}, DataError, r"holds 1 page\(s\) of text; the classifier needs 20"),
        ({"reference_pages": cited, "random_pages": (str(tmp_path / "none"),)}, DataError, "does not exist"),
        ({"reference_threshold": 2.0}, ConfigError, "from 0 to 1"),
        ({"reference_model": str(tmp_path / "a.npz")}, DataError, "not a classifier"),
    ]:
        with pytest.raises(error, match=message):
            clean_pages(folders / "in", tmp_path / "out", **options)
    assert not read_output(tmp_path / "out")
