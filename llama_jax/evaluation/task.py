"""The description of an evaluation task: how records become requests to a model, and how its answers become metrics.

    read(files, settings) -> TaskRecords      from the official files (`llama_jax.evaluation.data.OfficialFiles`)
    hub(rows, settings) -> TaskRecords        the same records, through the `datasets` library
    build(records, settings) -> [Item]        an Item holds its requests, its gold answer and whatever judging needs
    judge(items, answers, settings=...) -> [Verdict]  answers[i][r] is the answer to items[i].requests[r]

A task is a pure description and imports neither jax nor a model. The harness asks the requests of all tasks together, keeps
the answers (a killed evaluation goes on from them) and judges a task once it has all of its answers; judging is a pure
function of items and answers. A reported metric is the mean over the items whose Verdict has that metric (one that concerns
few items is absent from the others), overall and for each value of each tag. `total` adds numbers that are no such mean, as
perplexity.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Literal, NamedTuple

EvaluationProtocol = Literal["llama", "lm_eval", "raw"]
"""How tasks are asked: as the paper does, as lm-evaluation-harness does, or with the paper's prompts and plain sums."""


@dataclass(frozen=True)
class LikelihoodRequest:
    """Asks for the log-probability of a continuation after a context; an empty context is BOS."""

    KIND: ClassVar[str] = "Choice"
    """The request's name in hashes and in `answers.jsonl`; it never changes, so that older files stay valid."""

    context: str
    continuation: str


@dataclass(frozen=True)
class RollingRequest:
    """Asks for the log-probability of a whole text after BOS, however long (lm-evaluation-harness: rolling loglikelihood)."""

    KIND: ClassVar[str] = "Whole"

    text: str


@dataclass(frozen=True)
class GenerationRequest:
    """Asks for `num_samples` continuations of a text."""

    KIND: ClassVar[str] = "Prompt"

    text: str
    stop: tuple[str, ...] = ()
    """A continuation ends before the first of these strings."""
    max_tokens: int = 256
    temperature: float = 0.0
    """0: greedy decoding."""
    top_p: float = 1.0
    top_k: int = 0
    num_samples: int = 1
    seed: int = 0
    prompt_index: int = 0
    """In [0, 2^64): prompts of different indices draw independent random numbers under one seed. `requests.prepare_tasks`
    gives every sampled prompt of every task another index."""


ModelRequest = LikelihoodRequest | RollingRequest | GenerationRequest


@dataclass(frozen=True)
class LikelihoodAnswer:
    """Answers a LikelihoodRequest or a RollingRequest."""

    KIND: ClassVar[str] = "Score"

    logprob: float
    """Nats."""
    tokens: int
    """Number of tokens scored: those of the continuation, or of the whole text."""
    is_greedy: bool
    """Whether greedy decoding would have produced the scored tokens."""
    truncated: int = 0
    """Tokens that the context lost at its left end because they did not fit into the model's context."""


@dataclass(frozen=True)
class GenerationAnswer:
    """Answers a GenerationRequest."""

    KIND: ClassVar[str] = "Texts"

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...] = ()
    """One of "stop" and "length" per text."""
    truncated: int = 0
    """Tokens that the prompt lost at its left end."""


ModelAnswer = LikelihoodAnswer | GenerationAnswer


@dataclass(frozen=True)
class Item:
    """One question of a task."""

    key: str
    """Its name within the task, the same in every run: a number, or an id from the file."""
    requests: tuple[ModelRequest, ...]
    gold: Any = None
    """The right answer, as JSON: the index of a choice, or a list of accepted answers."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What the metrics are also broken down by, as {"subject": "anatomy"}."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else `judge` needs, as JSON; it is not reported."""

    @property
    def sha256(self) -> str:
        """Hash of the requests; two runs that asked the same have the same."""
        asked = []
        for request in self.requests:
            fields = asdict(request)
            fields.pop("prompt_index", None)  # it decides what is drawn, not what is asked
            asked.append([request.KIND, fields])
        return sha256(json.dumps(asked, ensure_ascii=True, sort_keys=True).encode()).hexdigest()


class Verdict(NamedTuple):
    """The outcome of one item."""

    metrics: dict[str, float]
    """This item's metrics by name; bool counts as 0 or 1."""
    prediction: Any = None
    """The model's answer as it was understood, as JSON, for the per-item file."""


class TaskRecords(NamedTuple):
    """Records of a data set, as JSON objects in the official format."""

    test: list[dict]
    shots: list[dict] = []
    """Records that worked examples are drawn from."""


@dataclass(frozen=True)
class Settings:
    """User's choices about how tasks are asked. A field that is None leaves the choice to each task."""

    protocol: EvaluationProtocol = "llama"
    """llama: the paper's prompts and normalisation; lm_eval: those of lm-evaluation-harness; raw: the paper's prompts, plain
    sums of log-probabilities."""
    num_fewshot: int | None = None
    """Worked examples shown before each question."""
    num_samples: int | None = None
    """Samples per question, for the tasks that sample (maj1@k, pass@k)."""
    max_tokens: int | None = None
    """Most tokens of a generated answer."""
    seed: int = 0
    """Seed of the samples and of the choice of worked examples."""
    allow_code_execution: bool = False
    """Run generated programs in the sandbox; without it they are written to `output` for another tool."""
    scorer: str = ""
    """Scores generated texts (RealToxicityPrompts): MODULE:FUNCTION, or a command that maps JSON lines to JSON lines."""
    gotcha: Literal["answer", "both"] = "both"
    """WinoGender's gotcha sentences: only those whose answer is the occupation, or both answers."""
    text_files: tuple[str, ...] = ()
    """Files that the task `perplexity` measures."""
    output: str = ""
    """Folder of the run, for files that a task writes itself; empty: none is written."""


class Estimate(NamedTuple):
    """A metric of the report with its uncertainty."""

    value: float
    stderr: float | None
    """Standard error; None where it cannot be estimated."""
    count: int
    """Number of items that the value rests on."""


@dataclass(frozen=True)
class Task:
    """One column of a table. Columns that differ in worked examples or samples are Tasks of their own, made by one function."""

    name: str
    title: str
    """Name in the head of a report's table, as "BoolQ"."""
    read: Callable[[Any, Settings], TaskRecords]
    build: Callable[[TaskRecords, Settings], list[Item]]
    judge: Callable[..., list[Verdict]]
    """Called as judge(items, answers, settings=settings)."""
    headline: Mapping[EvaluationProtocol, str]
    """The metric that stands for the task under each protocol."""
    origin: str
    """Where the files come from: a URL and what to do with it. Shown where a file is missing."""
    hub: Callable[[Any, Settings], TaskRecords] | None = None
    """Its first argument is a function rows(path, config, split) -> list of dicts; None: the hub has no such data."""
    total: Callable[[Sequence[Item], Sequence[Verdict]], dict[str, Estimate]] | None = None
    """Further metrics, from all items at once."""
    num_fewshot: int = 0
    """Worked examples shown where Settings.num_fewshot is None."""
    most_fewshot: int = 0
    """How many worked examples can be shown; asking for more is an error."""
    size: int = 0
    """Items of the whole official set, so that a report can say that fewer were asked; 0: unknown."""
    limit_by: str = ""
    """A tag: --limit N takes N items of each of its values instead of N of the whole task."""
    percent: bool = True
    """Whether the headline metric is a share, which is printed times 100."""
    higher_is_better: bool = True


def judge_each(judge: Callable[[Item, Sequence[ModelAnswer]], Verdict]) -> Callable[..., list[Verdict]]:
    """Turns a function that judges one item into the `judge` of a Task."""
    def judge_all(items: Sequence[Item], answers: Sequence[Sequence[ModelAnswer]], *, settings: Settings) -> list[Verdict]:
        return [judge(item, given) for item, given in zip(items, answers, strict=True)]

    return judge_all


def headline_metrics(paper: str, others: str = "") -> dict[EvaluationProtocol, str]:
    """The `headline` of a Task: a metric for the paper's protocol, and one for the others where they report another."""
    return {"llama": paper, "lm_eval": others or paper, "raw": others or paper}
