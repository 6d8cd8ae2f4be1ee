"""Everything a run reads: its tokenizer, its training sources with their shares, and its held-out text.

Raw sources are prepared into the run directory: the end of each is held out, the rest is trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_jax.config import DataConfig
from llama_jax.data.packing import TokenSource
from llama_jax.data.prepare import MANIFEST, fingerprint, write_shards
from llama_jax.data.sources import EMBEDDED, documents, files_of
from llama_jax.data.tokenizer import Tokenizer, train
from llama_jax.errors import ConfigError, DataError

SMALL = 16 << 20
"""Bytes of raw text below which starting worker processes costs more than it saves."""


@dataclass(frozen=True)
class Corpus:
    """What training and the held-out loss read."""

    tokenizer: Tokenizer
    sources: list[TokenSource]
    shares: list[float]
    heldout: list[TokenSource]


def open_corpus(config: DataConfig, vocab_size: int, workdir: Path) -> Corpus:
    """Find or make tokenizer and shards, and check that they fit each other and the model.

    Raises DataError for data that is missing, damaged or does not fit, ConfigError for a wrong vocabulary size.
    """
    paths = [path for path, _ in config.shares()]
    tokenizer = _find_tokenizer(config, paths, workdir) or train(
        (part for path in paths if not is_prepared(path) for part in RawSource(path, config.heldout_fraction).training()),
        vocab_size,
    )
    if tokenizer.vocab_size != vocab_size:
        raise ConfigError(f"the tokenizer has {tokenizer.vocab_size} pieces but model.vocab_size is {vocab_size}; set "
                          f"--model.vocab_size {tokenizer.vocab_size} or another tokenizer.")
    tokenizer.save(workdir)

    training, heldout = [], []
    for path, name in zip(paths, _names(paths), strict=True):
        if is_prepared(path):
            training.append(Path(path))
            continue
        train_folder, heldout_folder = _prepare_raw(path, name, config.heldout_fraction, tokenizer, workdir)
        training.append(train_folder)
        heldout += [heldout_folder] if heldout_folder else []
    for path, name in zip(config.heldout, _names(config.heldout), strict=True):
        heldout.append(Path(path) if is_prepared(path) else _prepare_raw(path, f"{name}-heldout", 0.0, tokenizer, workdir)[0])

    sources = [TokenSource(folder, config.sequence_length) for folder in training]
    heldout_sources = [TokenSource(folder, config.sequence_length) for folder in heldout]
    for source, name in zip(sources, _names(paths), strict=True):
        source.name = name
    for source in sources + heldout_sources:
        source.check(tokenizer.sha256, vocab_size)
    shares = [share or source.manifest.tokens for (_, share), source in zip(config.shares(), sources, strict=True)]
    return Corpus(tokenizer, sources, shares, heldout_sources)


def is_prepared(path: str) -> bool:
    """Whether `path` is a folder that `prepare` made."""
    return (Path(path) / MANIFEST).is_file()


def _find_tokenizer(config: DataConfig, paths: list[str], workdir: Path) -> Tokenizer | None:
    """The tokenizer asked for, else the run's own, else the one beside prepared shards."""
    if config.tokenizer:
        return Tokenizer.load(config.tokenizer)
    places = [workdir, *(Path(path) for path in paths if is_prepared(path))]
    return next((Tokenizer.load(place) for place in places if (place / Tokenizer.FILE).is_file()), None)


def _names(paths: list[str] | tuple[str, ...]) -> list[str]:
    """Short and different names of sources."""
    names = [Path(path.removeprefix(EMBEDDED)).name.split(".")[0] or "source" for path in paths]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names)]


def _prepare_raw(
    path: str, name: str, fraction: float, tokenizer: Tokenizer, workdir: Path
) -> tuple[Path, Path | None]:
    """Shards of a raw source's training part, and of its held-out part where there is one."""
    source = RawSource(path, fraction)
    settings = fingerprint(source.files) | {"heldout_fraction": fraction}
    parts = [("train", source.training())] + ([("heldout", source.heldout())] if fraction else [])
    folders = []
    for part, texts in parts:
        folders.append(workdir / "data" / name / part)
        workers = 1 if source.size < SMALL else 0
        write_shards(texts, tokenizer, folders[-1], settings | {"part": part}, workers=workers, shard_tokens=1 << 26)
    return folders[0], folders[1] if fraction else None


class RawSource:
    """Raw text whose last `fraction` of bytes is held out; the cut falls at the last line end before it."""

    def __init__(self, path: str, fraction: float):
        self.files = files_of(path)
        self.size = sum(len(text.encode()) for text in self._texts())
        if self.size == 0:
            raise DataError(f"{path} holds no text: its documents are empty.")
        self._kept = self.size - int(self.size * fraction)

    def _texts(self) -> Iterator[str]:
        for file in self.files:
            yield from documents(file)

    def _halves(self) -> Iterator[tuple[str, str]]:
        room = self._kept
        for text in self._texts():
            data = text.encode()
            if len(data) > room > 0:
                head = data[:room]
                first = head[: head.rfind(b"\n") + 1 or room].decode(errors="ignore")
                yield first, text[len(first):]
            else:
                yield (text, "") if room > 0 else ("", text)
            room -= len(data)

    def training(self) -> Iterator[str]:
        """Documents to train on."""
        return (first for first, _ in self._halves() if first)

    def heldout(self) -> Iterator[str]:
        """Documents, or the end of one, that training never sees."""
        return (second for _, second in self._halves() if second)
