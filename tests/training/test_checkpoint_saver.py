"""Saves that the storage refuses: training goes on, nothing that exists is harmed, and the log says what would be lost."""

import errno
import os
import random
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from llama_jax.config import CheckpointConfig, Config
from llama_jax.errors import DataError, StorageError
from llama_jax.formats.checkpoints import Checkpoints, abstract_arrays
from llama_jax.training import checkpoint_saver as module
from llama_jax.training.checkpoint_saver import CheckpointSaver

from ..files.faulty import Fault, failing
from ..files.test_appended import files_of_at_most

# after an error orbax closes its event loop under tensorstore's last callbacks
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.:pytest.PytestUnraisableExceptionWarning")

CONFIG = Config(name="x", checkpoint=CheckpointConfig(keep=2, retry_seconds=0.3))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)


def state_of(step: int) -> dict:
    return {"w": jax.random.normal(jax.random.key(step), (64, 1024)), "step": jnp.int32(step)}


class Training:
    """A loop without a model: its state tells the step."""

    def __init__(self, folder: Path, config: Config = CONFIG):
        self.log: list[str] = []
        self.checkpoints = Checkpoints(folder, config.checkpoint)
        self.saver = CheckpointSaver(self.checkpoints, config, report=self.log.append)

    def save(self, *steps: int) -> None:
        for step in steps:
            self.saver.save(step, state_of(step), progress={"step": step})

    def settle(self) -> bool:
        """Wait for the save under way; whether one is due again at once."""
        assert self.saver._look(wait=20)
        return self.saver.is_due(ask_others=True)

    def close(self) -> None:
        self.checkpoints.close()


@pytest.fixture
def training(tmp_path):
    training = Training(tmp_path / "checkpoints")
    yield training
    training.close()


def check_steps(folder: Path, *wanted: int) -> None:
    """These steps and no others are there, and each is what was saved."""
    assert sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) == sorted(wanted)
    reader = Checkpoints(folder)
    for step in wanted:
        state = state_of(step)
        back = reader.restore(step, abstract_arrays(state, jax.tree.map(lambda x: SingleDeviceSharding(jax.devices()[0]), state)))
        np.testing.assert_array_equal(np.asarray(back["w"]), np.asarray(state["w"]))
        assert int(back["step"]) == step and reader.progress(step) == {"step": step}
    reader.close()


def test_a_save_that_fails_is_tried_again_at_a_later_step(tmp_path, training, capfd):
    training.save(1, 2)
    training.settle()
    with files_of_at_most(50_000):  # tensorstore's writes fail, in the background
        training.save(3)
        training.settle()
        assert training.log == ["step 3: its checkpoint could not be saved (File too large); the newest checkpoint is step 2, "
                                "and 1 steps would be lost; trying again in 0 s"]
        check_steps(tmp_path / "checkpoints", 1, 2)
    time.sleep(0.06)
    assert training.saver.is_due(ask_others=True)
    training.save(4)
    assert not training.settle() and training.log[1:] == ["step 4 is saved; nothing is at risk any more"]
    training.save(5)
    assert not training.settle() and len(training.log) == 2
    check_steps(tmp_path / "checkpoints", 4, 5)
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir() if not entry.name.isdigit()] == []
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path, training):
    """orbax by itself waits for five minutes."""
    training.save(1)
    training.settle()
    begin = time.monotonic()
    with failing(Fault(tmp_path, "mkdir", number=errno.EROFS)):
        training.save(2)
    assert time.monotonic() - begin < 2 and "(Read-only file system); the newest checkpoint is step 1" in training.log[0]
    check_steps(tmp_path / "checkpoints", 1)


def test_room_is_checked_before_anything_is_written(tmp_path, training, monkeypatch):
    training.save(1)
    training.settle()
    usage = type("usage", (), {"free": 200_000})  # of 262,148 bytes of arrays
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    before = sorted((tmp_path / "checkpoints").rglob("*"))
    training.save(2)
    assert "(262,148 bytes are needed and 200,000 are free); the newest checkpoint is step 1" in training.log[0]
    assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_the_last_checkpoint_is_waited_for(tmp_path, training):
    fault = Fault(tmp_path, "mkdir", number=errno.EDQUOT, count=2)
    with failing(fault):
        training.saver.save_for_good(7, state_of(7), progress={"step": 7})
    assert fault.raised == 2 and training.log[-1] == "step 7 is saved; nothing is at risk any more"
    assert "there is no checkpoint yet, and all 7 steps would be lost; trying again in 0 s" in training.log[0]
    check_steps(tmp_path / "checkpoints", 7)


def test_what_cannot_be_saved_ends_in_one_sentence(tmp_path, training):
    training.save(1)
    with failing(Fault(tmp_path, "mkdir", number=errno.ENOSPC)), pytest.raises(StorageError) as caught:
        training.saver.save_for_good(3, state_of(3), progress={"step": 3})
    assert str(caught.value) == ("the checkpoint of step 3 could not be saved (No space left on device); the newest checkpoint "
                                 "is step 1, and 2 steps would be lost. Make room, or repair the storage; the same command goes "
                                 "on from the newest checkpoint.")
    assert len(training.log) > 2 and training.log[-1].endswith("giving up")
    check_steps(tmp_path / "checkpoints", 1)


def test_slow_storage_does_not_hold_training_up(tmp_path, training, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    slow = [True]
    monkeypatch.setattr(training.checkpoints, "is_saving", lambda: slow[0])
    training.save(1, 2)
    assert training.log == ["step 2: not saved, because the checkpoint of step 1 is still being written; there is no checkpoint "
                            "yet, and all 2 steps would be lost"]
    slow[0] = False
    training.save(3)
    training.settle()
    check_steps(tmp_path / "checkpoints", 1, 3)


def test_an_older_checkpoint_that_cannot_be_removed_is_no_failure(tmp_path, training):
    training.save(1, 2)
    training.settle()
    with failing(Fault(tmp_path / "checkpoints/1", "rmdir", number=errno.EIO)):
        training.save(3)
        training.settle()
    assert training.log == ["step 3 is saved, but an older checkpoint could not be removed (Input/output error)"]
    training.save(4)
    assert not training.settle()
    assert {"3", "4"} <= {entry.name for entry in (tmp_path / "checkpoints").iterdir()}


def inject(folder: Path, *, seed: int) -> str:
    """One fault of a random kind, time and length in a short run of saves; returns how that went."""
    draw = random.Random(seed)
    training = Training(folder)
    training.save(1, 2)
    training.settle()
    number = draw.choice([errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
    kind = draw.choice(["open", "mkdir", "rename", "remove", "rmdir", "list", "size", "size"])
    if kind == "size":
        block = files_of_at_most(draw.choice([0, 10, 300, 5_000, 100_000]))
    else:
        block = failing(Fault(folder, kind, number=number, first=draw.randrange(6), count=draw.choice([1, 2, 5, 1 << 30])))
    ended = "saved"
    with block:
        try:
            training.save(3)
            training.settle()
            training.saver.save_for_good(5, state_of(5), progress={"step": 5})
        except StorageError as error:
            assert str(error).count("\n") == 0 and "could not be saved (" in str(error), error
            ended = "refused"
        try:
            training.close()
        except DataError as error:
            assert str(error).count("\n") == 0
    assert all("\n" not in line and "Error(" not in line for line in training.log), training.log
    kept = {int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()}
    newest = sorted(kept)[-2:]
    assert len(newest) == 2 and (max(kept) == 5) == (ended == "saved"), (kept, ended, training.log)
    reader = Checkpoints(folder)
    for step in newest:  # those that were there, or newer ones in their place
        state = state_of(step)
        back = reader.restore(step, abstract_arrays(state, jax.tree.map(lambda x: SingleDeviceSharding(jax.devices()[0]), state)))
        np.testing.assert_array_equal(np.asarray(back["w"]), np.asarray(state["w"]))
    reader.close()
    return f"{ended}{' after failures' if training.log else ''}"


def test_injected_faults(tmp_path, capfd):
    ends = [inject(tmp_path / str(seed), seed=seed) for seed in range(6)]
    assert {"refused after failures", "saved after failures"} <= set(ends)
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_more_injected_faults(tmp_path, capfd):
    """STORAGE_FAULTS=200 injects 200."""
    number = int(os.environ.get("STORAGE_FAULTS", "40"))
    ends = [inject(tmp_path / str(seed), seed=seed) for seed in range(1_000, 1_000 + number)]
    assert ends.count("refused after failures") > number // 10 and ends.count("saved after failures") > number // 5
    assert "Traceback" not in "".join(capfd.readouterr())
