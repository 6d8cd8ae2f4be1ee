"""A run passes over a newest checkpoint that is damaged, says so, keeps it, and goes on from the one before."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.config import CheckpointConfig, Config, OptimizerConfig, TrainingConfig
from llama_jax.config.file import load_config
from llama_jax.errors import DamagedError, DataError
from llama_jax.formats.checkpoints import Checkpoints, abstract_arrays
from llama_jax.training.loop import fit
from llama_jax.training.run_dir import open_run_dir
from llama_jax.training.step import TrainState

RUN = Config(name="run", optimizer=OptimizerConfig(warmup_steps=1), training=TrainingConfig(num_steps=100),
             checkpoint=CheckpointConfig(keep=5))


def state_of(step: int) -> TrainState:
    return TrainState(step=jnp.int32(step), params={"w": jnp.full((8, 8), step, jnp.float32)}, opt_state=(jnp.ones(3),))


def target() -> TrainState:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return abstract_arrays(state_of(0), jax.tree.map(lambda x: place, state_of(0)))


@pytest.fixture
def run(tmp_path) -> Path:
    """A run with the steps 10, 20 and 30."""
    checkpoints, *_ = open_run_dir(RUN, tmp_path / "run")
    for step in (10, 20, 30):
        checkpoints.save(step, state_of(step), config=RUN, progress={"nats": step})
    checkpoints.close()
    return tmp_path / "run"


def resume(run: Path) -> tuple[int, list[str], TrainState]:
    checkpoints, step, notes, state = open_run_dir(RUN, run, abstract_state=target())
    checkpoints.save(step + 5, state_of(step + 5), config=RUN, progress={})
    checkpoints.close()
    return step, notes, state


def spoil_values(run: Path, step: int) -> None:
    """Other values in the arrays' place, which orbax reads without an error."""
    other = Checkpoints(run.parent / f"other{step}", CheckpointConfig())
    other.save(step, state_of(99), config=RUN, progress={"nats": step})
    other.close()
    shutil.rmtree(run / f"checkpoints/{step}/state")
    shutil.copytree(run.parent / f"other{step}/{step}/state", run / f"checkpoints/{step}/state")


def spoil_item(run: Path, step: int) -> None:
    """One digit of what the loop counts is another."""
    file = run / f"checkpoints/{step}/progress/metadata"
    file.write_text(file.read_text().replace(str(step), str(step + 1)))


def lose_state(run: Path, step: int) -> None:
    shutil.rmtree(run / f"checkpoints/{step}/state")


def names(run: Path) -> list[str]:
    return sorted(entry.name for entry in (run / "checkpoints").iterdir())


@pytest.mark.parametrize("spoil", [spoil_values, spoil_item, lose_state])
def test_the_newest_is_set_aside_and_the_one_before_is_used(run, spoil):
    spoil(run, 30)
    step, notes, state = resume(run)
    assert step == 20 and int(state.step) == 20
    np.testing.assert_array_equal(state.params["w"], state_of(20).params["w"])
    assert notes[0].startswith(f"checkpoint {run}/checkpoints/30 cannot be read (")
    assert notes[0].endswith(f"It is set aside as {run}/checkpoints/30.damaged, and its steps are trained again.")
    assert notes[1] == f"resuming {run} at step 20" and len(notes) == 2
    assert names(run) == ["10", "20", "25", "30.damaged"]
    assert resume(run)[0] == 25


def test_two_damaged_ones_and_a_second_time(run):
    (run / "checkpoints/30.damaged").mkdir()
    spoil_values(run, 30)
    spoil_item(run, 20)
    step, notes, _ = resume(run)
    assert step == 10 and len(notes) == 3
    assert names(run) == ["10", "15", "20.damaged", "30.damaged", "30.damaged-2"]


def test_where_all_are_damaged_nothing_is_renamed(run):
    for step in (10, 20, 30):
        spoil_item(run, step)
    with pytest.raises(DataError, match=r"checkpoints/30 cannot be read .* The 2 earlier one\(s\) are damaged too"):
        resume(run)
    assert names(run) == ["10", "20", "30"]


def test_a_renamed_checkpoint_is_refused(run):
    (run / "checkpoints/30").rename(run / "checkpoints/40")
    with pytest.raises(DataError, match="checkpoints/40 holds step 30, not 40") as caught:
        resume(run)
    assert not isinstance(caught.value, DamagedError) and names(run) == ["10", "20", "40"]


def test_what_cannot_be_read_now_is_not_passed_over(run, monkeypatch):
    def fail(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
    with pytest.raises(DataError, match="checkpoints/30 cannot be read now"):
        resume(run)
    assert names(run) == ["10", "20", "30"]


@pytest.mark.slow
def test_a_run_ends_as_if_nothing_had_happened(tmp_path, tokenizer):
    """The newest checkpoint is damaged between two sessions: parameters, moments and metrics are the undisturbed run's."""
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    config = load_config(Path(__file__).parents[2] / "configs/tiny.py")
    config = replace(
        config,
        model=replace(config.model, num_layers=1, dim=16, num_heads=2, num_kv_heads=2, ffn_dim=16, vocab_size=512),
        data=replace(config.data, sequence_length=32, tokenizer=str(tmp_path / "tokenizer")),
        optimizer=OptimizerConfig(warmup_steps=1),
        training=replace(config.training, num_steps=6, batch_size=8, log_every=1, heldout_every=0, sample_tokens=0,
                         heldout_batches=1),
        checkpoint=CheckpointConfig(every=2, keep=3),
    )
    wanted = fit(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/6")
    shutil.copytree(tmp_path / "run/checkpoints/2/state", tmp_path / "2")
    shutil.rmtree(tmp_path / "run/checkpoints/4/state")
    (tmp_path / "2").rename(tmp_path / "run/checkpoints/4/state")
    chex.assert_trees_all_equal(jax.device_get(fit(config, tmp_path / "run")), jax.device_get(wanted))
    lines = {run: [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
             for run in ("run", "whole")}
    assert [(line["step"], line.get("loss")) for line in lines["run"]] == [(line["step"], line.get("loss"))
                                                                           for line in lines["whole"]]
    assert (tmp_path / "run/checkpoints/4.damaged").is_dir() and (tmp_path / "run/checkpoints/4/state").is_dir()
