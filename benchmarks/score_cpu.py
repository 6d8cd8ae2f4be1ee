"""Scoring speed on a CPU: our likelihoods beside lm-evaluation-harness with its Hugging Face model, on the same requests.

    python benchmarks/score_cpu.py [--shapes S,M] [--rounds 3] [--json FILE]          (needs torch, transformers, lm_eval)
    python benchmarks/score_cpu.py --shapes M --slices DATA_DIR --tokenizer FILE      (needs pytest too)

400 requests at shape S and 100 at M, in groups of four that share their context, as ids cut from Tiny Shakespeare's
bytes; both sides hold the same float32 weights and their sums are compared. The sides take turns; a ratio is the median
over rounds of our requests/s divided by theirs. HFLM runs at the fastest of its batch sizes, found in a first round.

With --slices the work is a whole evaluation of the eight common-sense tasks from the official files in DATA_DIR, and each side
is the command that a user types, on the same Hugging Face folder: `eval.py --protocol lm_eval` and `lm_eval --model hf` with
lm-evaluation-harness's own task definitions, at the fastest of its batch sizes. Seconds are those of the whole process: start,
loading, our compilation, report. Ours scores every choice after "Answer:" as well, which the harness's tasks do not; theirs
runs a second time with its metric acc_mutual_info, for which it scores every choice alone, so that both sides do about the
same work. tokens/s count the tokens of each different choice and its context, the same number for all.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
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

from llama_jax.config import ComputeConfig
from llama_jax.evaluation.requests import prepare_tasks
from llama_jax.evaluation.task import Settings
from llama_jax.evaluation.tasks.catalogue import COMMON_SENSE
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.malloc import keep_freed_memory
from llama_jax.scoring.likelihood import token_loglikelihood
from llama_jax.tokenizer.load import load_tokenizer
from tests.golden.make_transformers import hf_model
from tests.golden.shapes import random_model

ROOT = Path(__file__).resolve().parent.parent
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
    import tokenizers
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedTokenizerFast

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return HFLM(pretrained=model, tokenizer=tokenizer, max_length=config.max_length, device="cpu")


def compare(shape: str, rounds: int) -> dict:
    """One shape: seconds a round of each side, and how far their sums are apart."""
    config, params = random_model(shape)
    model = Transformer(config, ComputeConfig(dtype="float32"))
    requests = requests_of(COUNTS[shape], config.vocab_size)
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
    """The eight common-sense tasks, each side as the command that a user types: seconds a round, and the accuracies."""
    from tests.peers.test_lm_eval import write_tasks

    with tempfile.TemporaryDirectory() as folder:
        model, tasks = Path(folder) / "model", Path(folder) / "tasks"
        save_model(model, shape, asked.tokenizer)
        for name, more in (("plain", ""), ("mutual", MUTUAL_INFORMATION)):
            (tasks / name).mkdir(parents=True)
            write_tasks(tasks / name, Path(asked.slices), more)
        ours = [ROOT / "eval.py", "--checkpoint", model, "--tasks", "common_sense", "--protocol", "lm_eval", "--data_dir",
                asked.slices, "--limit", asked.limit, "--output"]
        theirs = ["-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32,add_bos_token=True",
                  "--device", "cpu", "--num_fewshot", 0, "--tasks", ",".join(f"ours_{name}" for name in COMMON_SENSE),
                  *(["--limit", asked.limit] if asked.limit else []), "--include_path"]
        for name in ("plain", "mutual"):  # it prepares its data once; the runs that count find them prepared
            run([*theirs, tasks / name, "--limit", 1, "--output_path"], Path(folder) / f"{name}_data")
        harness_at = {size: [*theirs, tasks / "plain", "--batch_size", size, "--output_path"] for size in BATCH_SIZES}
        first = {size: run(command, Path(folder) / f"size_{size}") for size, command in harness_at.items()}
        size = min(first, key=lambda size: first[size][0])
        sides = {"ours": ours, "plain": harness_at[size],
                 "mutual": [*theirs, tasks / "mutual", "--batch_size", size, "--output_path"]}
        runs = [{name: run(command, Path(folder) / f"{name}_{turn}") for name, command in sides.items()}
                for turn in range(rounds)]
    accuracies = {name: result for name, (_, result) in runs[-1].items() if name != "mutual"}
    return {"shape": shape, "batch_size": size, "seconds": [{name: some[name][0] for name in some} for some in runs],
            "accuracies": accuracies} | amount(asked)


def save_model(folder: Path, shape: str, tokenizer: str) -> None:
    """A Hugging Face folder that both sides read."""
    config, params = random_model(shape)
    hf_model(config, params).save_pretrained(folder)
    load_tokenizer(tokenizer).save(folder)
    named = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>",
             "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))


def run(command: list, output: Path) -> tuple[float, dict[str, float]]:
    """Seconds of a whole command from the shell's point of view, and the accuracies it wrote."""
    words = [sys.executable, *map(str, command), str(output)]
    seconds, done = timed(lambda: subprocess.run(words, capture_output=True, text=True, check=False))
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    if (output / "results.json").exists():
        tasks = json.loads((output / "results.json").read_text())["tasks"]
        return seconds, {name: tasks[name]["numbers"]["acc_raw"]["value"] for name in COMMON_SENSE}
    results = json.loads(next(output.rglob("results_*.json")).read_text())["results"]
    return seconds, {name: results[f"ours_{name}"]["acc,none"] for name in COMMON_SENSE}


def amount(asked: argparse.Namespace) -> dict[str, int]:
    """Items, and tokens of their different choices with the contexts."""
    tokenizer = load_tokenizer(asked.tokenizer)
    jobs = prepare_tasks(COMMON_SENSE, asked.slices, settings=Settings(protocol="lm_eval"), limit=asked.limit)
    choices = {request for job in jobs for item in job.items for request in item.requests[: len(item.requests) // 2]}
    return {"items": sum(len(job.items) for job in jobs),
            "tokens": sum(len(tokenizer.encode(choice.context + choice.continuation)) for choice in choices)}


def show_whole(row: dict, rounds: int) -> None:
    """Seconds and tokens/s of both sides, their accuracies, then the ratios."""
    print(f"{row['shape']} float32, eight common-sense tasks, {row['items']} items, {row['tokens']:,} tokens, whole commands")
    for name, title in (("ours", "eval.py"), ("plain", f"lm_eval --model hf, batch {row['batch_size']}"),
                        ("mutual", "the same, with mutual information")):
        seconds = statistics.median(some[name] for some in row["seconds"])
        print(f"  {title:34s} {seconds:9.1f} s {row['tokens'] / seconds:10,.0f} tokens/s")
    for name, pair in {task: [side[task] for side in row["accuracies"].values()] for task in COMMON_SENSE}.items():
        print(f"  {name:34s} {pair[0]:9.4f}   {pair[1]:9.4f}{'' if pair[0] == pair[1] else '   differ'}")
    for name, title in (("plain", "lm_eval"), ("mutual", "lm_eval-mutual-info")):
        ratio = statistics.median(some[name] / some["ours"] for some in row["seconds"])
        print(f"ratio slices-{row['shape']}-{title}: {ratio:.2f} (theirs / ours in seconds, median of {rounds})")


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
