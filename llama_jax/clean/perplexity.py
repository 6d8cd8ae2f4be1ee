"""The quality filter of CCNet (Wenzek et al. 2020, section 3.3): perplexity by an n-gram model of Wikipedia, and three buckets.

The model is one of KenLM's, such as CCNet's own, or one that is trained here: 5-grams over SentencePiece pieces.
"""

import re
import unicodedata
import zipfile
from array import array
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from llama_jax.clean.items import Dropped, Edit
from llama_jax.clean.language import web_languages
from llama_jax.clean.ngrams import NgramModel, train_ngrams
from llama_jax.clean.stages import Workplace
from llama_jax.clean.steps import CountedStep
from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.atomic import atomic_stream
from llama_jax.tokenizer.sentencepiece import SentencePiece
from llama_jax.tokenizer.training import cut_line, subsample_sentences, train_sentencepiece

PERPLEXITY_FILE = "perplexity.npz"
"""File in an output folder with the model that was trained; --perplexity_model reads it, too."""
BUCKETS = ("head", "middle", "tail")
_MOST_CHARACTERS = 80_000_000
"""Characters of text that a model is trained on, as lines drawn evenly from all."""
_MOST_CHARACTERS_OF_PIECES = 20_000_000
_VOCABULARIES = (32_000, 16_000, 8_000, 4_000, 2_000, 1_000, 500)
"""Numbers of pieces; the first is taken that the text gives."""
_LONGEST_LINE = 10_000
_TABLES = ("keys", "log_probs", "backoffs")
_STEP, _STEPS = 0.01, 2_000
"""Perplexities are counted by their natural logarithm, in steps of 1%, up to e^20."""
_TO_ASCII = str.maketrans("‘’‚‛′“”„‟″«»‐‑‒–—―−", "'''''" + 7 * '"' + 7 * "-", "\u200b\ufeff\u00ad")


def normalize_for_perplexity(line: str) -> str:
    """Lower case, every digit 0, no accents, ASCII quotation marks and dashes, single spaces: as CCNet prepares lines."""
    line = line.lower().translate(_TO_ASCII)
    if not line.isascii():
        line = "".join(char for char in unicodedata.normalize("NFD", line) if unicodedata.category(char) != "Mn")
    return " ".join(re.sub(r"\d", "0", line).split())


def add_perplexity(text: str, metadata: dict[str, Any], *, model: str, tokenizer: str = "") -> str:
    """An edit that adds `perplexity` to the metadata: per token, end of line included, where every line is a sentence.

    `model` is a file written by TrainPerplexity, or one of KenLM's, whose words are the pieces of the SentencePiece model
    `tokenizer`, or without one what stands between spaces.
    """
    lines = [part for line in text.split("\n") for part in cut_line(normalize_for_perplexity(line), _LONGEST_LINE)]
    log_prob, tokens = _load_model(model, tokenizer)(lines)
    per_token = -log_prob / tokens if tokens else np.inf
    metadata["perplexity"] = round(float(np.exp(min(per_token, _STEP * _STEPS))), 2)
    return text


def check_perplexity_options(options: Any) -> bool:
    """Whether the filter is asked for; raises ConfigError or DataError where its options do not fit, or files are missing."""
    asked = bool(options.perplexity_text or options.perplexity_model)
    low_high = options.perplexity_thresholds
    if not asked and (low_high or options.perplexity_tokenizer):
        raise ConfigError("perplexity_thresholds and perplexity_tokenizer need a model: name --perplexity_text or "
                          "--perplexity_model.")
    if options.perplexity_text and options.perplexity_model:
        raise ConfigError("perplexity_text trains a model and perplexity_model names one; give one of them.")
    if asked and (number := len(web_languages(options))) != 1:
        raise ConfigError(f"perplexity is by a model of one language; name one, not {number}, after --languages.")
    if low_high and not (len(low_high) == 2 and 0 < low_high[0] < low_high[1]):
        raise ConfigError(f"perplexity_thresholds are two numbers, where head and middle end, got {list(low_high)}.")
    if unknown := set(options.buckets) - set(BUCKETS):
        raise ConfigError(f"buckets are head, middle and tail, got {min(unknown)}.")
    if options.perplexity_text:
        find_text_files(*options.perplexity_text)
    for file in filter(None, (options.perplexity_model, options.perplexity_tokenizer)):
        if not Path(file).is_file():
            raise DataError(f"{file} does not exist; name the file of a model.")
    if options.perplexity_model:
        _load_model(options.perplexity_model, options.perplexity_tokenizer)
    return asked


def perplexity_steps(place: Workplace, options: Any) -> list[PipelineStep]:
    """The steps that measure perplexity, and choose by it where thresholds are given; else they count it for the thirds."""
    model = options.perplexity_model or str(place.output / PERPLEXITY_FILE)
    measure = place.edit("perplexity", partial(add_perplexity, model=model, tokenizer=options.perplexity_tokenizer))
    if options.perplexity_thresholds:
        return [measure, place.edit("buckets", keep_buckets(options.buckets, thresholds=options.perplexity_thresholds))]
    return [measure, CountPerplexities(place.folder("counted"))]


def keep_buckets(buckets: tuple[str, ...], *, thresholds: tuple[float, ...] = (), counted: Path | None = None) -> Edit:
    """An edit that adds `bucket` to the metadata and drops pages of other buckets than `buckets`.

    Head is what has a perplexity below the first of two thresholds, tail what has at least the second. Without thresholds, they
    are where each third of the pages ends that CountPerplexities saw, to 1%; `counted` is its folder.
    """
    return partial(_keep_buckets, buckets=buckets, thresholds=thresholds, counted=counted)


def _keep_buckets(text: str, metadata: dict[str, Any], *, buckets: tuple[str, ...], thresholds: tuple[float, ...],
                  counted: Path | None) -> str:
    low_high = thresholds or _thirds(counted)
    metadata["bucket"] = BUCKETS[int(np.searchsorted(low_high, metadata["perplexity"], side="right"))]
    if metadata["bucket"] not in buckets:
        raise Dropped(f"perplexity: {metadata['bucket']}")
    return text


@cache
def _thirds(folder: Path) -> tuple[float, float]:
    """The perplexities that a third, and two thirds, of all pages are below."""
    cumulated = np.cumsum(sum(np.load(file) for file in sorted(folder.glob("*.npy"))))
    return tuple(float(np.exp((np.searchsorted(cumulated, cumulated[-1] * share / 3) + 1) * _STEP)) for share in (1, 2))


class CountPerplexities(PipelineStep):
    """Counts the perplexities of the documents of a task, by their logarithm, for the thirds of all."""

    type, name = "uncounted", "count perplexities"

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        counts = np.zeros(_STEPS + 1, np.int64)
        for document in data:
            counts[min(int(np.log(document.metadata["perplexity"]) / _STEP), _STEPS)] += 1
            yield document
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_stream(self._folder / f"{rank:05d}.npy") as stream:
            np.save(stream, counts)


class TrainPerplexity(CountedStep):
    """Trains the model on text files (.txt, .jsonl, .parquet), and writes it as one file; the step is a stage of one task."""

    def __init__(self, paths: tuple[str, ...], file: Path, *, examples: Path):
        super().__init__("train perplexity", examples=examples)
        self._paths, self._file = paths, file

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> None:
        lines = subsample_sentences(self._lines(), _MOST_CHARACTERS)
        pieces = _train_pieces(lines)
        ids = _encode_lines(lines, pieces)
        model = train_ngrams(ids, pieces.vocab_size, bos_id=pieces.bos_id)
        tables = {f"{kind}_{n}": table for kind in _TABLES for n, table in enumerate(getattr(model, kind))}
        with atomic_stream(self._file) as stream:
            np.savez(stream, pieces=np.frombuffer(pieces.model, np.uint8), **tables)
        self.stat_update("tokens", value=len(ids))
        self.stat_update("pieces", value=pieces.vocab_size)
        self.stat_update("n-grams", value=sum(map(len, model.log_probs)))

    def _lines(self) -> Iterator[str]:
        for file in find_text_files(*self._paths):
            for text in read_documents(file):
                self.count_in(text)
                self.keep(Document(text, str(file)), before=text)
                for line in text.split("\n"):
                    yield from cut_line(normalize_for_perplexity(line), _LONGEST_LINE)


def _train_pieces(lines: list[str]) -> SentencePiece:
    sample = subsample_sentences(lines, _MOST_CHARACTERS_OF_PIECES)
    for vocab_size in _VOCABULARIES:
        try:
            return train_sentencepiece(sample, vocab_size)
        except DataError as error:
            reason = error
    raise DataError(f"the text for perplexity is too small to train a model on: {reason}")


def _encode_lines(lines: list[str], pieces: SentencePiece) -> np.ndarray:
    """int32[tokens]: the lines one after another, each between BOS and EOS."""
    ids = array("i")
    for line in lines:
        ids.append(pieces.bos_id)
        ids.extend(pieces.encode(line))
        ids.append(pieces.eos_id)
    return np.array(ids, np.int32)


@cache
def _load_model(file: str, tokenizer: str) -> Callable[[list[str]], tuple[float, int]]:
    """A function: lines -> (log probability of all, number of tokens)."""
    return _own_model(file) if file.endswith(".npz") else _kenlm_model(file, tokenizer)


def _own_model(file: str) -> Callable[[list[str]], tuple[float, int]]:
    try:
        with np.load(file, allow_pickle=False) as saved:
            pieces = SentencePiece(saved["pieces"].tobytes(), source=file)
            tables = [[saved[name] for name in sorted(saved.files) if name.startswith(kind)] for kind in _TABLES]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} is not a model of perplexity that `clean` wrote ({error}); name another.") from None
    model = NgramModel(pieces.vocab_size, pieces.bos_id, *tables)

    def score(lines: list[str]) -> tuple[float, int]:
        ids = _encode_lines(lines, pieces)
        return float(model.score(ids).sum()), len(ids) - len(lines)

    return score


def _kenlm_model(file: str, tokenizer: str) -> Callable[[list[str]], tuple[float, int]]:
    try:
        import kenlm
    except ImportError:
        raise ConfigError("a model of KenLM needs kenlm: pip install kenlm (it is built with cmake); or train one with "
                          "--perplexity_text.") from None
    try:
        model = kenlm.Model(file)
        pieces = sentencepiece.SentencePieceProcessor(model_file=tokenizer) if tokenizer else None
    except (OSError, RuntimeError) as error:
        raise DataError(f"cannot read {file} or {tokenizer or 'its tokenizer'}: {str(error).strip().splitlines()[0]}.") from None

    def score(lines: list[str]) -> tuple[float, int]:
        sentences = [pieces.EncodeAsPieces(line) if pieces else line.split() for line in lines]
        return (sum(model.score(" ".join(sentence)) for sentence in sentences) * float(np.log(10)),
                sum(len(sentence) + 1 for sentence in sentences))

    return score
