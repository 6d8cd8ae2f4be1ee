"""Stack Exchange (paper, section 2.1): every question with its answers, highest score first, without HTML.

Answers lie anywhere in a dump, and the largest one (Stack Overflow) does not fit in memory. So the first stage writes every post
to the bucket of its question, and the second joins the posts of one bucket at a time.
"""

import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from llama_jax.clean.html_text import html_to_text
from llama_jax.clean.items import InputFile, open_raw
from llama_jax.clean.posts import address_of, read_posts, site_of
from llama_jax.clean.stages import LARGEST_TASKS, Stage, Workplace
from llama_jax.clean.steps import CountedStep
from llama_jax.errors import ConfigError

LARGEST_SITES = (
    "stackoverflow", "math", "superuser", "ru.stackoverflow", "askubuntu", "serverfault", "tex", "unix", "physics", "electronics",
    "english", "es.stackoverflow", "stats", "mathoverflow", "gis", "pt.stackoverflow", "apple", "gaming", "salesforce", "ell",
    "wordpress", "softwareengineering", "sharepoint", "dba", "codereview", "drupal", "magento", "mathematica",
)
"""An estimate of the 28 largest sites of mid-2022, which the paper does not name (docs/DATA.md says where it is from)."""
_BUCKET_BYTES = 256 << 20
"""Bytes of XML whose posts one task joins in memory."""
_GROWTH_OF_ARCHIVES = 6
"""How much larger than the .7z of a site its Posts.xml is, at most, as a rule."""
_BUFFER = 1 << 16


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean dumps of Stack Exchange.

    Raises ConfigError where `sites` names one that is not among the input.
    """
    sites = _asked_sites(options.sites, place.files)
    size = sum(_size_of_posts(file) for file in place.files)
    buckets = max(1, min(LARGEST_TASKS, -(-size // _BUCKET_BYTES)))
    split = SplitByQuestion(place.folder("buckets"), buckets)
    join = JoinAnswers("join answers", examples=place.examples(), keep_unanswered=not options.answered_only)
    return [
        place.stage("posts", place.read(partial(read_posts, sites=sites)), split),
        place.stage("threads", ReadBucket(place.folder("buckets")), place.edit("html", html_to_text), join, place.write(),
                    tasks=buckets),
    ]


def _asked_sites(asked: tuple[str, ...], files: list[InputFile]) -> frozenset[str]:
    """The sites to read; none stands for all."""
    given = {site_of(file.path) for file in files}
    largest = asked == ("largest",)
    sites = frozenset(LARGEST_SITES if largest else asked)
    missing = sites - given
    if missing and (not largest or missing == sites):
        raise ConfigError(f"the input has no posts of {', '.join(sorted(missing))}; its sites are {', '.join(sorted(given))}.")
    return sites


def _size_of_posts(file: InputFile) -> int:
    size = file.path.stat().st_size
    return size * _GROWTH_OF_ARCHIVES if file.path.suffix.lower() == ".7z" else size


def thread_text(question: str, answers: list[str], *, title: str) -> str:
    r"""A question and its answers as one text: "Q: title\n\nquestion\n\nA: answer\n\nA: ..."."""
    return "\n\n".join([f"Q: {title}\n\n{question}" if title else _labelled("Q:", question),
                        *(_labelled("A:", answer) for answer in answers)])


def _labelled(label: str, text: str) -> str:
    """A list, quote, heading or code block would not be one on the line of the label."""
    return label + ("\n\n" if re.match(r"```|#+ |- |> |\d+\. ", text) else " ") + text


def answer_order(answer: Document) -> tuple[int, str, int]:
    """Sorts answers by score, highest first; of equal ones, the earlier first. That an answer was accepted counts for nothing."""
    return -answer.metadata["score"], answer.metadata["date"], answer.metadata["post"]


class SplitByQuestion(PipelineStep):
    """The last step of a stage: writes every post to the bucket of its question, a file per bucket and task."""

    type, name = "clean", "split by question"

    def __init__(self, folder: Path, buckets: int):
        super().__init__()
        self._folder, self._buckets = folder, buckets

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for left in self._folder.glob(f"*/{rank:05d}.jsonl.zst"):
            left.unlink()  # of a task that was interrupted
        buffers: dict[int, bytearray] = defaultdict(bytearray)
        for document in data:
            key = f"{document.metadata['site']}/{document.metadata['question']}"
            bucket = zlib.crc32(key.encode()) % self._buckets
            record = {"text": document.text, "id": document.id, "metadata": document.metadata}
            buffers[bucket] += json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n"
            if len(buffers[bucket]) > _BUFFER:
                self._append(buffers.pop(bucket), bucket, rank=rank)
            yield document
        for bucket, lines in sorted(buffers.items()):
            self._append(lines, bucket, rank=rank)

    def _append(self, lines: bytearray, bucket: int, *, rank: int) -> None:
        """Add one zstd frame to a file; a file of several frames reads as one."""
        file = self._folder / f"{bucket:05d}" / f"{rank:05d}.jsonl.zst"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab") as stream:
            stream.write(zstandard.compress(bytes(lines)))


class ReadBucket(PipelineStep):
    """The first step of a stage: task n reads what all tasks of the stage before wrote to bucket n."""

    type, name = "clean", "read a bucket"

    def __init__(self, folder: Path):
        super().__init__()
        self._folder = folder

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for file in sorted((self._folder / f"{rank:05d}").glob("*.jsonl.zst")):
            with open_raw(file) as stream:
                for line in stream:
                    yield Document(**json.loads(line))


class JoinAnswers(CountedStep):
    """Makes one document of every question and its answers, in the order of sites and questions.

    Of posts that a dump holds twice the first is kept. An answer whose question is not there, deleted for example, is dropped.
    """

    def __init__(self, name: str, *, examples: Path, keep_unanswered: bool):
        super().__init__(name, examples=examples)
        self._keep_unanswered = keep_unanswered

    def run(self, data, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        questions: dict[tuple[str, int], Document] = {}
        answers: dict[tuple[str, int], list[Document]] = defaultdict(list)
        seen = set()
        for post in data:
            self.count_in(post.text)
            key = post.metadata["site"], post.metadata["question"]
            identity = key[0], post.metadata["post"]
            if identity in seen:
                self.drop("a post that was there before", name=post.id, text=post.text)
                continue
            seen.add(identity)
            if post.metadata["kind"] == "question":
                questions[key] = post
            else:
                answers[key].append(post)
        for key, question in sorted(questions.items()):
            below = sorted(answers.pop(key, []), key=answer_order)
            if below or self._keep_unanswered:
                self.stat_update("answers below their question", value=len(below))
                yield self.keep(_thread(question, below), before=question.text)
            else:
                self.drop("a question without answers", name=question.id, text=question.text)
        for post in (post for posts in answers.values() for post in posts):
            self.drop("an answer without its question", name=post.id, text=post.text)
        self.save_examples(rank)


def _thread(question: Document, answers: list[Document]) -> Document:
    """The document of a question; its metadata say where it is from."""
    about = question.metadata
    metadata = {
        "site": about["site"], "url": address_of(about["site"], str(about["post"])), "title": about["title"],
        "score": about["score"], "date": about["date"], "tags": about["tags"],
        "answer_scores": [answer.metadata["score"] for answer in answers],
        "licenses": sorted({post.metadata["license"] for post in (question, *answers)} - {""}),
    }
    text = thread_text(question.text, [answer.text for answer in answers], title=about["title"])
    return Document(text, f"{about['site']}/{about['post']}", metadata=metadata)
