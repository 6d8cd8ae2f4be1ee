"""Code generation (Table 8): HumanEval and MBPP, pass@k. Programs run only where --allow_code_execution says so."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.sandbox.run import describe_isolation, run_programs
from llama_jax.evaluation.task import (
    GenerationAnswer,
    GenerationRequest,
    Item,
    Settings,
    Task,
    TaskRecords,
    Verdict,
    headline_metrics,
)
from llama_jax.files.jsonl import write_jsonl

_TOP_P = 0.95
_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""What begins after the end of a function (Chen et al. 2021, section 2.3)."""
_SHOTS = (2, 3, 4)
"""Task ids of MBPP's worked examples."""
_TESTED = range(11, 511)
"""Task ids of MBPP's test set."""
_SECONDS_BETWEEN_REPORTS = 10


def pass_at_k(samples: int, passed: int, *, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the probability that k of n samples include one of the c that pass.

    The estimator of Chen et al. 2021, equation 1, as a product of ratios that cannot overflow.
    """
    all_fail = 1.0
    for n in range(samples - passed + 1, samples + 1):
        all_fail *= max(0.0, 1 - k / n)
    return 1.0 - all_fail


def _read_humaneval(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """164 functions to complete."""
    name = "humaneval/HumanEval.jsonl.gz"
    fields = ("task_id", "prompt", "test", "entry_point")
    rows = files.read_jsonl(name, dict.fromkeys(fields, str))
    for number, row in enumerate(rows, 1):
        files.require(all(row[key] for key in fields), "task_id, prompt, test and entry_point should not be empty",
                      file=name, record=number)
    _require_distinct_ids(files, name, rows=rows)
    return TaskRecords(rows)


def _require_distinct_ids(files: OfficialFiles, name: str, *, rows: Sequence[dict]) -> None:
    """Raise DataError where two records have the same task_id, by which programs and results are matched."""
    seen = set()
    for number, row in enumerate(rows, 1):
        files.require(row["task_id"] not in seen, f"a second record has the task_id {row['task_id']!r}",
                      file=name, record=number)
        seen.add(row["task_id"])


def _read_mbpp(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """Task ids 11 to 510, and 2, 3, 4 as worked examples."""
    name = "mbpp/mbpp.jsonl"
    rows = files.read_jsonl(name, {"task_id": int, "text": str, "code": str, "test_list": [str], "test_setup_code": str})
    for number, row in enumerate(rows, 1):
        files.require(row["task_id"] > 0, f"the task_id should be at least 1, got {row['task_id']}", file=name, record=number)
    _require_distinct_ids(files, name, rows=rows)
    shots = [row for row in rows if row["task_id"] in _SHOTS]
    found = [row["task_id"] for row in shots]
    files.require(found == list(_SHOTS), "the worked examples 2, 3 and 4 are missing", file=name, record=len(rows))
    return TaskRecords([row for row in rows if row["task_id"] in _TESTED], shots)


def _hub_mbpp(rows: HubRows, settings: Settings) -> TaskRecords:
    """Read the records from the Hugging Face hub, which has the worked examples in a split of their own."""
    shots = [row for row in rows("google-research-datasets/mbpp", "full", "prompt") if row["task_id"] in _SHOTS]
    return TaskRecords(rows("google-research-datasets/mbpp", "full", "test"), shots)


def _humaneval_prompt(row: dict, shots: Sequence[dict]) -> str:
    """Signature and docstring."""
    return row["prompt"]


def humaneval_program(row: dict, completion: str) -> str:
    """A completion with its tests, as OpenAI's human-eval puts them together."""
    return f"{row['prompt']}{completion}\n{row['test']}\ncheck({row['entry_point']})"


def _mbpp_question(row: dict) -> str:
    """The task description with its tests, up to where the program begins."""
    tests = "\n".join(row["test_list"])
    return (f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these tests:\n\n"
            f"{tests}\n[BEGIN]\n")


def _mbpp_prompt(row: dict, shots: Sequence[dict]) -> str:
    """Three solved tasks, then this one. Carriage returns of the file are kept."""
    return "".join(f"{_mbpp_question(shot)}{shot['code']}\n[DONE]\n\n" for shot in shots) + _mbpp_question(row)


def mbpp_program(row: dict, completion: str) -> str:
    """A completion with the setup code and the tests."""
    return "\n".join([completion, row["test_setup_code"], *row["test_list"]])


@dataclass(frozen=True)
class _Suite:
    """What distinguishes HumanEval from MBPP."""

    name: str
    title: str
    read: Callable[[OfficialFiles, Settings], TaskRecords]
    hub: Callable[[HubRows, Settings], TaskRecords]
    prompt: Callable[[dict, Sequence[dict]], str]
    """Prompt of a record, from it and the worked examples."""
    program: Callable[[dict, str], str]
    """Source to run, from a record and a completion."""
    stop: tuple[str, ...]
    origin: str
    size: int
    shots: int = 0
    max_tokens: int = 512


def _pass_task(suite: _Suite, k: int, *, temperature: float, samples: int) -> Task:
    """pass@k from `samples` at a temperature. lm-evaluation-harness takes one greedy sample for pass@1."""
    name = f"{suite.name}_{k}"

    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        if settings.allow_code_execution:
            tell_isolation()
        drawn = {"temperature": temperature, "top_p": _TOP_P, "num_samples": settings.num_samples or samples}
        if settings.protocol == "lm_eval" and k == 1:
            drawn = {"num_samples": 1}
        shots = records.shots[: suite.shots if settings.num_fewshot is None else settings.num_fewshot]
        most = settings.max_tokens or suite.max_tokens
        items = []
        for row in records.test:
            request = GenerationRequest(suite.prompt(row, shots), stop=suite.stop, max_tokens=most, seed=settings.seed, **drawn)
            items.append(Item(str(row["task_id"]), (request,), extra=row))
        return items

    def judge(items: Sequence[Item], answers: Sequence[Sequence[GenerationAnswer]], *, settings: Settings) -> list[Verdict]:
        samples = [{"task_id": item.extra["task_id"], "completion": text} for item, given in zip(items, answers, strict=True)
                   for text in given[0].texts]
        if settings.output:
            write_jsonl(Path(settings.output) / f"{name}_samples.jsonl", samples)
        if not settings.allow_code_execution:
            return [Verdict({}) for _ in items]
        results = _run_samples(suite, items, samples=samples)
        if settings.output:
            write_jsonl(Path(settings.output) / f"{name}_results.jsonl", results)
        return [pass_verdict([row for row in results if row["task_id"] == item.extra["task_id"]], k) for item in items]

    return Task(name, f"{suite.title} @{k}", suite.read, build, judge, headline_metrics(f"pass@{k}"),
                suite.origin, suite.hub, num_fewshot=suite.shots, most_fewshot=suite.shots, size=suite.size)


def _run_samples(suite: _Suite, items: Sequence[Item], *, samples: Sequence[dict]) -> list[dict]:
    """Every sample with "passed" and "result". Equal programs run once; stderr says now and then how many have run."""
    records = {item.extra["task_id"]: item.extra for item in items}
    programs = [suite.program(records[sample["task_id"]], sample["completion"]) for sample in samples]
    distinct = list(dict.fromkeys(programs))
    done, reported = 0, time.monotonic()

    def report(more: int) -> None:
        nonlocal done, reported
        done += more
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            print(f"{suite.name}: {done} of {len(distinct)} programs run", file=sys.stderr)

    outcomes = dict(zip(distinct, run_programs(distinct, report=report), strict=True))
    return [sample | {"passed": outcomes[program].passed, "result": outcomes[program].result}
            for sample, program in zip(samples, programs, strict=True)]


def pass_verdict(results: Sequence[dict], k: int) -> Verdict:
    """pass@1, pass@10 and pass@k of one problem, as far as there are enough samples."""
    passed = sum(row["passed"] for row in results)
    sizes = [size for size in sorted({1, 10, k}) if size <= len(results)]
    metrics = {f"pass@{size}": pass_at_k(len(results), passed, k=size) for size in sizes}
    return Verdict(metrics, [row["result"] for row in results])


@cache
def tell_isolation() -> None:
    """Say once, before anything is generated, what isolates the programs; raises ConfigError where nothing can run them."""
    print(*(f"sandbox: {line}" for line in describe_isolation()), sep="\n", file=sys.stderr)


_HUMANEVAL = _Suite(
    "humaneval", "HumanEval", _read_humaneval,
    lambda rows, settings: TaskRecords(rows("openai/openai_humaneval", None, "test")), _humaneval_prompt, humaneval_program,
    stop=_STOP, origin="https://github.com/openai/human-eval/tree/master/data", size=164)
_MBPP = _Suite(
    "mbpp", "MBPP", _read_mbpp, _hub_mbpp, _mbpp_prompt, mbpp_program, stop=("[DONE]",),
    origin="https://github.com/google-research/google-research/tree/master/mbpp", size=500, shots=3)

TASKS = (
    _pass_task(_HUMANEVAL, 1, temperature=0.1, samples=20), _pass_task(_HUMANEVAL, 100, temperature=0.8, samples=200),
    _pass_task(_MBPP, 1, temperature=0.1, samples=20), _pass_task(_MBPP, 80, temperature=0.8, samples=80),
)
