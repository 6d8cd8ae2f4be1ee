"""Language identification of documents: py3langid, whose model comes with it, or a fastText model such as lid.176.bin."""

import re
from functools import cache, partial
from pathlib import Path
from typing import Any

from llama_jax.clean.items import Dropped, Edit
from llama_jax.errors import ConfigError, DataError

_MOST_CHARACTERS = 10_000
"""A document's language is that of its beginning; longer input would only take longer."""

# Croatian and Serbian in Latin letters are one language in most of their words. What tells them apart is how each writes the old
# vowel yat (mleko, mlijeko) and some words that only one of them uses.
_SERBIAN = """
bezbednost bezbedno celo cena čovek dece deca deo delo delovi delova devojka drugde gde ovde onde negde nigde svugde uvek vek
vekova vera verovatno vreme pre posle sledeći sledeća sledeće sledećeg mesto mesta mesec meseci reč reči rečima rešenje rešenja
rešiti svet sveta svetu svetski svetske telo tela hteo hteli htela video videti voleo voleti umesto uspeh uspešno neuspešno
promena promene promenu promeni promeniti promenite promenjen izmena izmene izmeniti izmenite izmenjen primer primera primeniti
zamena zamene zameniti unapred napred vrednost vrednosti ceo lep lepo levo nedelja nedelje nedelju ponedeljak obaveštenje
obaveštenja bezbednosni odeljak poslednji poslednja poslednje poslednjih procena ko neko niko svako šta tačka tačke tačno tačan
netačan opština opštine opšti opšte evropa evrope evropski evropske hiljada hiljade hiljadu januar januara februar februara mart
marta april aprila maj maja jun juna jul jula avgust avgusta septembar septembra oktobar oktobra novembar novembra decembar
decembra takođe saopštenje sopstveni saradnja bioskop pozorište fudbal hleb vazduh muzika muzike organizovati definisan
definisati definisano registrovan registrovati korišćenje korišćenja veb hiperveza štampa hemija porodica porodice sudija stepen
uopšte učestvovati sedište vaspitanje zahtev zahtevi zahteva zahtevate zahtevani dozvoljen dozvoljeno
"""
_CROATIAN = """
sigurnosni cijelo cijela cijena cijene cijenu čovjek djece djeca dio dijelovi dijelova djelo djevojka drugdje gdje ovdje ondje
negdje nigdje svugdje uvijek vijek stoljeće stoljeća vjera vjerojatno vrijeme prije poslije sljedeći sljedeća sljedeće sljedećeg
slijedi mjesto mjesta mjesec mjeseci riječ riječi riječima rješenje rješenja riješiti svijet svijeta svijetu svjetski svjetske
tijelo tijela htio htjeli htjela vidio vidjeti volio voljeti umjesto uspjeh uspješno neuspješno promjena promjene promjenu
promijeni promijeniti promijenite promijenjen izmjena izmjene izmijeniti izmijenite izmijenjen primjer primjera primijeniti
zamjena zamjene zamijeniti unaprijed naprijed vrijednost vrijednosti cijeli lijep lijepo lijevo tjedan tjedna tjedno ponedjeljak
obavijest obavijesti odjeljak posljednji posljednja posljednje posljednjih procjena tko netko nitko svatko točka točke točno
točan netočan općina općine opći opće europa europe europski europske tisuća tisuće tisuću siječanj siječnja veljača veljače
ožujak ožujka travanj travnja svibanj svibnja lipanj lipnja srpanj srpnja kolovoz kolovoza rujan rujna listopad listopada
studeni studenoga prosinac prosinca sustav sustava također tijekom priopćenje vlastiti suradnja kino kazalište nogomet kruh
glazba glazbe organizirati definiran definirati definirano registriran registrirati korištenje korištenja poveznica poveznice
zaporka zaporke zaporku tisak kemija obitelj obitelji sudac stupanj uopće sudjelovati sjedište odgoj pogreška pogreške zahtjev
zahtjevi zahtjeva zahtijeva zahtijevani dopušten dopušteno izbornik poslužitelj preglednik računalo računala
"""


def identify_language(text: str) -> tuple[str, float]:
    """(ISO 639-1 code, probability) of the language of `text`, by py3langid's naive Bayes over byte n-grams.

    It knows 138 languages (Bosnian counts as Croatian or Serbian), and gives `zxx` for what is no language.
    """
    beginning = _beginning(text)
    language, probability = _built_in_model().classify(beginning)
    if language in ("hr", "sr"):
        words = re.findall(r"[^\W\d_]+", beginning.lower())
        serbian, croatian = (sum(map(set(marks.split()).__contains__, words)) for marks in (_SERBIAN, _CROATIAN))
        if serbian != croatian and not re.search(r"[а-я]", beginning):
            language = "sr" if serbian > croatian else "hr"
    return language, float(probability)


def identify_by_fasttext(text: str, model: str) -> tuple[str, float]:
    """(language, probability) of `text` by a fastText model file, whose labels are `__label__LANGUAGE`; ("", 0.0) for no word.

    Raises:
        ConfigError: fastText is not installed.
        DataError: `model` is not a fastText model.
    """
    # not fasttext.load_model(...).predict, which fails with numpy 2 (np.array(..., copy=False))
    found = _fasttext_model(model).predict(_beginning(text) + "\n", 1, 0.0, "strict")
    return (found[0][1].removeprefix("__label__"), min(float(found[0][0]), 1.0)) if found else ("", 0.0)


def web_languages(options: Any) -> tuple[str, ...]:
    """The languages of web pages that are kept: those that are asked for, else English, as in the paper."""
    return ("en",) if options.languages is None else options.languages


def keep_languages(languages: tuple[str, ...], *, threshold: float = 0.5, model: str = "") -> Edit:
    """An edit that drops documents of other languages than `languages`, or of less than `threshold` probability.

    It adds `language` and `language_score` to the metadata, which replace what was there, and drops nothing where `languages` is
    empty. CCNet (Wenzek et al. 2020, section 3.2) drops below 0.5. `model` is a fastText model file; without it,
    `identify_language` decides.

    Raises:
        ConfigError, DataError: `threshold` is no probability, a language is unknown, or the model cannot be read.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"language_threshold is a probability from 0 to 1, got {threshold}.")
    if model:
        _fasttext_model(model)
    else:
        known = set(_built_in_model().labels)
        if wrong := [language for language in languages if language not in known]:
            raise ConfigError(f"unknown language {wrong[0]!r}; known are the ISO 639 codes {' '.join(sorted(known))}.")
    return partial(_keep_languages, languages=languages, threshold=threshold, model=model)


def _keep_languages(text: str, metadata: dict[str, Any], *, languages: tuple[str, ...], threshold: float, model: str) -> str:
    language, probability = identify_by_fasttext(text, model) if model else identify_language(text)
    metadata["language"], metadata["language_score"] = language, round(probability, 4)
    if languages and language not in languages:
        raise Dropped(f"language: {language or 'none'}")
    if languages and probability < threshold:
        raise Dropped(f"language: {language}, but below {threshold:g}")
    return text


def _beginning(text: str) -> str:
    """One line of what decides, without NUL, which would end it."""
    return " ".join(text[:_MOST_CHARACTERS].replace("\0", " ").encode(errors="replace").decode().split())


@cache
def _built_in_model() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError("language identification needs py3langid: pip install llama_jax[data].") from None
    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages([language for language in model.labels if language != "bs"])
    return model


@cache
def _fasttext_model(file: str) -> Any:
    if not Path(file).is_file():
        raise DataError(f"language model {file} does not exist.")
    try:
        import fasttext_pybind
    except ImportError:
        raise ConfigError("a fastText model needs fastText: pip install fasttext-predict (or fasttext-wheel), or leave out "
                          "--language_model.") from None
    model = fasttext_pybind.fasttext()
    try:
        model.loadModel(file)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise DataError(f"language model {file} is not a fastText model: {error}.") from None
    return model
