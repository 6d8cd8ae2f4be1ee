"""Language identification: on translations that Django ships (BSD-3-Clause), which neither model was made from."""

import gettext
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from llama_jax.clean.items import Dropped
from llama_jax.clean.language import identify_by_fasttext, identify_language, keep_languages
from llama_jax.errors import ConfigError, DataError

WIKIPEDIAS = ["bg", "ca", "cs", "da", "de", "en", "es", "fr", "hr", "hu", "it", "nl",
              "pl", "pt", "ro", "ru", "sl", "sr", "sv", "uk"]
ENGLISH = "The committee met on Tuesday and decided that the bridge should be closed until the river falls again."
GERMAN = "Der Ausschuss trat am Dienstag zusammen und beschloss, die Brücke zu sperren, bis der Fluss wieder fällt."
SERBIAN = "Predsednik je rekao da će deca uvek imati mesto gde mogu da uče, i da je to rešenje bolje nego pre dve godine."
CROATIAN = "Predsjednik je rekao da će djeca uvijek imati mjesto gdje mogu učiti, i da je to bolje nego prije dvije godine."


def sentences(locale: str) -> list[str]:
    """The messages of Django in a language that are nearest to 100 characters, cut at a word to at most 110."""
    folder = Path(find_spec("django").submodule_search_locations[0])
    found = set()
    for file in sorted(folder.glob(f"**/locale/{'de' if locale == 'en' else locale}/LC_MESSAGES/django*.mo")):
        with file.open("rb") as stream:
            catalog = gettext.GNUTranslations(stream)._catalog
        for source, translation in catalog.items():
            source = source[0] if isinstance(source, tuple) else source
            text = source if locale == "en" else translation if translation != source else ""
            text = re.sub(r"%\(\w+\)[sd]|%[sd]|\{\w*\}|<[^>]+>", " ", text)
            text = " ".join(text.split())
            if source and len(text) >= 60:
                found.add(text if len(text) <= 110 else text[:100].rpartition(" ")[0])
    return sorted(found, key=lambda text: (abs(len(text) - 100), text))[:60]


@pytest.mark.skipif(find_spec("django") is None, reason="needs django, for its translations")
def test_twenty_languages_on_sentences_of_a_hundred_characters():
    right, all_, wrong = 0, 0, {}
    for locale in [*WIKIPEDIAS, "sr_Latn"]:
        texts = sentences(locale)
        assert len(texts) >= 50
        answers = [identify_language(text)[0] for text in texts]
        good = answers.count(locale[:2])
        right, all_, wrong[locale] = right + good, all_ + len(texts), len(texts) - good
    assert right / all_ >= 0.97
    others = {locale: number for locale, number in wrong.items() if locale not in ("hr", "sr_Latn")}
    assert sum(others.values()) <= 8  # 0.5% apart from Croatian and Serbian in Latin letters
    norwegian = [identify_language(text)[0] for text in sentences("nb")]
    assert sum(answer in ("no", "nn") for answer in norwegian) >= 0.95 * len(norwegian)  # neither Danish nor Swedish


@pytest.mark.parametrize(("text", "language"), [
    (ENGLISH, "en"), (GERMAN, "de"), (SERBIAN, "sr"), (CROATIAN, "hr"), ("你好，今天的天气很好，我们去公园散步吧。", "zh"),
    ("Председник је рекао да ће деца увек имати место где могу да уче.", "sr"), ("0x3F 77 88 {} ;; == 9931 //", "zxx"),
])
def test_known_sentences(text, language):
    assert identify_language(text)[0] == language
    assert identify_language(text) == identify_language(text.replace(" ", "\n"))


def test_other_languages_and_uncertain_ones_are_dropped():
    edit, metadata = keep_languages(("en",)), {"language": "de"}
    assert edit(ENGLISH, metadata) == ENGLISH
    assert metadata["language"] == "en" and metadata["language_score"] > 0.9
    with pytest.raises(Dropped, match=r"^language: de$"):
        edit(GERMAN, {})
    with pytest.raises(Dropped, match=r"^language: en, but below 1$"):
        keep_languages(("en",), threshold=1.0)(ENGLISH[:30], {})
    assert keep_languages(())(GERMAN, metadata) == GERMAN and metadata["language"] == "de"


def test_odd_text_has_a_language_too():
    for text in ["", " \n", "\0\0", "\ud800 half a pair", "word" * 1_000_000, "A\nB\nC"]:
        language, probability = identify_language(text)
        assert language and 0 <= probability <= 1


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(ConfigError, match="unknown language 'english'"):
        keep_languages(("english",))
    with pytest.raises(ConfigError, match=r"probability from 0 to 1, got 50"):
        keep_languages(("en",), threshold=50)
    with pytest.raises(DataError, match="does not exist"):
        keep_languages(("en",), model=str(tmp_path / "lid.176.bin"))


@pytest.mark.skipif(find_spec("fasttext_pybind") is None, reason="needs fasttext-wheel or fasttext-predict")
def test_a_file_that_is_no_fasttext_model(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"no model at all" * 10)
    with pytest.raises(DataError, match="not a fastText model"):
        keep_languages(("en",), model=str(tmp_path / "model.bin"))


def test_without_fasttext_the_error_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "model.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "fasttext_pybind", None)
    with pytest.raises(ConfigError, match="pip install fasttext-predict"):
        keep_languages(("en",), model=str(tmp_path / "model.bin"))


@pytest.mark.skipif(find_spec("fasttext") is None, reason="needs fasttext-wheel, which trains")
def test_a_fasttext_model(tmp_path):
    train = ("import fasttext, sys; m = fasttext.train_supervised(sys.argv[1], minn=2, maxn=3, epoch=50, lr=1.0, thread=1, "
             "verbose=0, bucket=1000, dim=8); m.save_model(sys.argv[2])")
    lines = [f"__label__{code} {word}\n" for code, text in (("en", ENGLISH), ("de", GERMAN)) for word in text.split()]
    (tmp_path / "text").write_text("".join(lines))
    model = str(tmp_path / "model.bin")
    subprocess.run([sys.executable, "-c", train, str(tmp_path / "text"), model], check=True, capture_output=True)
    assert identify_by_fasttext(ENGLISH + "\n" + ENGLISH, model)[0] == "en"
    assert identify_by_fasttext(GERMAN, model)[0] == "de"
    assert identify_by_fasttext("", model)[1] <= 1
    edit = keep_languages(("en",), model=model)
    assert edit(ENGLISH, {}) == ENGLISH
    with pytest.raises(Dropped, match="language: de"):
        edit(GERMAN, {})
