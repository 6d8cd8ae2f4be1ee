"""What a task is: a pure description of how records become requests and how answers become numbers. No jax, no files.

    read(files, settings) -> Records          files: llama_jax.evaluation.data.Files (official layout)
    hub(rows, settings) -> Records            the same records through the `datasets` library
    build(records, settings) -> [Item]        an Item holds its requests, gold and whatever judging needs
    judge(items, answers, settings) -> [Verdict]      answers[i][r] answers items[i].requests[r]

The harness runs the requests of all tasks together, keeps the answers (an evaluation that was killed goes on from them),
and judges when a task has all of them: judging is a pure function of items and answers. A number of the report is the
mean of a metric over the items whose Verdict has it (a metric that concerns few items is simply absent from the others),
overall and for each value of each tag; `total` replaces the mean where a number is none, as perplexity.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Literal, NamedTuple

Protocol = Literal["llama", "lm_eval", "raw"]


@dataclass(frozen=True)
class Choice:
    """Asks for the log-probability of a continuation after a context (empty: after BOS). Answered by a Score."""

    context: str
    continuation: str


@dataclass(frozen=True)
class Whole:
    """Asks for the log-probability of a whole text after BOS, however long. Answered by a Score."""

    text: str


@dataclass(frozen=True)
class Prompt:
    """Asks for continuations of a text. Answered by Texts, `num_samples` of them."""

    text: str
    stop: tuple[str, ...] = ()
    """The text ends before the first of these."""
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    num_samples: int = 1
    seed: int = 0
    place: int = 0
    """Which noise the seed draws (`inference.generate.Asked`); `jobs.plan` gives every sampled prompt of every task its own."""


Request = Choice | Whole | Prompt


@dataclass(frozen=True)
class Score:
    """Answer to a Choice or a Whole."""

    logprob: float
    """Nats."""
    tokens: int
    """Of the continuation, or of the whole text."""
    is_greedy: bool
    """Whether greedy decoding would have produced it."""
    truncated: int = 0
    """Tokens that the context lost at its left because the model's context is shorter."""


@dataclass(frozen=True)
class Texts:
    """Answer to a Prompt."""

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...] = ()
    """stop or length, one a text."""
    truncated: int = 0
    """Tokens that the prompt lost at its left."""


Answer = Score | Texts


@dataclass(frozen=True)
class Item:
    """One question of a task."""

    key: str
    """Its name inside the task, the same in every run: a number, or an id of the file."""
    requests: tuple[Request, ...]
    gold: Any = None
    """What is right, as JSON: the number of a choice, a list of answers."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What the numbers are also broken down by, as {"subject": "anatomy"}."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else `judge` needs, as JSON; not reported."""

    @property
    def sha256(self) -> str:
        """Of the requests: the same in two runs that asked the same."""
        asked = [[type(request).__name__, {name: value for name, value in asdict(request).items() if name != "place"}]
                 for request in self.requests]
        return sha256(json.dumps(asked, ensure_ascii=True, sort_keys=True).encode()).hexdigest()


class Verdict(NamedTuple):
    """What came of one item."""

    metrics: dict[str, float]
    """Numbers of this item by name; bool counts as 0 or 1."""
    prediction: Any = None
    """What the model said, as JSON, for the per-item file."""


class Records(NamedTuple):
    """What a data set holds, as JSON objects in the official format."""

    test: list[dict]
    shots: list[dict] = []
    """Where worked examples are taken from."""


@dataclass(frozen=True)
class Settings:
    """What a user may say about how tasks are asked. Those at None are each task's own."""

    protocol: Protocol = "llama"
    """llama: the paper's prompts and normalisation; lm_eval: that harness's; raw: the paper's prompts, plain sums."""
    num_fewshot: int | None = None
    num_samples: int | None = None
    """Samples a question of the tasks that draw some (maj1@k, pass@k)."""
    max_tokens: int | None = None
    """Tokens at most of a generated answer."""
    seed: int = 0
    """Of samples, and of which worked examples are shown."""
    allow_code_execution: bool = False
    """Run generated programs in the sandbox; without it they are written to `output` for another tool."""
    scorer: str = ""
    """Who scores generations (RealToxicityPrompts): MODULE:FUNCTION, or a command that maps JSON lines to JSON lines."""
    gotcha: Literal["answer", "both"] = "both"
    """WinoGender's gotcha sentences: only those whose answer is the occupation, or both answers."""
    text_files: tuple[str, ...] = ()
    """What the task `perplexity` measures."""
    output: str = ""
    """Folder of the run, for files that a task writes itself; empty: none."""


class Estimate(NamedTuple):
    """A number of the report."""

    value: float
    stderr: float | None
    """Standard error; None where there is none to tell."""
    count: int
    """Items it rests on."""


@dataclass(frozen=True)
class Task:
    """One column of a table. Columns that differ in shots or samples are Tasks of their own, made by one function."""

    name: str
    title: str
    """For the report's head: BoolQ."""
    read: Callable[[Any, Settings], Records]
    build: Callable[[Records, Settings], list[Item]]
    judge: Callable[[Sequence[Item], Sequence[Sequence[Answer]], Settings], list[Verdict]]
    headline: Mapping[Protocol, str]
    """Which metric stands for the task, a protocol each."""
    origin: str
    """Where the files come from, for the error that says so: a URL and what to do with it."""
    hub: Callable[[Any, Settings], Records] | None = None
    """rows(path, config, split) -> list of dicts is given; None: the hub has no such data."""
    total: Callable[[Sequence[Item], Sequence[Verdict]], dict[str, Estimate]] | None = None
    """Further numbers, from all items at once."""
    num_fewshot: int = 0
    """Worked examples shown where Settings.num_fewshot is None."""
    most_fewshot: int = 0
    """How many can be shown; asking for more is an error."""
    size: int = 0
    """Items of the whole official set, so that a report can say that fewer were asked; 0: unknown."""
    limit_by: str = ""
    """A tag: --limit N takes N items of each of its values, not of the whole task."""
    percent: bool = True
    """Whether the headline is a share, printed times 100."""
    higher_is_better: bool = True


def each(judge: Callable[[Item, Sequence[Answer]], Verdict]) -> Callable[..., list[Verdict]]:
    """A `judge` of all items from one that judges a single item."""
    return lambda items, answers, settings: [judge(item, given) for item, given in zip(items, answers, strict=True)]
