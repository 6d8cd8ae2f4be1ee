"""Programs that must pass tests (Table 8): HumanEval and MBPP, pass@k; they run only where --allow_code_execution says so."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llama_jax.evaluation.data import HubRows, OfficialFiles
from llama_jax.evaluation.sandbox.run import describe_isolation, run_programs
from llama_jax.evaluation.task import GenerationAnswer, GenerationRequest, Item, Settings, Task, TaskRecords, Verdict
from llama_jax.files.jsonl import write_jsonl

_TOP_P = 0.95
_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Chen et al. 2021, section 2.3: what begins after a function's end."""
_SHOTS = (2, 3, 4)
"""Task ids of MBPP's worked examples."""
_TESTED = range(11, 511)
"""Task ids of MBPP's test set."""


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that k of n samples hold one of the c that pass (Chen et al. 2021, equation 1)."""
    failing = 1.0
    for n in range(samples - passed + 1, samples + 1):
        failing *= max(0.0, 1 - k / n)
    return 1.0 - failing


def _read_humaneval(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """164 functions to complete."""
    name = "humaneval/HumanEval.jsonl.gz"
    rows = files.jsonl(name, dict.fromkeys(("task_id", "prompt", "test", "entry_point"), str))
    for number, row in enumerate(rows, 1):
        files.require(all(row[key] for key in ("task_id", "prompt", "test", "entry_point")), name, number,
                      "task_id, prompt, test and entry_point should not be empty")
    _require_distinct_ids(files, name, rows)
    return TaskRecords(rows)


def _require_distinct_ids(files: OfficialFiles, name: str, rows: Sequence[dict]) -> None:
    """Raise DataError where two records have one task_id, by which programs and results are matched."""
    seen = set()
    for number, row in enumerate(rows, 1):
        files.require(row["task_id"] not in seen, name, number, f"a second record has the task_id {row['task_id']!r}")
        seen.add(row["task_id"])


def _read_mbpp(files: OfficialFiles, settings: Settings) -> TaskRecords:
    """Task ids 11 to 510, and 2, 3, 4 as worked examples."""
    name = "mbpp/mbpp.jsonl"
    rows = files.jsonl(name, {"task_id": int, "text": str, "code": str, "test_list": [str], "test_setup_code": str})
    for number, row in enumerate(rows, 1):
        files.require(row["task_id"] > 0, name, number, f"the task_id should be at least 1, got {row['task_id']}")
    _require_distinct_ids(files, name, rows)
    shots = [row for row in rows if row["task_id"] in _SHOTS]
    found = [row["task_id"] for row in shots]
    files.require(found == list(_SHOTS), name, len(rows), "the worked examples 2, 3 and 4 are missing")
    return TaskRecords([row for row in rows if row["task_id"] in _TESTED], shots)


def _hub_mbpp(rows: HubRows, settings: Settings) -> TaskRecords:
    """The same, split."""
    shots = [row for row in rows("google-research-datasets/mbpp", "full", "prompt") if row["task_id"] in _SHOTS]
    return TaskRecords(rows("google-research-datasets/mbpp", "full", "test"), shots)


def _humaneval_prompt(row: dict, shots: Sequence[dict]) -> str:
    """Signature and docstring."""
    return row["prompt"]


def humaneval_program(row: dict, completion: str) -> str:
    """As OpenAI's human-eval puts it together."""
    return f"{row['prompt']}{completion}\n{row['test']}\ncheck({row['entry_point']})"


def _mbpp_question(row: dict) -> str:
    """What is wanted, up to where the program begins."""
    tests = "\n".join(row["test_list"])
    return (f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these tests:\n\n"
            f"{tests}\n[BEGIN]\n")


def _mbpp_prompt(row: dict, shots: Sequence[dict]) -> str:
    """Three solved tasks, then this one; the file's carriage returns stay what they are."""
    return "".join(f"{_mbpp_question(shot)}{shot['code']}\n[DONE]\n\n" for shot in shots) + _mbpp_question(row)


def mbpp_program(row: dict, completion: str) -> str:
    """The program, what the tests need, the tests."""
    return "\n".join([completion, row["test_setup_code"], *row["test_list"]])


@dataclass(frozen=True)
class _Suite:
    """What HumanEval and MBPP differ in."""

    name: str
    title: str
    read: Callable[[OfficialFiles, Settings], TaskRecords]
    hub: Callable[[HubRows, Settings], TaskRecords]
    prompt: Callable[[dict, Sequence[dict]], str]
    program: Callable[[dict, str], str]
    """Source to run, from a record and a completion."""
    stop: tuple[str, ...]
    origin: str
    size: int
    shots: int = 0
    max_tokens: int = 512


def _pass_task(suite: _Suite, k: int, *, temperature: float, samples: int) -> Task:
    """pass@k from `samples` at a temperature; that harness takes one greedy sample."""
    name = f"{suite.name}_{k}"

    def build(records: TaskRecords, settings: Settings) -> list[Item]:
        if settings.allow_code_execution:
            tell_isolation()
        drawn = {"temperature": temperature, "top_p": _TOP_P, "num_samples": settings.num_samples or samples}
        if settings.protocol == "lm_eval" and k == 1:
            drawn = {"num_samples": 1}
        shots = records.shots[: suite.shots if settings.num_fewshot is None else settings.num_fewshot]
        most = settings.max_tokens or suite.max_tokens
        return [Item(str(row["task_id"]), (GenerationRequest(suite.prompt(row, shots), stop=suite.stop, max_tokens=most,
                     seed=settings.seed, **drawn),), extra=row) for row in records.test]

    def judge(items: Sequence[Item], answers: Sequence[Sequence[GenerationAnswer]], settings: Settings) -> list[Verdict]:
        samples = [{"task_id": item.extra["task_id"], "completion": text} for item, given in zip(items, answers, strict=True)
                   for text in given[0].texts]
        if settings.output:
            write_jsonl(Path(settings.output) / f"{name}_samples.jsonl", samples)
        if not settings.allow_code_execution:
            return [Verdict({}) for _ in items]
        results = _run_samples(suite, items, samples)
        if settings.output:
            write_jsonl(Path(settings.output) / f"{name}_results.jsonl", results)
        return [pass_verdict([row for row in results if row["task_id"] == item.extra["task_id"]], k) for item in items]

    return Task(name, f"{suite.title} @{k}", suite.read, build, judge, dict.fromkeys(("llama", "lm_eval", "raw"), f"pass@{k}"),
                suite.origin, suite.hub, num_fewshot=suite.shots, most_fewshot=suite.shots, size=suite.size)


def _run_samples(suite: _Suite, items: Sequence[Item], samples: Sequence[dict]) -> list[dict]:
    """Each sample with "passed" and "result"; equal programs run once. Every ten seconds stderr hears how many."""
    records = {item.extra["task_id"]: item.extra for item in items}
    programs = [suite.program(records[sample["task_id"]], sample["completion"]) for sample in samples]
    different = list(dict.fromkeys(programs))
    done, told = 0, time.monotonic()

    def report(more: int) -> None:
        nonlocal done, told
        done += more
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{suite.name}: {done} of {len(different)} programs run", file=sys.stderr)

    outcomes = dict(zip(different, run_programs(different, report=report), strict=True))
    return [sample | {"passed": outcomes[program].passed, "result": outcomes[program].result}
            for sample, program in zip(samples, programs, strict=True)]


def pass_verdict(results: Sequence[dict], k: int) -> Verdict:
    """pass@1, pass@10 and pass@k, as far as the samples reach."""
    passed = sum(row["passed"] for row in results)
    metrics = {f"pass@{size}": pass_at_k(len(results), passed, size) for size in sorted({1, 10, k}) if size <= len(results)}
    return Verdict(metrics, [row["result"] for row in results])


@cache
def tell_isolation() -> None:
    """Say once, before anything is generated, what keeps the programs in; raises ConfigError where nothing can run them."""
    print(*(f"sandbox: {line}" for line in describe_isolation()), sep="\n", file=sys.stderr)


_HUMANEVAL = _Suite("humaneval", "HumanEval", _read_humaneval,
                  lambda rows, settings: TaskRecords(rows("openai/openai_humaneval", None, "test")), _humaneval_prompt,
                  humaneval_program, _STOP, "https://github.com/openai/human-eval/tree/master/data", 164)
_MBPP = _Suite("mbpp", "MBPP", _read_mbpp, _hub_mbpp, _mbpp_prompt, mbpp_program, ("[DONE]",),
             "https://github.com/google-research/google-research/tree/master/mbpp", 500, shots=3)

TASKS = (
    _pass_task(_HUMANEVAL, 1, temperature=0.1, samples=20), _pass_task(_HUMANEVAL, 100, temperature=0.8, samples=200),
    _pass_task(_MBPP, 1, temperature=0.1, samples=20), _pass_task(_MBPP, 80, temperature=0.8, samples=80),
)
