"""Pages like those that Wikipedia cites (paper, section 2.1): a linear classifier of references against random pages."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from scipy import optimize, sparse

from llama_jax.clean.inputs import find_input_files
from llama_jax.clean.items import DamagedInput, Dropped, Edit, InputFile
from llama_jax.clean.kinds import KINDS
from llama_jax.clean.main_text import main_text
from llama_jax.clean.steps import CountedStep
from llama_jax.clean.warc import read_warc
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.atomic import atomic_stream

REFERENCE_FILE = "reference.npz"
"""File in an output folder with the classifier that was trained; --reference_model reads it, too."""
_FEATURES = 1 << 20
"""Words and pairs of words share so many weights, by their hash."""
_MOST_WORDS = 2_000
"""A page is judged by its beginning."""
_MOST_PAGES, _FEWEST_PAGES = 100_000, 20
"""Pages of each kind for training: 16 bytes of memory for each word of each."""
_HELD_OUT = 5
"""Every fifth page of each kind is not trained on."""
_PENALTY = 0.1
"""Weight of the squared weights, divided by the number of pages."""


def page_features(text: str) -> np.ndarray:
    """int64[features], sorted: which of the hashed words, and pairs of words that stand together, are in the text."""
    words = re.findall(r"\w+", text[: 20 * _MOST_WORDS].lower())[:_MOST_WORDS]
    hashes = np.array([zlib.crc32(word.encode(errors="replace")) for word in words], np.uint64)
    pairs = hashes[:-1] * np.uint64(0x9E3779B97F4A7C15) + hashes[1:]  # wraps around
    return np.unique(np.concatenate([hashes, pairs >> np.uint64(32)]) % np.uint64(_FEATURES)).astype(np.int64)


def fit_classifier(pages: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    """float64[_FEATURES + 1]: weights and bias of a logistic regression with both kinds of pages as important as each other.

    `pages` are what `page_features` gives; each feature of a page is worth 1 / sqrt(their number). `labels` (bool[pages]) say
    which are references.
    """
    matrix, signs = _as_matrix(pages), np.where(labels, 1.0, -1.0)
    importance = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    used = np.unique(matrix.indices)  # only these get a weight
    matrix = matrix[:, used]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (matrix @ weights[:-1] + weights[-1])
        pull = -importance * signs / (1 + np.exp(np.minimum(margins, 500)))
        penalty = _PENALTY / len(pages)
        value = importance @ np.logaddexp(0, -margins) + penalty / 2 * weights[:-1] @ weights[:-1]
        return value, np.append(matrix.T @ pull + penalty * weights[:-1], pull.sum())

    found = optimize.minimize(loss, np.zeros(len(used) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    weights = np.zeros(_FEATURES + 1)
    weights[used], weights[-1] = found[:-1], found[-1]
    return weights


def _as_matrix(pages: list[np.ndarray]) -> sparse.csr_matrix:
    """float64[pages, _FEATURES]."""
    sizes = np.array([len(page) for page in pages])
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    return sparse.csr_matrix((values, np.concatenate(pages), np.append(0, np.cumsum(sizes))), shape=(len(pages), _FEATURES))


class TrainReference(CountedStep):
    """Trains the classifier on web archives or text files of both kinds, and writes it as one file; a stage of one task.

    Counts how many of the held-out pages of each kind it classifies rightly at the threshold.
    """

    def __init__(self, paths: tuple[tuple[str, ...], tuple[str, ...]], file: Path, *, threshold: float, examples: Path):
        """`paths` are those of references and of random pages."""
        super().__init__("train reference", examples=examples)
        self._paths, self._file, self._threshold = paths, file, threshold

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        kinds = [list(islice(self._features(paths), _MOST_PAGES)) for paths in self._paths]
        for pages, paths in zip(kinds, self._paths, strict=True):
            if len(pages) < _FEWEST_PAGES:
                raise DataError(f"{' '.join(paths)} holds {len(pages)} page(s) of text; the classifier needs {_FEWEST_PAGES}.")
        train = [[page for number, page in enumerate(pages) if number % _HELD_OUT] for pages in kinds]
        labels = np.repeat([True, False], [len(pages) for pages in train])
        weights = fit_classifier(train[0] + train[1], labels).astype(np.float32)
        for pages, name in zip(kinds, ("references", "random pages"), strict=True):
            held_out = pages[::_HELD_OUT]
            taken = sum(_probability(page, weights) >= self._threshold for page in held_out)
            self.stat_update(f"held-out {name}", value=len(held_out))
            self.stat_update(f"held-out {name} classified as references", value=taken)
        with atomic_stream(self._file) as stream:
            np.savez(stream, weights=weights)
        self.save_examples(rank, tasks=world_size)

    def _features(self, paths: tuple[str, ...]) -> Iterator[np.ndarray]:
        for name, page in _read_pages(paths):
            if isinstance(page, Dropped):
                self.stat_update("documents_in")
                self.drop(str(page), name=name, text="")
                continue
            self.count_in(page)
            self.keep(Document(page, name), before=page)
            yield page_features(page)


def reference_probability(text: str, weights: np.ndarray) -> float:
    """Probability that a page is a reference, where as many pages are references as are not."""
    return _probability(page_features(text), weights)


def _probability(features: np.ndarray, weights: np.ndarray) -> float:
    margin = float(weights[features].sum(dtype=np.float64)) / max(len(features), 1) ** 0.5 + float(weights[-1])
    return float(1 / (1 + np.exp(-np.clip(margin, -500, 500))))


def _read_pages(paths: tuple[str, ...]) -> Iterator[tuple[str, str | Dropped]]:
    """(file, text of a page) of web archives where the paths hold any, else of text files."""
    if not (archives := _archives(paths)):
        for file in find_text_files(*paths):
            yield from ((str(file), text) for text in read_documents(file))
    for file in archives:
        try:
            for item in read_warc(file.path):
                try:
                    yield file.name, item if isinstance(item, Dropped) else main_text(item.text, item.metadata)
                except Dropped as dropped:
                    yield file.name, dropped
        except DamagedInput as error:
            yield file.name, Dropped(f"{file.name}: {error}")


def _archives(paths: tuple[str, ...]) -> list[InputFile]:
    kind = KINDS["commoncrawl"]
    files = [file for path in paths for file in ([Path(path)] if Path(path).is_file() else Path(path).rglob("*"))]
    return find_input_files(paths, kind) if any(file.name.lower().endswith(kind.suffixes) for file in files) else []


def check_reference_options(options: Any) -> bool:
    """Whether the filter is asked for; raises ConfigError or DataError where its options do not fit, or files are missing."""
    trains = bool(options.reference_pages or options.random_pages)
    if trains and not (options.reference_pages and options.random_pages):
        raise ConfigError("the classifier of references needs both --reference_pages and --random_pages.")
    if trains and options.reference_model:
        raise ConfigError("reference_pages and random_pages train a classifier and reference_model names one; give one of them.")
    if not 0 <= options.reference_threshold <= 1:
        raise ConfigError(f"reference_threshold is a probability from 0 to 1, got {options.reference_threshold}.")
    for paths in filter(None, (options.reference_pages, options.random_pages)):
        if not _archives(paths):
            find_text_files(*paths)
    if options.reference_model:
        _load_weights(options.reference_model)
    return trains or bool(options.reference_model)


def keep_references(model: str, *, threshold: float) -> Edit:
    """An edit that adds `reference_score` to the metadata, and drops pages below `threshold`; `model` is a REFERENCE_FILE."""
    return partial(_keep_references, model=model, threshold=threshold)


def _keep_references(text: str, metadata: dict[str, Any], *, model: str, threshold: float) -> str:
    probability = reference_probability(text, _load_weights(model))
    metadata["reference_score"] = round(probability, 4)
    if probability < threshold:
        raise Dropped("unlike references")
    return text


@cache
def _load_weights(file: str) -> np.ndarray:
    try:
        with np.load(file, allow_pickle=False) as saved:
            weights = saved["weights"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is not a classifier of references that `clean` wrote ({error}); name another.") from None
    if weights.shape != (_FEATURES + 1,):
        raise DataError(f"{file} has {len(weights):,} weights, wanted are {_FEATURES + 1:,}; train it again.")
    return weights
