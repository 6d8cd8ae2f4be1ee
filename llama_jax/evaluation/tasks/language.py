"""Plain language modelling: the last word of LAMBADA, and the perplexity of any text."""

from collections.abc import Sequence
from pathlib import Path

from llama_jax.data.sources import find_text_files, read_documents
from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.data import Files, Rows
from llama_jax.evaluation.statistics import exponential, mean, ratio
from llama_jax.evaluation.task import Choice, Estimate, Item, Records, Score, Settings, Task, Verdict, Whole, each

BITS = 1.4426950408889634
"""A nat."""


def read_lambada(files: Files, settings: Settings) -> Records:
    """Passages of several words."""
    name = "lambada/lambada_test.jsonl"
    rows = files.jsonl(name, {"text": str})
    for number, row in enumerate(rows, 1):
        files.require(" " in row["text"].strip(), name, number, "the text has no last word to leave out")
    return Records(rows)


def hub_lambada(rows: Rows, settings: Settings) -> Records:
    """The same file of OpenAI's."""
    return Records(rows("EleutherAI/lambada_openai", "default", "test"))


def build_lambada(records: Records, settings: Settings) -> list[Item]:
    """The last word after all others.

    White space at the end of a text is not a word; lm-evaluation-harness would ask for a lone space there.
    """
    items = []
    for number, row in enumerate(records.test):
        context, _, word = row["text"].rstrip().rpartition(" ")
        items.append(Item(str(number), (Choice(context, f" {word}"),), word))
    return items


def judge_lambada(item: Item, given: Sequence[Score]) -> Verdict:
    """Right where greedy decoding writes the word."""
    return Verdict({"acc": float(given[0].is_greedy), "nats": -given[0].logprob}, given[0].is_greedy)


def total_lambada(items: Sequence[Item], verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    """Perplexity of the last word."""
    return {"perplexity": exponential(mean([verdict.metrics["nats"] for verdict in verdicts]))}


def read_texts(files: Files, settings: Settings) -> Records:
    """Documents of the files that --text_files names, in the formats that training reads."""
    if not settings.text_files:
        raise ConfigError("the task perplexity measures text files; name some with --text_files FILE....")
    rows = []
    for path in settings.text_files:
        for file in find_text_files(path):
            files.note(Path(file))
            rows += [{"file": str(path), "text": text} for text in read_documents(file) if text]
    if not rows:
        raise DataError(f"{', '.join(settings.text_files)}: there is no text in it to measure.")
    return Records(rows)


def build_texts(records: Records, settings: Settings) -> list[Item]:
    """A document an item."""
    return [Item(str(number), (Whole(row["text"]),), tags={"file": row["file"]}) for number, row in enumerate(records.test)]


def judge_text(item: Item, given: Sequence[Score]) -> Verdict:
    """Nats, and what they are divided by."""
    text, score = item.requests[0].text, given[0]
    return Verdict({"nats": -score.logprob, "tokens": score.tokens, "bytes": len(text.encode()),
                    "words": max(len(text.split()), 1), "bits_per_byte": -score.logprob * BITS / len(text.encode())})


def total_texts(items: Sequence[Item], verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    """Sums over sums: a long document counts as much as its length."""
    def column(name: str) -> list[float]:
        return [verdict.metrics[name] for verdict in verdicts]

    return {"bits_per_byte": ratio([nats * BITS for nats in column("nats")], column("bytes")),
            "perplexity": exponential(ratio(column("nats"), column("tokens"))),
            "word_perplexity": exponential(ratio(column("nats"), column("words")))}


TASKS = (
    Task("lambada", "LAMBADA", read_lambada, build_lambada, each(judge_lambada),
         dict.fromkeys(("llama", "lm_eval", "raw"), "acc"),
         origin="https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl", hub=hub_lambada,
         total=total_lambada, size=5153),
    Task("perplexity", "Perplexity", read_texts, build_texts, each(judge_text),
         dict.fromkeys(("llama", "lm_eval", "raw"), "bits_per_byte"), origin="--text_files", total=total_texts,
         percent=False, higher_is_better=False),
)
