"""Language modelling: the last word of LAMBADA, and the perplexity of any text."""

import math
from collections.abc import Sequence
from pathlib import Path

from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.statistics import exponential_estimate, mean_estimate, ratio_estimate
from llama_jax.evaluation.task import (
    Estimate,
    Item,
    LikelihoodAnswer,
    LikelihoodRequest,
    RollingRequest,
    Settings,
    Task,
    TaskRecords,
    Verdict,
    headline_metrics,
    judge_each,
)

_BITS_PER_NAT = math.log2(math.e)


def _read_lambada(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """Passages of at least two words."""
    name = "lambada/lambada_test.jsonl"
    rows = files.read_jsonl(name, {"text": str})
    for number, row in enumerate(rows, 1):
        files.require(" " in row["text"].strip(), "the text has no last word to leave out", file=name, record=number)
    return TaskRecords(rows)


def _hub_lambada(rows: HubRows, settings: Settings) -> TaskRecords:
    """Read OpenAI's version of LAMBADA from the Hugging Face hub."""
    return TaskRecords(rows("EleutherAI/lambada_openai", "default", "test"))


def _build_lambada(records: TaskRecords, settings: Settings) -> list[Item]:
    """The last word of a passage as the continuation of all others.

    White space at the end of a text is dropped; lm-evaluation-harness would score a lone space there.
    """
    items = []
    for number, row in enumerate(records.test):
        context, _, word = row["text"].rstrip().rpartition(" ")
        items.append(Item(str(number), (LikelihoodRequest(context, f" {word}"),), word))
    return items


def _judge_lambada(item: Item, given: Sequence[LikelihoodAnswer]) -> Verdict:
    """Right where greedy decoding would produce the word."""
    return Verdict({"acc": float(given[0].is_greedy), "nats": -given[0].logprob}, given[0].is_greedy)


def _total_lambada(items: Sequence[Item], verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    """Perplexity of the last word."""
    return {"perplexity": exponential_estimate(mean_estimate([verdict.metrics["nats"] for verdict in verdicts]))}


def _read_documents(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """Documents of the files that --text_files names, in the formats that training reads."""
    if not settings.text_files:
        raise ConfigError("the task perplexity measures text files; name some with --text_files FILE....")
    rows = []
    for path in settings.text_files:
        for file in find_text_files(path):
            files.note_hash(Path(file))
            rows += [{"file": str(path), "text": text} for text in read_documents(file) if text]
    if not rows:
        raise DataError(f"{', '.join(settings.text_files)}: there is no text in it to measure.")
    return TaskRecords(rows)


def _build_perplexity(records: TaskRecords, settings: Settings) -> list[Item]:
    """One item per document."""
    return [Item(str(number), (RollingRequest(row["text"]),), tags={"file": row["file"]})
            for number, row in enumerate(records.test)]


def _judge_document(item: Item, given: Sequence[LikelihoodAnswer]) -> Verdict:
    """A document's nats, and the tokens, bytes and words that they are divided by."""
    text, answer = item.requests[0].text, given[0]
    size = len(text.encode())
    return Verdict({"nats": -answer.logprob, "tokens": answer.tokens, "bytes": size, "words": max(len(text.split()), 1),
                    "bits_per_byte": -answer.logprob * _BITS_PER_NAT / size})


def _total_perplexity(items: Sequence[Item], verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    """Bits per byte and perplexities per token and word, as sums over sums: a document counts in proportion to its length."""
    columns = {name: [verdict.metrics[name] for verdict in verdicts] for name in ("nats", "tokens", "bytes", "words")}
    bits = [nats * _BITS_PER_NAT for nats in columns["nats"]]
    return {"bits_per_byte": ratio_estimate(bits, columns["bytes"]),
            "perplexity": exponential_estimate(ratio_estimate(columns["nats"], columns["tokens"])),
            "word_perplexity": exponential_estimate(ratio_estimate(columns["nats"], columns["words"]))}


TASKS = (
    Task("lambada", "LAMBADA", _read_lambada, _build_lambada, judge_each(_judge_lambada), headline_metrics("acc"),
         origin="https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl", hub=_hub_lambada,
         total=_total_lambada, size=5153),
    Task("perplexity", "Perplexity", _read_documents, _build_perplexity, judge_each(_judge_document),
         headline_metrics("bits_per_byte"), origin="--text_files", total=_total_perplexity,
         percent=False, higher_is_better=False),
)
