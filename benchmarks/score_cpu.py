"""Scoring speed on a CPU: our likelihoods beside lm-evaluation-harness with its Hugging Face model, on the same requests.

    python benchmarks/score_cpu.py [--shapes S,M] [--rounds 3] [--json FILE]          (needs torch, transformers, lm_eval)
    python benchmarks/score_cpu.py --shapes M --slices DATA_DIR --tokenizer FILE      (needs pytest too)

400 requests at shape S and 100 at M, in groups of four that share their context, as ids cut from Tiny Shakespeare's
bytes; both sides hold the same float32 weights and their sums are compared. The sides take turns; a ratio is the median
over rounds of our requests/s divided by theirs. HFLM runs at the fastest of its batch sizes, found in a first round.

With --slices the work is a whole evaluation: the eight common-sense tasks from the official files in DATA_DIR, asked by that
harness's own task definitions on its side and by `--protocol lm_eval` on ours. Ours scores every choice after "Answer:" as
well, which the harness's tasks do not; it runs a second time with its metric acc_mutual_info, for which it scores every
choice alone, so that both sides do about the same work. Seconds go from records to accuracies, the first of ours holds the
compilation; tokens are those of the choices after their contexts, the same number for all.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from llama_jax.allocator import keep_freed_memory
from llama_jax.inference.likelihood import token_loglikelihood
from llama_jax.model.transformer import Transformer
from tests.golden.make_transformers import hf_model
from tests.golden.shapes import random_model

COUNTS = {"S": 400, "M": 100}
BATCH_SIZES = (4, 8, 16)
MUTUAL_INFORMATION = "metric_list:\n" + "".join(f"  - {{metric: {name}, aggregation: mean, higher_is_better: true}}\n"
                                               for name in ("acc", "acc_mutual_info"))


def requests_of(count: int, vocab: int) -> list[tuple[list[int], list[int]]]:
    """Groups of four: contexts of 20 to 120 ids, continuations of 5 to 30."""
    rng = np.random.default_rng(0)
    requests = []
    for _ in range(count // 4):
        context = rng.integers(3, vocab, rng.integers(20, 121)).tolist()
        requests += [(context, rng.integers(3, vocab, rng.integers(5, 31)).tolist()) for _ in range(4)]
    return requests


def harness(model, config):
    """lm-eval's HFLM around a transformers model, with the least of tokenizers: requests are ids already."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return HFLM(pretrained=model, tokenizer=tokenizer, max_length=config.max_length, device="cpu")


def compare(shape: str, rounds: int) -> dict:
    """One shape: seconds a round of each side, and how far their sums are apart."""
    config, params = random_model(shape)
    model, requests = Transformer(config), requests_of(COUNTS[shape], config.vocab_size)
    lm = harness(hf_model(config, params).eval(), config)
    params = jax.tree.map(jnp.asarray, params)

    def ours() -> list[float]:
        return [result.logprob for result in token_loglikelihood(model, params, requests)]

    def theirs(size: int) -> list[float]:
        lm.batch_size_per_gpu = size
        return [value for value, _ in lm._loglikelihood_tokens([(("", ""), *pair) for pair in requests], disable_tqdm=True,
                                                               override_bs=size)]

    ours()  # compiles
    size = min(BATCH_SIZES, key=lambda size: timed(theirs, size)[0])
    seconds, apart = [], 0.0
    for _ in range(rounds):
        (a, mine), (b, other) = timed(ours), timed(theirs, size)
        seconds.append((a, b))
        apart = max(apart, float(np.abs(np.subtract(mine, other)).max()))
    ratios = [b / a for a, b in seconds]
    return {"shape": shape, "requests": len(requests), "batch_size": size, "seconds": seconds, "apart": apart,
            "ours": len(requests) / statistics.median(a for a, _ in seconds),
            "lm_eval": len(requests) / statistics.median(b for _, b in seconds), "ratio": statistics.median(ratios)}


def whole_evaluation(shape: str, rounds: int, asked: argparse.Namespace) -> dict:
    """The eight common-sense tasks on both sides: seconds a round, and whether the accuracies are the same."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from llama_jax.data.tokenizer import Tokenizer
    from llama_jax.evaluation.answers import Answerer
    from llama_jax.evaluation.harness import evaluate
    from llama_jax.evaluation.jobs import plan
    from llama_jax.evaluation.store import Store
    from llama_jax.evaluation.task import Settings
    from llama_jax.evaluation.tasks import COMMON_SENSE
    from tests.peers.test_lm_eval import spelled, write_tasks

    config, params = random_model(shape)
    tokenizer, settings = Tokenizer.load(asked.tokenizer), Settings(protocol="lm_eval")
    answerer = Answerer(Transformer(config), jax.tree.map(jnp.asarray, params), tokenizer)
    lm = HFLM(pretrained=hf_model(config, params).eval(), tokenizer=spelled(tokenizer), max_length=config.max_length,
              device="cpu", add_bos_token=True)

    def ours() -> dict[str, float]:
        jobs = plan(COMMON_SENSE, asked.slices, settings, asked.limit)
        results = evaluate(jobs, answerer, settings, Store(None, ""), lambda name, new: None)
        return {result.job.task.name: result.numbers["acc_raw"].value for result in results}

    def theirs(manager: TaskManager, size: int, limit: int | None) -> dict[str, float]:
        lm.batch_size_per_gpu = size
        given = lm_eval.simple_evaluate(model=lm, tasks=[f"ours_{name}" for name in COMMON_SENSE], task_manager=manager,
                                        num_fewshot=0, limit=limit, log_samples=False, bootstrap_iters=0, verbosity="ERROR")
        return {name: given["results"][f"ours_{name}"]["acc,none"] for name in COMMON_SENSE}

    jobs = plan(COMMON_SENSE, asked.slices, settings, asked.limit)
    choices = {request for job in jobs for item in job.items for request in item.requests[: len(item.requests) // 2]}
    tokens = sum(len(a) + len(b) for choice in choices for pair in [answerer.pairs_of(choice)[0]] for a, b in pair)
    with tempfile.TemporaryDirectory() as folder:
        managers = {}
        for name, more in (("plain", ""), ("mutual", MUTUAL_INFORMATION)):
            (Path(folder) / name).mkdir()
            write_tasks(Path(folder) / name, Path(asked.slices), more)
            managers[name] = TaskManager(include_path=str(Path(folder) / name), include_defaults=False)
        first, mine = timed(ours)
        size = min(BATCH_SIZES, key=lambda size: timed(theirs, managers["plain"], size, 3)[0])
        seconds, same = [], True
        for _ in range(rounds):
            a, mine = timed(ours)
            row = {"ours": a}
            for name, manager in managers.items():
                row[name], other = timed(theirs, manager, size, asked.limit or None)
                same &= mine == other
            seconds.append(row)
    return {"shape": shape, "items": sum(len(job.items) for job in jobs), "tokens": tokens, "batch_size": size, "first": first,
            "seconds": seconds, "same_accuracies": same}


def show_whole(row: dict, rounds: int) -> None:
    """Seconds and tokens/s of both sides, then the ratios."""
    print(f"{row['shape']} float32, eight common-sense tasks, {row['items']} items, {row['tokens']:,} tokens; accuracies "
          f"{'equal' if row['same_accuracies'] else 'DIFFER'}")
    middle = {name: statistics.median(some[name] for some in row["seconds"]) for name in row["seconds"][0]}
    for name, seconds in (("ours, first", row["first"]), ("ours", middle["ours"]),
                          (f"lm-eval HFLM, batch {row['batch_size']}", middle["plain"]),
                          ("the same, with mutual information", middle["mutual"])):
        print(f"  {name:34s} {seconds:9.1f} s {row['tokens'] / seconds:10,.0f} tokens/s")
    for name, title in (("plain", "lm_eval"), ("mutual", "lm_eval-mutual-info")):
        ratio = statistics.median(some[name] / some["ours"] for some in row["seconds"])
        print(f"ratio slices-{row['shape']}-{title}: {ratio:.2f} (theirs / ours in seconds, median of {rounds}; "
              f"{middle[name] / row['first']:.2f} with our compilation)")


def timed(action, *arguments) -> tuple[float, Any]:
    """Seconds and result of a call."""
    begin = time.perf_counter()
    result = action(*arguments)
    return time.perf_counter() - begin, result


def main() -> None:
    """Print the table, then a ratio a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="S,M")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("--slices", metavar="DATA_DIR")
    parser.add_argument("--tokenizer", metavar="FILE", help="SentencePiece with as many pieces as the shape (32,000)")
    parser.add_argument("--limit", type=int, default=0, help="items of each task; 0: all")
    arguments = parser.parse_args()
    keep_freed_memory()
    if arguments.slices:
        rows = [whole_evaluation(shape, arguments.rounds, arguments) for shape in arguments.shapes.split(",")]
        for row in rows:
            show_whole(row, arguments.rounds)
        write(arguments.json, rows)
        return
    rows = [compare(shape, arguments.rounds) for shape in arguments.shapes.split(",")]
    print(f"{'':12s} {'ours, requests/s':>18s} {'lm-eval HFLM':>14s} {'its batch':>10s} {'sums apart':>12s}")
    for row in rows:
        print(f"{row['shape']} float32    {row['ours']:18.1f} {row['lm_eval']:14.1f} {row['batch_size']:10d} "
              f"{row['apart']:12.1e}")
    for row in rows:
        print(f"ratio score-{row['shape']}-float32-lm_eval: {row['ratio']:.2f} (ours / theirs, median of {arguments.rounds})")
    write(arguments.json, rows)


def write(file: str | None, rows: list[dict]) -> None:
    """The numbers as JSON, where a file is named."""
    if file:
        report = {"date": time.strftime("%Y-%m-%d"), "cpu": platform.processor() or platform.machine(), "rows": rows}
        Path(file).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
