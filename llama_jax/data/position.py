"""What a run has read of its sources: recorded with every checkpoint, and continued from.

The record does not depend on the batch size, the length of a row or the shares: of each source it says which epoch is under
way and which windows of it were read, so that all of them may change between two sessions of a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llama_jax.data.windows import TokenSource
from llama_jax.errors import DataError


@dataclass(frozen=True)
class EpochCut:
    """One way in which what was left of an epoch was cut and shuffled, and how much of it was read."""

    length: int
    """Tokens T of a row."""
    seed: int
    windows: int
    """The first of its order, which were read."""


@dataclass(frozen=True)
class SourceProgress:
    """What has been read of one source."""

    name: str
    path: str
    digest: str
    """Of its tokens, see `TokenSource.digest`."""
    key: int
    """Its number in the seeds of its orders; kept while sources come and go."""
    tokens: int = 0
    """In all epochs, padding of their last rows counted."""
    epochs: float = 0.0
    """How often its text was read."""
    epoch: int = 0
    """The one under way."""
    cuts: tuple[EpochCut, ...] = ()
    """Of the epoch under way: each one cuts what the ones before it left."""


@dataclass(frozen=True)
class DataPosition:
    """What a run has read."""

    sources: tuple[SourceProgress, ...] = ()
    """All that were read since the run began, those that its config no longer names too."""
    keys: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    """The mixture under way: keys of its sources in their order, and their shares as integers."""
    rows: int = 0
    """Rows read of this mixture."""

    @property
    def tokens(self) -> int:
        """Read of all sources together."""
        return sum(progress.tokens for progress in self.sources)

    def take_up(self, sources: Sequence[TokenSource]) -> list[SourceProgress]:
        """The progress of each of `sources`, which are known by their tokens wherever they lie; others are new.

        Raises DataError where a folder holds other tokens than when it was read.
        """
        left, found = list(self.sources), {}
        for same_path in (True, False):
            for number, source in enumerate(sources):
                known = [p for p in left if p.digest == source.digest and (p.path == path_of(source) or not same_path)]
                if known and number not in found:
                    found[number] = known[0]
                    left.remove(known[0])
        for number, source in enumerate(sources):
            if number in found:
                continue
            if any(progress.path == path_of(source) for progress in left):
                raise DataError(f"{source.folder} holds other tokens than those this run has read; put them in another folder, "
                                "to read them as another source, or use another --workdir.")
            others = [*self.sources, *found.values()]
            name, key, again = source.name, number, 2
            while name in [progress.name for progress in others]:
                name, again = f"{source.name}-{again}", again + 1
            if key in [progress.key for progress in others]:
                key = max(progress.key for progress in others) + 1
            found[number] = SourceProgress(name, path_of(source), source.digest, key)
        return [found[number] for number in range(len(sources))]


def path_of(source: TokenSource) -> str:
    """Where a source lies, however it was named."""
    return str(source.folder.resolve())
