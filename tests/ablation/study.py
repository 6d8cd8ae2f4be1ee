"""A study of seconds, for tests: two sources of short documents, and arms of a few thousand parameters."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from llama_jax.config import (
    Arm,
    CheckpointConfig,
    ComputeConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    Study,
    TrainingConfig,
    to_dict,
)


def write_sources(folder: Path) -> tuple[str, ...]:
    """Two files of documents, each longer than some rows and shorter than others."""
    rng = np.random.default_rng(0)
    for name, words in (("colours", ["red", "green", "blue", "grey"]), ("numbers", ["one", "two", "three", "ten"])):
        documents = [" ".join(rng.choice(words, rng.integers(3, 60))) + "." for _ in range(150)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return f"{folder}/colours.jsonl=0.7", f"{folder}/numbers.jsonl=0.3"


def small_config(sources: tuple[str, ...], **training) -> Config:
    """A run of 20 steps; the keywords are fields of `training`."""
    return Config(
        model=ModelConfig(vocab_size=288, dim=16, num_heads=4, num_kv_heads=4, num_layers=1, ffn_dim=24, max_length=32),
        compute=ComputeConfig(dtype="float32", scan_layers=False),
        optimizer=OptimizerConfig(peak_lr=1e-2, warmup_steps=2),
        data=DataConfig(sources=sources, heldout_fraction=0.2, sequence_length=32),
        training=TrainingConfig(**{"num_steps": 20, "batch_size": 8, "log_every": 1, "heldout_every": 10, "heldout_batches": 3,
                                   "sample_tokens": 0, **training}),
        checkpoint=CheckpointConfig(every=5, keep=1),
    )


def small_study(folder: Path, **fields) -> Study:
    """Four arms: the baseline, learned positions, two kv heads that start from the baseline's, and one that diverges."""
    base = small_config(write_sources(folder))
    arms = (
        Arm("rope", base),
        Arm("learned", replace(base, model=replace(base.model, position="learned"))),
        Arm("gqa", replace(base, model=replace(base.model, num_kv_heads=2),
                           training=replace(base.training, num_steps=4)), starts_from="rope"),
        Arm("wild", replace(base, optimizer=replace(base.optimizer, peak_lr=1e30, clip_norm=1e30))),
    )
    study = {"name": "small", "paper": "none", "question": "does it run?", "expected": "it does", "hours": "seconds",
             "arms": arms, "baseline": "rope", "lengths": (64,)}
    return Study(**study | fields)


def write_study_file(study: Study, file: Path) -> Path:
    """The study as a file that --config takes."""
    file.write_text(json.dumps(to_dict(study)))
    return file
