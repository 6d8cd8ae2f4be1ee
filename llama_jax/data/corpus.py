"""Everything a run reads: its tokenizer, its training sources with their shares, and its held-out text.

Raw sources are prepared into the run directory: the end of each is held out, the rest is trained on.
"""

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_jax.config import DataConfig
from llama_jax.data.manifest import MANIFEST_FILE
from llama_jax.data.prepare import PREPARE_PROGRESS
from llama_jax.data.raw_source import RawSource
from llama_jax.data.sources import EMBEDDED_PREFIX
from llama_jax.data.windows import TokenSource
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.atomic import write_atomic
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import holds_tokenizer, load_tokenizer
from llama_jax.tokenizer.training import train_sentencepiece

ORIGIN = "source.txt"
"""File beside the shards of a raw source, which says what path it was named by; earlier versions wrote none."""


@dataclass(frozen=True)
class Corpus:
    """What training and the held-out loss read."""

    tokenizer: Tokenizer
    sources: list[TokenSource]
    shares: list[float]
    """As given, or the sources' tokens; they need not add up to 1."""
    heldout: list[TokenSource]
    notes: tuple[str, ...] = ()
    """What the user should know of it."""


def open_corpus(config: DataConfig, vocab_size: int, *, workdir: Path, given: Tokenizer | None = None,
                padded: bool = False) -> Corpus:
    """Find or make tokenizer and shards, and check that they fit each other and the model.

    `given` is the tokenizer of weights that exist already; such models may have more ids than it (`padded`).
    Raises DataError for data that is missing, damaged or does not fit, ConfigError for a wrong vocabulary size.
    """
    paths = [path for path, _ in config.shares()]
    raw = {path: RawSource(path, config.heldout_fraction) for path in paths if not _is_prepared(path)}
    raw_heldout = {path: RawSource(path, 0.0) for path in config.heldout if not _is_prepared(path)}
    prepared = {path: TokenSource(path, config.sequence_length) for path in (*paths, *config.heldout)
                if _is_prepared(path)}
    tokenizer = given or _find_tokenizer(config.tokenizer, prepared, workdir) or _train(raw, vocab_size)
    _check(tokenizer, min(tokenizer.vocab_size, vocab_size) if padded else vocab_size, prepared=prepared.values(),
           workdir=workdir)
    if not holds_tokenizer(workdir):
        tokenizer.save(workdir)

    def shards(source: RawSource, part: str, *, name: str) -> TokenSource:
        folder = source.prepare(part, tokenizer, folder=workdir / "data" / name / part)
        if not (origin := folder.parent / ORIGIN).is_file() or origin.read_bytes() != os.fsencode(source.path):
            write_atomic(origin, os.fsencode(source.path))
        return TokenSource(folder, config.sequence_length)

    names = _names(paths, raw, workdir=workdir)
    sources = [prepared.get(path) or shards(raw[path], "train", name=name) for path, name in names.items()]
    heldout = {name: shards(raw[path], "heldout", name=name) for path, name in names.items()
               if path in raw and config.heldout_fraction}
    for path, name in _names(config.heldout, raw_heldout, workdir=workdir).items():
        name = f"{name}-heldout" if name in names.values() else name
        heldout[name] = prepared.get(path) or shards(raw_heldout[path], "train", name=name)
    for source, name in zip([*sources, *heldout.values()], [*names.values(), *heldout], strict=True):
        source.name = name
    shares = [share or source.manifest.tokens for (_, share), source in zip(config.shares(), sources, strict=True)]
    notes = (*_config_notes(config, raw), *_boundary_notes(tokenizer, prepared.values()))
    return Corpus(tokenizer, sources, shares, list(heldout.values()), notes)


def _config_notes(config: DataConfig, raw: Container[str]) -> tuple[str, ...]:
    """What is done with a config's shares and held-out fraction that its words do not say; `raw` sources are split."""
    notes = []
    total = sum(share or 0 for _, share in config.shares())
    if total and abs(total - 1) > 1e-6:
        notes.append(f"the shares of data.sources add up to {total:g}, not 1; each is divided by that")
    whole = [path for path, _ in config.shares() if path not in raw]
    if whole and config.heldout_fraction:
        notes.append(f"nothing of {', '.join(whole)} is held out: data.heldout_fraction holds back text of raw sources only; "
                     "prepare held-out files in a folder of their own and name it in data.heldout")
    elif not config.heldout and not config.heldout_fraction:
        notes.append("no held-out loss: nothing is held out; name held-out text in data.heldout"
                     + (", or set data.heldout_fraction" if len(whole) < len(config.sources) else ""))
    return tuple(notes)


def _boundary_notes(tokenizer: Tokenizer, prepared: Iterable[TokenSource]) -> Iterator[str]:
    """Of prepared sources whose documents begin and end otherwise than the tokenizer says; a file beside it decides that."""
    for source in prepared:
        theirs, ours = (source.manifest.bos_id, source.manifest.eos_id), (tokenizer.bos_id, tokenizer.eos_id)
        if theirs != ours:
            yield (f"{source.folder} was prepared with BOS {theirs[0]} and EOS {theirs[1]}, and the run's tokenizer has BOS "
                   f"{ours[0]} and EOS {ours[1]}: generation begins and ends texts otherwise than they were learned; prepare it "
                   "again with this tokenizer")


def _is_prepared(path: str) -> bool:
    """Whether `path` is a folder that `prepare` made; raises DataError where it did not finish."""
    if (Path(path) / PREPARE_PROGRESS).is_file() and not (Path(path) / MANIFEST_FILE).is_file():
        raise DataError(f"{path} is not finished; run the `python -m llama_jax prepare` that began it again.")
    return (Path(path) / MANIFEST_FILE).is_file()


def _find_tokenizer(wanted: str, prepared: Iterable[str], workdir: Path) -> Tokenizer | None:
    """The tokenizer asked for, else the run's own, else the one beside prepared shards."""
    if wanted:
        return load_tokenizer(wanted)
    places = [workdir, *map(Path, prepared)]
    return next((load_tokenizer(place) for place in places if holds_tokenizer(place)), None)


def _train(raw: dict[str, RawSource], vocab_size: int) -> Tokenizer:
    """A tokenizer of the text that is trained on."""
    if not raw:
        raise DataError("no tokenizer: there is none beside the prepared sources; set --data.tokenizer.")
    return train_sentencepiece((text for source in raw.values() for text in source.part("train")), vocab_size)


def _check(tokenizer: Tokenizer, vocab_size: int, *, prepared: Iterable[TokenSource], workdir: Path) -> None:
    """Before anything is written: does the tokenizer fit the model, the prepared shards, and what the run has used?"""
    if tokenizer.vocab_size != vocab_size:
        raise ConfigError(f"the tokenizer has {tokenizer.vocab_size} pieces but model.vocab_size is {vocab_size}; set "
                          f"--model.vocab_size {tokenizer.vocab_size} or another tokenizer.")
    for source in prepared:
        source.check_fits(tokenizer.sha256, vocab_size)
    if holds_tokenizer(workdir) and (used := load_tokenizer(workdir)).sha256 != tokenizer.sha256:
        raise ConfigError(f"this run was begun with another tokenizer ({workdir / used.FILE}); use another --workdir or the "
                          "old tokenizer.")


def _names(paths: Iterable[str], raw: dict[str, RawSource], *, workdir: Path) -> dict[str, str]:
    """Short and different names of sources, by path, in their order.

    A raw source that this run has prepared keeps its name, whatever now stands beside or before it; another one does not
    get it, though its file is called alike.
    """
    names: dict[str, str] = {}
    for path in raw:
        if known := [name for name in _prepared_names(path, workdir)
                     if name not in names.values() and raw[path].made(workdir / "data" / name / "train")]:
            names[path] = known[0]
    for path in paths:
        if path not in names:
            name, number = _stem(path), 2
            while name in names.values() or (path in raw and _is_of_another(path, workdir / "data" / name / ORIGIN)):
                name, number = f"{_stem(path)}-{number}", number + 1
            names[path] = name
    return {path: names[path] for path in paths}


def _stem(path: str) -> str:
    return Path(path.removeprefix(EMBEDDED_PREFIX)).name.split(".")[0] or "source"


def _is_of_another(path: str, origin: Path) -> bool:
    return origin.is_file() and origin.read_bytes() != os.fsencode(path)


def _prepared_names(path: str, workdir: Path) -> list[str]:
    """The names that a run gave to sources called like `path`, first to last."""
    folders = (workdir / "data").iterdir() if (workdir / "data").is_dir() else ()
    names = [folder.name for folder in folders if folder.name == _stem(path) or folder.name.startswith(f"{_stem(path)}-")]
    return sorted(names, key=lambda name: (len(name), name))
