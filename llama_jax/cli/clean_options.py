"""The options of `llama_jax clean` as plain data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CleanOptions:
    """Clean raw data of one source of the paper's Table 1 into documents, as section 2.1 describes it (docs/DATA.md).

    The output folder gets documents as JSON lines, for `prepare`, and report.json, which counts what every step kept and dropped.
    The same command again goes on after an interruption.
    """

    source: Literal["commoncrawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange", "documents"]
    """Kind of the raw data; documents: an output of this command, to be decontaminated."""
    input: tuple[str, ...]
    """Files as published, or folders of them: WARC and WET, JSON lines, source trees, XML dumps, texts, sources of papers."""
    output: str
    """Folder to make."""
    workers: int = 0
    """Tasks at one time; 0: one per core. The output does not depend on it."""
    executor: Literal["local", "slurm", "ray"] = "local"
    """Where the tasks run: processes of this machine, jobs of a Slurm cluster, or a Ray cluster."""
    executor_options: tuple[str, ...] = ()
    """NAME=VALUE for datatrove's executor, such as time=10:00:00 partition=cpu for Slurm."""
    explain: int = 0
    """Print this many kept and dropped examples of every step, before and after it."""
    evaluation_data: str = ""
    """documents: the folder of evaluation sets (that of eval.py --data_dir) whose text is cut out, as GPT-3 did."""
    sites: tuple[str, ...] = ()
    """stackexchange: names of the sites to keep, such as math stackoverflow; `largest`: the 28 largest, as in the paper; none:
    all that are given."""
    answered_only: bool = False
    """stackexchange: drop questions without answers."""
    languages: tuple[str, ...] | None = None
    """commoncrawl, c4, wikipedia: languages that are kept, as ISO 639 codes (wikipedia: as its editions name them); none named:
    all. Without the option those of the paper: en for commoncrawl and c4, twenty for wikipedia."""
    language_threshold: float = 0.5
    """commoncrawl, c4: least probability of the language of a page (CCNet: 0.5)."""
    language_model: str = ""
    """commoncrawl, c4: a fastText model file, such as lid.176.bin; without it, py3langid's model decides."""
    perplexity_text: tuple[str, ...] = ()
    """commoncrawl: Wikipedia text (.txt, .jsonl, .parquet) on which to train an n-gram model for the perplexity of pages."""
    perplexity_model: str = ""
    """commoncrawl: such a model, perplexity.npz of an earlier output, or a model of KenLM (.arpa, .bin), such as CCNet's."""
    perplexity_tokenizer: str = ""
    """commoncrawl: the SentencePiece model whose pieces are the words of a model of KenLM."""
    perplexity_thresholds: tuple[float, ...] = ()
    """commoncrawl: the perplexities where the buckets head and middle end; none: a third of the pages each."""
    buckets: tuple[Literal["head", "middle", "tail"], ...] = ("head",)
    """commoncrawl: the buckets of perplexity that are kept."""
    reference_pages: tuple[str, ...] = ()
    """commoncrawl: pages that Wikipedia cites (web archives, or text), to train a classifier with --random_pages."""
    random_pages: tuple[str, ...] = ()
    """commoncrawl: other pages, in the same formats."""
    reference_model: str = ""
    """commoncrawl: such a classifier, reference.npz of an earlier output."""
    reference_threshold: float = 0.5
    """commoncrawl: least probability that a page is like those that Wikipedia cites."""
    min_sentences: int = 5
    """c4: least sentences of a page (Raffel et al. 2020, first version: 5; its last version and the code of C4: 3)."""
    min_line_words: int = 3
    """c4: least words of a line (Raffel et al. 2020, first version: 3; its last version and the code of C4: 5)."""
    bad_words: str = ""
    """c4: a file with a word or phrase per line; pages that hold one are dropped. C4's own list is not part of this package."""
