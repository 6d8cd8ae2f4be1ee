"""Programs that must pass tests (Table 8): HumanEval and MBPP, pass@k; they run only where --allow_code_execution says so."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llama_jax.evaluation.data import Files, Rows
from llama_jax.evaluation.sandbox.run import isolation, run_many
from llama_jax.evaluation.task import Item, Prompt, Records, Settings, Task, Texts, Verdict
from llama_jax.files.jsonl import write_jsonl

TOP_P = 0.95
STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""Chen et al. 2021, section 2.3: what begins after a function's end."""
SHOTS = (2, 3, 4)
"""Task ids of MBPP's worked examples."""
TESTED = range(11, 511)
"""Task ids of MBPP's test set."""


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that k of n samples hold one of the c that pass (Chen et al. 2021, equation 1)."""
    failing = 1.0
    for n in range(samples - passed + 1, samples + 1):
        failing *= max(0.0, 1 - k / n)
    return 1.0 - failing


def read_humaneval(files: Files, settings: Settings) -> Records:
    """164 functions to complete."""
    name = "humaneval/HumanEval.jsonl.gz"
    rows = files.jsonl(name, dict.fromkeys(("task_id", "prompt", "test", "entry_point"), str))
    for number, row in enumerate(rows, 1):
        files.require(all(row[key] for key in ("task_id", "prompt", "test", "entry_point")), name, number,
                      "task_id, prompt, test and entry_point should not be empty")
    different(files, name, rows)
    return Records(rows)


def different(files: Files, name: str, rows: Sequence[dict]) -> None:
    """Raise DataError where two records have one task_id, by which programs and results are matched."""
    seen = set()
    for number, row in enumerate(rows, 1):
        files.require(row["task_id"] not in seen, name, number, f"a second record has the task_id {row['task_id']!r}")
        seen.add(row["task_id"])


def read_mbpp(files: Files, settings: Settings) -> Records:
    """Task ids 11 to 510, and 2, 3, 4 as worked examples."""
    name = "mbpp/mbpp.jsonl"
    rows = files.jsonl(name, {"task_id": int, "text": str, "code": str, "test_list": [str], "test_setup_code": str})
    for number, row in enumerate(rows, 1):
        files.require(row["task_id"] > 0, name, number, f"the task_id should be at least 1, got {row['task_id']}")
    different(files, name, rows)
    shots = [row for row in rows if row["task_id"] in SHOTS]
    files.require([row["task_id"] for row in shots] == list(SHOTS), name, len(rows), "the worked examples 2, 3 and 4 are missing")
    return Records([row for row in rows if row["task_id"] in TESTED], shots)


def hub_mbpp(rows: Rows, settings: Settings) -> Records:
    """The same, split."""
    shots = [row for row in rows("google-research-datasets/mbpp", "full", "prompt") if row["task_id"] in SHOTS]
    return Records(rows("google-research-datasets/mbpp", "full", "test"), shots)


def humaneval_prompt(row: dict, shots: Sequence[dict]) -> str:
    """Signature and docstring."""
    return row["prompt"]


def humaneval_program(row: dict, completion: str) -> str:
    """As OpenAI's human-eval puts it together."""
    return f"{row['prompt']}{completion}\n{row['test']}\ncheck({row['entry_point']})"


def mbpp_question(row: dict) -> str:
    """What is wanted, up to where the program begins."""
    tests = "\n".join(row["test_list"])
    return (f"You are an expert Python programmer, and here is your task: {row['text']} Your code should pass these tests:\n\n"
            f"{tests}\n[BEGIN]\n")


def mbpp_prompt(row: dict, shots: Sequence[dict]) -> str:
    """Three solved tasks, then this one; the file's carriage returns stay what they are."""
    return "".join(f"{mbpp_question(shot)}{shot['code']}\n[DONE]\n\n" for shot in shots) + mbpp_question(row)


def mbpp_program(row: dict, completion: str) -> str:
    """The program, what the tests need, the tests."""
    return "\n".join([completion, row["test_setup_code"], *row["test_list"]])


@dataclass(frozen=True)
class Suite:
    """What HumanEval and MBPP differ in."""

    name: str
    title: str
    read: Callable[[Files, Settings], Records]
    hub: Callable[[Rows, Settings], Records]
    prompt: Callable[[dict, Sequence[dict]], str]
    program: Callable[[dict, str], str]
    """Source to run, from a record and a completion."""
    stop: tuple[str, ...]
    origin: str
    size: int
    shots: int = 0
    max_tokens: int = 512


def pass_task(suite: Suite, k: int, *, temperature: float, samples: int) -> Task:
    """pass@k from `samples` at a temperature; that harness takes one greedy sample."""
    name = f"{suite.name}_{k}"

    def build(records: Records, settings: Settings) -> list[Item]:
        if settings.allow_code_execution:
            tell_isolation()
        drawn = {"temperature": temperature, "top_p": TOP_P, "num_samples": settings.num_samples or samples}
        if settings.protocol == "lm_eval" and k == 1:
            drawn = {"num_samples": 1}
        shots = records.shots[: suite.shots if settings.num_fewshot is None else settings.num_fewshot]
        most = settings.max_tokens or suite.max_tokens
        return [Item(str(row["task_id"]), (Prompt(suite.prompt(row, shots), stop=suite.stop, max_tokens=most, seed=settings.seed,
                     **drawn),), extra=row) for row in records.test]

    def judge(items: Sequence[Item], answers: Sequence[Sequence[Texts]], settings: Settings) -> list[Verdict]:
        samples = [{"task_id": item.extra["task_id"], "completion": text} for item, given in zip(items, answers, strict=True)
                   for text in given[0].texts]
        if settings.output:
            write_jsonl(Path(settings.output) / f"{name}_samples.jsonl", samples)
        if not settings.allow_code_execution:
            return [Verdict({}) for _ in items]
        results = run_samples(suite, items, samples)
        if settings.output:
            write_jsonl(Path(settings.output) / f"{name}_results.jsonl", results)
        return [verdict([row for row in results if row["task_id"] == item.extra["task_id"]], k) for item in items]

    return Task(name, f"{suite.title} @{k}", suite.read, build, judge, dict.fromkeys(("llama", "lm_eval", "raw"), f"pass@{k}"),
                suite.origin, suite.hub, num_fewshot=suite.shots, most_fewshot=suite.shots, size=suite.size)


def run_samples(suite: Suite, items: Sequence[Item], samples: Sequence[dict]) -> list[dict]:
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

    outcomes = dict(zip(different, run_many(different, report=report), strict=True))
    return [sample | {"passed": outcomes[program].passed, "result": outcomes[program].result}
            for sample, program in zip(samples, programs, strict=True)]


def verdict(results: Sequence[dict], k: int) -> Verdict:
    """pass@1, pass@10 and pass@k, as far as the samples reach."""
    passed = sum(row["passed"] for row in results)
    metrics = {f"pass@{size}": pass_at_k(len(results), passed, size) for size in sorted({1, 10, k}) if size <= len(results)}
    return Verdict(metrics, [row["result"] for row in results])


@cache
def tell_isolation() -> None:
    """Say once, before anything is generated, what keeps the programs in; raises ConfigError where nothing can run them."""
    print(*(f"sandbox: {line}" for line in isolation()), sep="\n", file=sys.stderr)


HUMANEVAL = Suite("humaneval", "HumanEval", read_humaneval,
                  lambda rows, settings: Records(rows("openai/openai_humaneval", None, "test")), humaneval_prompt,
                  humaneval_program, STOP, "https://github.com/openai/human-eval/tree/master/data", 164)
MBPP = Suite("mbpp", "MBPP", read_mbpp, hub_mbpp, mbpp_prompt, mbpp_program, ("[DONE]",),
             "https://github.com/google-research/google-research/tree/master/mbpp", 500, shots=3)

TASKS = (
    pass_task(HUMANEVAL, 1, temperature=0.1, samples=20), pass_task(HUMANEVAL, 100, temperature=0.8, samples=200),
    pass_task(MBPP, 1, temperature=0.1, samples=20), pass_task(MBPP, 80, temperature=0.8, samples=80),
)
