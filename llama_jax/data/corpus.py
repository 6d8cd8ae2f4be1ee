"""Everything that a run reads: its tokenizer, its training sources with their shares, and its held-out text.

Raw sources are prepared into the run directory: the end of each is held out, and the rest is trained on.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_jax.config import DataConfig
from llama_jax.data.manifest import MANIFEST_FILE, PREPARE_PROGRESS, verify_shards
from llama_jax.data.mixture import Mixture
from llama_jax.data.position import DataPosition
from llama_jax.data.raw_source import RawSource, name_sources
from llama_jax.data.windows import TokenSource
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.remote import fetched
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import holds_tokenizer, load_tokenizer
from llama_jax.tokenizer.training import train_sentencepiece


@dataclass(frozen=True)
class Corpus:
    """The tokenizer, the training sources and the held-out sources of a run."""

    tokenizer: Tokenizer
    sources: list[TokenSource]
    shares: list[float]
    """Share of each source as the config gives it, or else its number of tokens; they need not add up to 1."""
    heldout: list[TokenSource]
    config: DataConfig
    """What it was opened with."""
    notes: tuple[str, ...] = ()
    """Sentences for the user on what is unusual about this data."""

    def mixture(self, *, seed: int, position: DataPosition | None = None) -> Mixture:
        """The rows of the config's mixture after `position`; raises DataError as `Mixture`."""
        config = self.config
        return Mixture(self.sources, self.shares, seed=seed, position=position, stages=config.mixture_stages(),
                       max_epochs=config.epoch_limits(), on_max_epochs=config.on_max_epochs)


def open_corpus(config: DataConfig, vocab_size: int, *, workdir: Path, given: Tokenizer | None = None,
                padded: bool = False) -> Corpus:
    """Find or make the tokenizer and the shards of a run, and check that they fit each other and the model.

    Args:
        config: the sources, and how they are cut.
        vocab_size: ids of the model.
        workdir: the run directory, into which the tokenizer is saved and raw sources are prepared.
        given: the tokenizer of the weights that the run starts from, if it starts from any.
        padded: whether the model may have more ids than the tokenizer, as such weights can.

    Raises:
        DataError: data is missing, damaged or does not fit.
        ConfigError: the vocabulary has the wrong size, or the run was begun with another tokenizer.
    """
    paths = [path for path, _ in config.shares()]
    separator = config.document_separator
    local = {path: fetched(path, check=_verify_prepared) for path in (*paths, *config.heldout)}  # where they lie in a bucket
    raw = {path: RawSource(local[path], config.heldout_fraction, separator=separator)
           for path in paths if not _is_prepared(local[path])}
    raw_heldout = {path: RawSource(local[path], 0.0, separator=separator)
                   for path in config.heldout if not _is_prepared(local[path])}
    prepared = {path: TokenSource(place, config.sequence_length) for path, place in local.items() if _is_prepared(place)}
    tokenizer = (given or _find_tokenizer(config.tokenizer, prepared.values(), workdir=workdir)
                 or _train_tokenizer(raw, vocab_size))
    ids = min(tokenizer.vocab_size, vocab_size) if padded else vocab_size
    _check_tokenizer(tokenizer, ids, prepared=prepared.values(), workdir=workdir)
    if not holds_tokenizer(workdir):
        tokenizer.save(workdir)

    def open_raw(source: RawSource, part: str, *, name: str) -> TokenSource:
        folder = workdir / "data" / name / part
        source.prepare_part(part, tokenizer, folder=folder)
        return TokenSource(folder, config.sequence_length)

    names = name_sources(paths, raw, workdir=workdir)
    sources = [prepared.get(path) or open_raw(raw[path], "train", name=name) for path, name in names.items()]
    heldout: dict[str, TokenSource] = {}
    if config.heldout_fraction:
        heldout = {name: open_raw(raw[path], "heldout", name=name) for path, name in names.items() if path in raw}
    for path, name in name_sources(config.heldout, raw_heldout, workdir=workdir).items():
        name = f"{name}-heldout" if name in names.values() else name
        heldout[name] = prepared.get(path) or open_raw(raw_heldout[path], "train", name=name)
    for source, name in zip([*sources, *heldout.values()], [*names.values(), *heldout], strict=True):
        source.name = name
    shares = [source.manifest.tokens if share is None else share
              for source, (_, share) in zip(sources, config.shares(), strict=True)]
    notes = (*_config_notes(config, raw), *_boundary_notes(tokenizer, prepared.values()))
    return Corpus(tokenizer, sources, shares, list(heldout.values()), config, notes)


def _config_notes(config: DataConfig, raw: Container[str]) -> tuple[str, ...]:
    """Notes on shares that do not add up to 1, and on text that is not held out; only `raw` sources are divided."""
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
    """Notes on prepared sources whose BOS and EOS are not the tokenizer's, which files beside a tokenizer can change."""
    for source in prepared:
        theirs, ours = (source.manifest.bos_id, source.manifest.eos_id), (tokenizer.bos_id, tokenizer.eos_id)
        if theirs != ours:
            yield (f"{source.folder} was prepared with BOS {theirs[0]} and EOS {theirs[1]}, and the run's tokenizer has BOS "
                   f"{ours[0]} and EOS {ours[1]}: generation begins and ends texts otherwise than they were learned; prepare it "
                   "again with this tokenizer")


def _verify_prepared(folder: Path) -> None:
    if (folder / MANIFEST_FILE).is_file():
        verify_shards(folder)


def _is_prepared(path: str) -> bool:
    """Whether `path` is a prepared folder; raises DataError if its preparation was not finished."""
    if (Path(path) / PREPARE_PROGRESS).is_file() and not (Path(path) / MANIFEST_FILE).is_file():
        raise DataError(f"{path} is not finished; run the `python -m llama_jax prepare` that began it again.")
    return (Path(path) / MANIFEST_FILE).is_file()


def _find_tokenizer(wanted: str, prepared: Iterable[TokenSource], *, workdir: Path) -> Tokenizer | None:
    """The tokenizer at the path `wanted` if there is one, else the run's own, else the first one beside prepared shards."""
    if wanted:
        return load_tokenizer(fetched(wanted))
    places = [workdir, *(source.folder for source in prepared)]
    return next((load_tokenizer(place) for place in places if holds_tokenizer(place)), None)


def _train_tokenizer(raw: dict[str, RawSource], vocab_size: int) -> Tokenizer:
    """Train a tokenizer on the text that the model is trained on."""
    if not raw:
        raise DataError("no tokenizer: there is none beside the prepared sources; set --data.tokenizer.")
    return train_sentencepiece((text for source in raw.values() for text in source.part("train")), vocab_size)


def _check_tokenizer(tokenizer: Tokenizer, vocab_size: int, *, prepared: Iterable[TokenSource], workdir: Path) -> None:
    """Check, before anything is written, that the tokenizer fits the model and the shards and is the one the run began with."""
    if tokenizer.vocab_size != vocab_size:
        raise ConfigError(f"the tokenizer has {tokenizer.vocab_size} pieces but model.vocab_size is {vocab_size}; set "
                          f"--model.vocab_size {tokenizer.vocab_size} or another tokenizer.")
    for source in prepared:
        source.check_fits(tokenizer.sha256, vocab_size)
    if holds_tokenizer(workdir) and (used := load_tokenizer(workdir)).sha256 != tokenizer.sha256:
        raise ConfigError(f"this run was begun with another tokenizer ({workdir / used.FILE}); use another --workdir or the "
                          "old tokenizer.")
