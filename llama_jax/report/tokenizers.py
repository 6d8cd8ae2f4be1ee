"""The report on a tokenizer: how finely it cuts the text of each source and language, beside a reference tokenizer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llama_jax.files.atomic import write_atomic
from llama_jax.report.page import Part, Passage, Plot, write_page
from llama_jax.report.plot import BarPanel, grouped_bar_plot
from llama_jax.report.tables import DASH, Table
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.fertility import TokenCounts, pieces_with_several_digits

_EXAMPLES = 5
_MEASURES = (
    ("bytes per token", lambda counts: f"{counts.bytes_per_token:.3f}"),
    ("tokens per word", lambda counts: f"{counts.tokens_per_word:.3f}"),
    ("byte fallback, %", lambda counts: f"{100 * counts.byte_fallback_share:.3f}"),
    ("beyond ASCII, %", lambda counts: f"{100 * counts.non_ascii_byte_share:.3f}"),
    ("unknown, %", lambda counts: f"{100 * counts.unknown_share:.3f}"),
    ("merged digits, %", lambda counts: f"{100 * counts.merged_digit_share:.1f}" if counts.digits else DASH),
)
_NOTES = [
    "Byte fallback: share of the tokens that stand for single bytes, because no piece has the character. LLaMA's tokenizer has "
    "none for the line end, so the share of bytes of characters beyond ASCII stands beside it.",
    "Merged digits: digits that share their token with another; 0 where numbers are split into digits (paper, section 2.1).",
    "Tokens per word counts what white space separates, which says little of languages that write none.",
]


@dataclass(frozen=True)
class MeasuredTokenizer:
    """A tokenizer, and what it made of each source; a source named SOURCE/LANGUAGE is also counted under its language."""

    label: str
    tokenizer: Tokenizer
    counts: Mapping[str, TokenCounts]

    @property
    def by_source(self) -> dict[str, TokenCounts]:
        """Counts by what stands before the slash in the names."""
        return _sums((name.partition("/")[0], counts) for name, counts in self.counts.items())

    @property
    def by_language(self) -> dict[str, TokenCounts]:
        """Counts by what stands behind the slash, of the names that have one."""
        return _sums((name.partition("/")[2], counts) for name, counts in self.counts.items() if "/" in name)

    @property
    def total(self) -> TokenCounts:
        """Counts of all sources together."""
        return sum(self.counts.values(), TokenCounts())


def _sums(named) -> dict[str, TokenCounts]:
    sums: dict[str, TokenCounts] = {}
    for name, counts in named:
        sums[name] = sums.get(name, TokenCounts()) + counts
    return sums


def tokenizer_tables(measured: Sequence[MeasuredTokenizer]) -> list[Table]:
    """A table by source, and one by language where sources name one; two rows for each where there is a reference."""
    tables = [_table("By source", measured, view="by_source")]
    if measured[0].by_language:
        tables.append(_table("By language", measured, view="by_language"))
    tables[-1].notes += _NOTES
    return tables


def _table(title: str, measured: Sequence[MeasuredTokenizer], *, view: str) -> Table:
    first, *others = measured
    table = Table(title, ["text", "tokenizer", "MB", "tokens", "tokens / reference", *(name for name, _ in _MEASURES)])
    groups = getattr(first, view)
    if view == "by_source" and len(groups) > 1:
        groups = groups | {"all": first.total}
    for name, own in groups.items():
        reference = [getattr(other, view).get(name, other.total) for other in others]
        ratio = f"{own.tokens / reference[0].tokens:.3f}" if reference else DASH
        table.highlighted.add(len(table.rows))
        for one, counts in zip(measured, [own, *reference], strict=True):
            table.rows.append([name, one.label, f"{counts.bytes / 1e6:.2f}", f"{counts.tokens:,}",
                               ratio if one is first else DASH, *(show(counts) for _, show in _MEASURES)])
    return table


def digit_sentence(one: MeasuredTokenizer) -> str:
    """Whether a tokenizer splits numbers into digits, by its vocabulary and by the texts."""
    several = pieces_with_several_digits(one.tokenizer)
    if several:
        return (f"{one.label}: numbers are not always split into digits. {len(several):,} pieces hold several digits, such as "
                f"{', '.join(map(repr, several[:_EXAMPLES]))}; {one.total.merged_digit_share:.1%} of the digits of the texts "
                "share their token with another.")
    return f"{one.label}: every digit is a token of its own. No piece of the vocabulary holds two digits."


def tokenizer_plot(measured: Sequence[MeasuredTokenizer]) -> Plot:
    """Bytes per token and the share of byte fallback of every source, as named, for each tokenizer."""
    names = list(measured[0].counts)
    panels = [
        BarPanel("bytes per token (more: shorter sequences)",
                 {one.label: [one.counts[name].bytes_per_token for name in names] for one in measured}),
        BarPanel("byte fallback (% of tokens)",
                 {one.label: [100 * one.counts[name].byte_fallback_share for name in names] for one in measured}),
    ]
    return Plot("report-tokenizer", grouped_bar_plot(names, panels))


def tokenizer_figures(measured: Sequence[MeasuredTokenizer]) -> dict[str, Any]:
    """All counts and ratios, as JSON."""
    def figures(groups: Mapping[str, TokenCounts]) -> dict[str, Any]:
        return {name: asdict(counts) | counts.ratios() for name, counts in groups.items()}

    return {one.label: {
        "file": one.tokenizer.FILE, "sha256": one.tokenizer.sha256, "vocab_size": one.tokenizer.vocab_size,
        "pieces_with_several_digits": len(pieces_with_several_digits(one.tokenizer)),
        "total": asdict(one.total) | one.total.ratios(), "inputs": figures(one.counts), "sources": figures(one.by_source),
        "languages": figures(one.by_language)} for one in measured}


def write_tokenizer_report(folder: Path, measured: Sequence[MeasuredTokenizer]) -> None:
    """Write report.md, report.html, report.json and the plot of a tokenizer and, if there is a second, its reference."""
    about = [f"{one.label}: {one.tokenizer}, sha256 {one.tokenizer.sha256[:16]}" for one in measured]
    parts: list[Part] = [Passage("", about, listed=True), tokenizer_plot(measured), *tokenizer_tables(measured),
                         Passage("Digits", [digit_sentence(one) for one in measured], listed=True)]
    write_page(folder, "report", title=f"Tokenizer {measured[0].label}", parts=parts)
    write_atomic(folder / "report.json", (json.dumps(tokenizer_figures(measured), indent=1) + "\n").encode())
