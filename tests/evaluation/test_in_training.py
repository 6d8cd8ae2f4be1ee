"""Evaluation tasks during training: their metrics stand in the run's files, and the run is the same without them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest

from llama_jax.config import Config, DataConfig, EvalConfig, to_dict
from llama_jax.config.file import load_config
from llama_jax.errors import ConfigError, DataError
from llama_jax.evaluation.in_training import evaluators
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training.compiled import build
from llama_jax.training.loop import fit

ROOT = Path(__file__).parents[2]


def short_config(**fields) -> Config:
    config = load_config(ROOT / "configs/tiny.py")
    return replace(
        config, model=replace(config.model, vocab_size=512, dim=32, num_heads=4, num_kv_heads=2, num_layers=1, ffn_dim=48,
                              max_length=256),
        compute=replace(config.compute, scan_layers=True),
        optimizer=replace(config.optimizer, warmup_steps=2), data=replace(config.data, sequence_length=32),
        training=replace(config.training, num_steps=4, batch_size=8, heldout_every=0, heldout_batches=1, sample_tokens=0),
        eval=EvalConfig(**fields))


@pytest.mark.slow
def test_numbers_in_the_runs_own_files_and_the_same_parameters(eval_data, tokenizer, play, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "play.txt").write_text(play[:20_000])
    data = DataConfig((str(tmp_path / "play.txt"),), tokenizer=str(tmp_path), sequence_length=32)
    plain = replace(short_config(), data=data)
    live = replace(short_config(tasks=("openbookqa,",), every=2, data_dir=str(eval_data), limit=2), data=data)
    fit(plain, tmp_path / "plain")
    fit(live, tmp_path / "live", evaluators=evaluators(live, tmp_path / "live"))
    lines = [json.loads(line) for line in (tmp_path / "live/metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line for line in lines if "eval/openbookqa/acc_answer" in line}
    assert set(found) == {2, 4} and all(line["eval/openbookqa/acc_answer"] in (0.0, 0.5, 1.0) for line in found.values())
    mesh = make_mesh(plain.mesh)
    states = [jax.device_get(Checkpoints(tmp_path / name / "checkpoints").restore(4, build(plain, mesh).abstract_state))
              for name in ("plain", "live")]
    chex.assert_trees_all_equal(*states)


def test_mistakes_are_told_before_anything_is_compiled(eval_data, tmp_path):
    assert evaluators(short_config(), tmp_path) == []
    with pytest.raises(ConfigError, match="unknown task 'piqqa'; did you mean piqa"):
        evaluators(short_config(tasks=("piqqa",)), tmp_path)
    with pytest.raises(DataError, match=r"boolq/dev\.jsonl is missing; get it from https://github"):
        evaluators(short_config(tasks=("boolq",), data_dir=str(tmp_path)), tmp_path)


def test_train_py_brings_them(tmp_path):
    config = short_config(tasks=("nothing",))
    (tmp_path / "run.json").write_text(json.dumps(to_dict(config)))
    done = subprocess.run([sys.executable, ROOT / "train.py", "--config", tmp_path / "run.json", "--workdir", tmp_path / "w"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "unknown task 'nothing'" in done.stderr


@pytest.mark.parametrize("attention", ["cudnn", "splash", "reference"])
def test_they_do_not_inherit_the_backend_that_trains(attention, tokenizer, tmp_path):
    """Scoring shares prefixes under a mask that fused kernels do not know; with them choices would see each other."""
    (tmp_path / "boolq").mkdir()
    record = {"question": "is it so", "title": "It", "passage": "It is so.", "answer": True}
    (tmp_path / "boolq/dev.jsonl").write_text(json.dumps(record) + "\n")
    tokenizer.save(tmp_path)
    config = short_config(tasks=("boolq",), data_dir=str(tmp_path))
    params = Transformer(config.model).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    values = []
    for backend in (attention, "auto"):
        [measure] = evaluators(replace(config, compute=replace(config.compute, attention=backend)), tmp_path)
        values.append(measure(params))
    assert values[0] == values[1] and values[0]
