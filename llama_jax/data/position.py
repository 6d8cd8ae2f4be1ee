"""What a run has read of its data: recorded in every checkpoint, and continued from.

The record depends on neither the batch size nor the length of a row nor the shares of the mixture. For each source it says which
epoch is under way and which of its windows were read, so that all of these may change between two sessions of a run.

The fields of these dataclasses are the keys of the JSON in checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llama_jax.data.windows import TokenSource
from llama_jax.errors import DataError


@dataclass(frozen=True)
class EpochCut:
    """One way in which the unread rest of an epoch was cut into windows and shuffled, and how many of them were read."""

    length: int
    """Tokens T of a row."""
    seed: int
    """Seed of the order of the windows."""
    windows: int
    """How many windows were read: the first ones of the order."""


@dataclass(frozen=True)
class SourceProgress:
    """What a run has read of one source."""

    name: str
    path: str
    """Absolute path of the prepared folder."""
    digest: str
    """`TokenSource.digest` of its tokens."""
    key: int
    """The source's number in the seeds of its orders. It stays the same while other sources are added and removed."""
    tokens: int = 0
    """Tokens read in all epochs, the padding of last rows counted."""
    epochs: float = 0.0
    """How many times its text was read."""
    epoch: int = 0
    """Number of the epoch under way."""
    cuts: tuple[EpochCut, ...] = ()
    """The cuts of the epoch under way, each of what the cuts before it left unread."""
    documents: int = -1
    """Documents whose first token was read, in all epochs; -1 in checkpoints of earlier versions, which did not count them."""
    repeated: int = -1
    """Tokens predicted in epochs after the first, without padding; -1 in checkpoints of earlier versions."""


@dataclass(frozen=True)
class PlannedTokens:
    """Tokens that were read while a config planned certain shares, whatever part each source then had of them."""

    keys: tuple[int, ...]
    """`SourceProgress.key` of each source."""
    weights: tuple[int, ...]
    """Planned share of each source, as an integer."""
    tokens: int


@dataclass(frozen=True)
class DataPosition:
    """What a run has read of all its sources."""

    sources: tuple[SourceProgress, ...] = ()
    """Every source read since the run began, those included that its config no longer names."""
    keys: tuple[int, ...] = ()
    """`SourceProgress.key` of each source of the current mixture."""
    weights: tuple[int, ...] = ()
    """Share of each source of the current mixture, as an integer; 0 for sources that are not read now."""
    rows: int = 0
    """Rows read from the current mixture."""
    planned: tuple[PlannedTokens, ...] = ()
    """The shares that were planned since the run began, in order; empty in checkpoints of earlier versions."""

    @property
    def tokens(self) -> int:
        """Tokens read from all sources together."""
        return sum(progress.tokens for progress in self.sources)

    def known_plan(self) -> tuple[PlannedTokens, ...]:
        """The planned shares; what an earlier version read, which did not record any, counts as planned as it was read."""
        if self.planned or not self.tokens:
            return self.planned
        read = [(progress.key, progress.tokens) for progress in self.sources if progress.tokens]
        keys, tokens = zip(*read, strict=True)
        return (PlannedTokens(keys, tokens, self.tokens),)

    def match_sources(self, sources: Sequence[TokenSource]) -> list[SourceProgress]:
        """What has been read of each of `sources`; a source is recognised by its tokens, in whatever folder it is now.

        Raises:
            DataError: a folder holds other tokens than when it was read.
        """
        left, found = list(self.sources), {}
        for same_path in (True, False):  # of two copies of a source, each is matched with its own folder first
            for number, source in enumerate(sources):
                known = [p for p in left if p.digest == source.digest and (p.path == _path_of(source) or not same_path)]
                if known and number not in found:
                    found[number] = known[0]
                    left.remove(known[0])
        for number, source in enumerate(sources):
            if number in found:
                continue
            if any(progress.path == _path_of(source) for progress in left):
                raise DataError(f"{source.folder} holds other tokens than those this run has read; put them in another folder, "
                                "to read them as another source, or use another --workdir.")
            found[number] = _new_progress(source, number, others=[*self.sources, *found.values()])
        return [found[number] for number in range(len(sources))]


def _new_progress(source: TokenSource, number: int, *, others: Sequence[SourceProgress]) -> SourceProgress:
    """The record of a source that has not been read, with a name and a key that no other source has."""
    name, again = source.name, 2
    while name in [progress.name for progress in others]:
        name, again = f"{source.name}-{again}", again + 1
    key = number
    if key in [progress.key for progress in others]:
        key = max(progress.key for progress in others) + 1
    return SourceProgress(name, _path_of(source), source.digest, key, documents=0, repeated=0)


def _path_of(source: TokenSource) -> str:
    """The absolute path of a source, links resolved, so that it is the same however the config names it."""
    return str(source.folder.resolve())
