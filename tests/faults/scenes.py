"""Real commands on small data, each with what it should leave behind: `train.py`, `prepare`, `convert` and `eval.py`."""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

TIMES = {"tokens_per_second", "mfu", "seconds", "seconds_left", "date"}
"""Fields of files that tell how long something took, which no two runs have in common."""


class Scene(NamedTuple):
    """One command."""

    prepare: Callable[[Path], None]
    """Writes the inputs into an empty folder, which every run then only reads."""
    command: Callable[[Path, Path], list[str]]
    """(inputs, place of this run) -> the command line."""
    result: Callable[[Path], dict[str, str]]
    """Hashes by name of what a finished run left in its place; equal for two runs that did the same."""
    writes: str
    """Glob pattern, below the place of the run, of what exists only while something is being written: kills aim at it too."""


def _documents(file: Path, *, seed: int, count: int) -> None:
    rng = Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(1, 7))) for _ in range(200)]
    with file.open("w") as stream:
        for number in range(count):
            text = " ".join(rng.choices(words, k=rng.randint(5, 60)))
            stream.write(json.dumps({"text": f"{number} {text}."}) + "\n")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def without_times(value):
    """A JSON value without the fields that tell times."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def hashes_of_files(folder: Path, *names: str) -> dict[str, str]:
    """Hash of every file below a folder that matches one of the patterns; JSON without times."""
    found = {}
    for file in sorted({file for name in names for file in folder.glob(name) if file.is_file()}):
        data = file.read_bytes()
        if file.suffix in (".json", ".jsonl"):
            lines = data.decode().splitlines() if file.suffix == ".jsonl" else [data.decode()]
            data = json.dumps([without_times(json.loads(line)) for line in lines], sort_keys=True).encode()
        found[str(file.relative_to(folder))] = sha256(data)
    return found


def hashes_of_checkpoint(folder: Path) -> dict[str, str]:
    """Hash of every array of the newest checkpoint of a run: parameters and the optimizer's state."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    step = max(int(entry.name) for entry in (folder / "checkpoints").iterdir() if entry.name.isdigit())
    with warnings.catch_warnings(), ocp.PyTreeCheckpointer() as checkpointer:
        warnings.simplefilter("ignore")  # it warns that arrays are restored as they were sharded
        state = checkpointer.restore((folder / "checkpoints" / str(step) / "state").absolute())
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {"step": str(step)} | {jax.tree_util.keystr(path): sha256(np.asarray(leaf).tobytes()) for path, leaf in leaves}


def _prepare_training(folder: Path, steps: int = 150) -> None:
    for number, name in enumerate("abc"):
        _documents(folder / f"{name}.jsonl", seed=number, count=400)
    config = {
        "name": "faults",
        "model": {"vocab_size": 512, "dim": 32, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 64,
                  "max_length": 64},
        "compute": {"dtype": "float32"},
        "optimizer": {"peak_lr": 3e-3, "warmup_steps": 10},
        "data": {"sources": [f"{folder / name}.jsonl={share}" for name, share in (("a", 0.5), ("b", 0.3), ("c", 0.2))],
                 "sequence_length": 64, "heldout_fraction": 0.1},
        "training": {"num_steps": steps, "batch_size": 8, "accumulation_steps": 2, "log_every": 5, "heldout_every": 40,
                     "heldout_batches": 2, "sample_tokens": 8},
        "checkpoint": {"every": 6, "keep": 2},
        "mesh": {"data": 1},
    }
    (folder / "config.json").write_text(json.dumps(config))


def _train(inputs: Path, place: Path) -> list[str]:
    return [sys.executable, "train.py", "--config", str(inputs / "config.json"), "--workdir", str(place / "run")]


def _trained(place: Path) -> dict[str, str]:
    run = place / "run"
    return hashes_of_checkpoint(run) | hashes_of_files(run, "metrics.jsonl", "samples.txt", "config.json", "data/**/*.bin")


def _prepare_preparing(folder: Path) -> None:
    from tests.faults.targets import train_tokenizer

    _documents(folder / "a.jsonl", seed=7, count=6000)
    train_tokenizer().save(folder / "tokenizer")


def _prepare_command(inputs: Path, place: Path) -> list[str]:
    return [sys.executable, "-m", "llama_jax", "prepare", "--input", str(inputs / "a.jsonl"), "--tokenizer",
            str(inputs / "tokenizer"), "--output", str(place / "out"), "--shard_tokens", "20000", "--workers", "1"]


def _prepare_model(folder: Path) -> None:
    from llama_jax.conversion.convert import convert_weights
    from tests.faults.targets import make_evaluation_data, train_tokenizer
    from tests.formats.memory import MemorySource, config_of

    convert_weights(MemorySource(config_of(num_layers=6, max_length=256), train_tokenizer()), folder / "model", "hf")
    (folder / "data").mkdir()
    make_evaluation_data(folder / "data")


def _convert_command(inputs: Path, place: Path) -> list[str]:
    return [sys.executable, "-m", "llama_jax", "convert", "--source", str(inputs / "model"), "--target", str(place / "out"),
            "--to", "meta"]


def _eval_command(inputs: Path, place: Path) -> list[str]:
    return [sys.executable, "eval.py", "--checkpoint", str(inputs / "model"), "--tasks", "boolq,piqa,hellaswag,arc_easy,gsm8k",
            "--data_dir", str(inputs / "data"), "--max_tokens", "8", "--output", str(place / "out")]


def _evaluated(place: Path) -> dict[str, str]:
    results = json.loads((place / "out/results.json").read_text())
    for task in results["tasks"].values():
        task.pop("tokens")  # those of the last session
    return {"results.json": sha256(json.dumps(without_times(results), sort_keys=True).encode())} | hashes_of_files(
        place / "out", "items/*.jsonl")


SCENES: dict[str, Scene] = {
    "train": Scene(_prepare_training, _train, _trained, "run/checkpoints/*tmp*"),
    "prepare": Scene(_prepare_preparing, _prepare_command, lambda place: hashes_of_files(place / "out", "*"), "out/*.tmp"),
    "convert": Scene(_prepare_model, _convert_command, lambda place: hashes_of_files(place / "out", "*"), "*/*.pth"),
    "eval": Scene(_prepare_model, _eval_command, _evaluated, "out/answers.jsonl"),
}
"""The commands by name."""
