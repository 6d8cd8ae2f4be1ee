"""The mixture of sources as a config writes it: sources with shares, stages with other shares, and limits of epochs."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

from llama_jax.config.fields import require as _require
from llama_jax.errors import ConfigError, nearest


class MixtureStage(NamedTuple):
    """Shares that hold from a number of tokens on."""

    begin: int
    """Tokens that the run has read when the stage begins."""
    shares: tuple[float, ...]
    """Share of every source, in the order of data.sources; 0 for those that are not read. They need not add up to 1."""


class EpochLimit(NamedTuple):
    """How often a source may be read."""

    epochs: float
    """Not necessarily whole; 0: no limit."""
    option: str
    """The option of the config that says so, for messages."""

    def __str__(self) -> str:
        return f"{self.option} {self.epochs:g}"


def parse_sources(sources: Sequence[str]) -> list[tuple[str, float | None]]:
    """Read data.sources as (path, share) pairs; the share is None where none is given.

    Raises ConfigError for an entry without a path, or whose share is not a number of at least 0.
    """
    result: list[tuple[str, float | None]] = []
    for source in sources:
        path, equals, share = source.rpartition("=")
        _require(bool(source) and bool(path or not equals), f"data.sources: {source!r} names no path.")
        if not equals:
            result.append((source, None))
            continue
        value = _number(share, f"data.sources: {source!r} should be PATH or PATH=SHARE with a number as share.")
        _require(0 <= value < float("inf"), f"data.sources: the share of {path!r} must be positive, got {share}.")
        result.append((path, value))
    return result


def parse_stages(stages: Sequence[str], paths: Sequence[str]) -> list[MixtureStage]:
    """Read data.stages, of which each is TOKENS: NAME=SHARE NAME=SHARE ...; `paths` are those of data.sources.

    NAME is a source's path as data.sources writes it, or its last part without suffixes.

    Raises ConfigError for an entry that does not read so, a name that means no source or several, a share that is not positive,
    and stages that do not follow each other.
    """
    result: list[MixtureStage] = []
    for stage in stages:
        tokens, colon, items = stage.partition(":")
        wanted = f"data.stages: {stage!r} should read TOKENS: NAME=SHARE NAME=SHARE, as 2e9: wikipedia=0.5 books=0.5."
        _require(bool(colon) and bool(items.strip()), wanted)
        begin = _number(tokens, wanted)
        _require(1 <= begin < float("inf"), f"data.stages: a stage begins after at least 1 token, got {tokens.strip()} in "
                 f"{stage!r}; the shares from the first token on are those of data.sources.")
        before = result[-1].begin if result else 0
        _require(int(begin) > before, f"data.stages: {stage!r} begins after {int(begin):,} tokens, and the stage before it after "
                 f"{before:,}; give stages in ascending order.")
        result.append(MixtureStage(int(begin), _stage_shares(items, paths, wanted=wanted)))
    return result


def rename_stages(stages: Sequence[str], paths: Sequence[str], *, renamed: Sequence[str]) -> tuple[str, ...]:
    """Write data.stages for sources that lie at other paths: `renamed`, in the order of `paths`."""
    return tuple(f"{stage.begin}: " + " ".join(f"{path}={share!r}" for path, share in zip(renamed, stage.shares, strict=True)
                                               if share)
                 for stage in parse_stages(stages, paths))


def parse_epoch_limits(limits: Sequence[str], paths: Sequence[str], *, otherwise: float) -> tuple[EpochLimit, ...]:
    """The limit of every source, in the order of `paths`, from data.source_max_epochs, of which each is NAME=EPOCHS.

    A source that is not named has the limit `otherwise`, which is data.max_epochs. NAME is as in data.stages.

    Raises ConfigError for an entry that does not read so, and a name that means no source, several, or one that has a limit.
    """
    option = "data.source_max_epochs"
    result = [EpochLimit(otherwise, "data.max_epochs")] * len(paths)
    for entry in limits:
        wanted = f"{option}: {entry!r} should read NAME=EPOCHS, as books=2.23."
        name, equals, text = entry.rpartition("=")
        _require(bool(equals), wanted)
        number, epochs = _source_number(name, paths, option=option), _number(text, wanted)
        _require(0 <= epochs < float("inf"), f"{option}: the epochs of {name!r} must be at least 0 (no limit), got {text}.")
        _require(result[number].option != option, f"{option} names {name!r} twice.")
        result[number] = EpochLimit(epochs, option)
    return tuple(result)


def _stage_shares(items: str, paths: Sequence[str], *, wanted: str) -> tuple[float, ...]:
    """The share of every source in a stage; `wanted` says how the stage should read."""
    found, words = [], []
    for word in items.split():  # a name may hold spaces, a share does not
        words.append(word)
        if "=" in word:
            name, _, text = " ".join(words).rpartition("=")
            found.append((name, text))
            words = []
    _require(not words, wanted)
    shares = [0.0] * len(paths)
    for name, text in found:
        number = _source_number(name, paths, option="data.stages")
        share = _number(text, wanted)
        _require(0 < share < float("inf"), f"data.stages: the share of {name!r} must be positive, got {text}; a source that a "
                 "stage does not name is not read in it.")
        _require(shares[number] == 0, f"data.stages: {items.strip()!r} names {name!r} twice.")
        shares[number] = share
    return tuple(shares)


def _source_number(name: str, paths: Sequence[str], *, option: str) -> int:
    """Number of the source that an entry of `option` calls `name`."""
    if name in paths:
        return list(paths).index(name)
    numbers = [number for number, path in enumerate(paths) if name in _short_names(path)]
    if not numbers:
        known = dict.fromkeys(_short_names(path)[0] for path in paths)
        raise ConfigError(f"{option}: {name!r} is no source of data.sources{nearest(name, known)}")
    _require(len(numbers) == 1, f"{option}: {name!r} is the name of {len(numbers)} sources; write their paths as "
             f"data.sources does: {', '.join(paths[number] for number in numbers)}.")
    return numbers[0]


def _short_names(path: str) -> list[str]:
    """What a source may be called beside its path: its last part without suffixes; NAME, too, of NAME/train."""
    place = PurePath(path.removeprefix("embedded:"))
    stem = place.name.split(".")[0]
    return [place.parent.name, stem] if stem == "train" and place.parent.name else [stem]


def _number(text: str, wanted: str) -> float:
    """The number that `text` writes; raises ConfigError with the sentence `wanted`."""
    try:
        return float(text)
    except ValueError:
        raise ConfigError(wanted) from None
