"""The ledger of a mixture: how much was planned and read of every source, from the data position that a checkpoint records."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from llama_jax.data.position import DataPosition


@dataclass(frozen=True)
class SourceTotals:
    """How much a run has read of one source."""

    planned: float
    """Share of all tokens that the configs planned for it: every stage's share, weighted by the tokens that were read in it."""
    realised: float
    """Share of all tokens that was read of it."""
    tokens: int
    """Tokens read, the padding of last rows counted."""
    epochs: float
    """How many times its text was read."""
    documents: int | None
    """Documents whose first token was read, in all epochs; None where an earlier version read it and it is gone."""
    repeated: int | None
    """Tokens predicted in epochs after the first, without padding; None as for documents."""

    def as_metrics(self) -> dict[str, Any]:
        """The entry of a source in metrics.jsonl."""
        return asdict(self) | {"epochs": round(self.epochs, 4), "planned": round(self.planned, 6),
                               "realised": round(self.realised, 6)}


def source_totals(position: DataPosition) -> dict[str, SourceTotals]:
    """The ledger after a data position, by name: every source read since the run began or in its mixture."""
    planned: dict[int, float] = {}
    for part in position.known_plan():
        for key, weight in zip(part.keys, part.weights, strict=True):
            planned[key] = planned.get(key, 0.0) + part.tokens * weight / sum(part.weights)
    whole = max(position.tokens, 1)
    return {
        read.name: SourceTotals(
            planned.get(read.key, 0.0) / whole, read.tokens / whole, read.tokens, read.epochs,
            read.documents if read.documents >= 0 else None, read.repeated if read.repeated >= 0 else None)
        for read in position.sources
    }


def ledger_table(totals: dict[str, SourceTotals]) -> Iterator[str]:
    """The ledger as lines of text: a head, and a line per source."""
    rows = [("source", "planned", "realised", "tokens", "epochs", "documents", "repeated tokens")]
    for name, read in totals.items():
        counts = ["?" if count is None else f"{count:,}" for count in (read.documents, read.repeated)]
        rows.append((name, f"{read.planned:.2%}", f"{read.realised:.2%}", f"{read.tokens:,}", f"{read.epochs:.2f}", *counts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers in rows:
        yield "  ".join([f"{name:{widths[0]}}", *(f"{text:>{width}}" for text, width in zip(numbers, widths[1:], strict=True))])
