"""A run directory is new, empty or a run's own; what is refused is left as it was."""

import json
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import pytest

from llama_jax.config import CheckpointConfig, Config, ModelConfig, OptimizerConfig, TrainingConfig, to_dict
from llama_jax.config.file import load_config
from llama_jax.errors import ConfigError, DataError, LlamaError
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.training.loop import fit
from llama_jax.training.run_dir import RUN_CONFIG, open_run_dir, write_run_config

RUN = Config(name="run", optimizer=OptimizerConfig(warmup_steps=1), training=TrainingConfig(num_steps=100))


def begin(folder: Path, config: Config = RUN, step: int = 0) -> None:
    """A run that has saved `step`."""
    checkpoints, *_ = open_run_dir(config, folder)
    if step:
        checkpoints.save(step, {"w": jnp.ones(3)}, config=config)
    checkpoints.close()


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("prepare", [lambda folder: None, lambda folder: folder.mkdir(parents=True)])
def test_a_new_or_an_empty_folder_becomes_a_run(tmp_path, prepare):
    prepare(tmp_path / "a/b")
    checkpoints, start, notes, _ = open_run_dir(RUN, tmp_path / "a/b")
    checkpoints.close()
    assert (start, notes) == (0, [])
    assert json.loads((tmp_path / "a/b" / RUN_CONFIG).read_text()) == to_dict(RUN)


def test_a_run_that_was_stopped_before_its_first_checkpoint_goes_on(tmp_path):
    begin(tmp_path)
    (tmp_path / "config.json.tmp").write_text("{")
    assert open_run_dir(RUN, tmp_path)[1] == 0


def test_resumes_at_the_newest_step_and_says_what_changed(tmp_path):
    begin(tmp_path, step=40)
    wanted = replace(RUN, optimizer=replace(RUN.optimizer, peak_lr=0.5), checkpoint=CheckpointConfig(every=7))
    checkpoints, start, notes, _ = open_run_dir(wanted, tmp_path)
    checkpoints.close()
    assert start == 40
    assert notes == [f"resuming {tmp_path} at step 40",
                     "changed since the checkpoint: optimizer.peak_lr: 0.0003 -> 0.5",
                     "changed since the checkpoint: checkpoint.every: 1000 -> 7"]


def test_config_json_changes_only_when_it_is_recorded(tmp_path):
    """A mistaken command must not leave its config behind."""
    begin(tmp_path)
    wanted = replace(RUN, name="other")
    open_run_dir(wanted, tmp_path)[0].close()
    assert json.loads((tmp_path / RUN_CONFIG).read_text())["name"] == "run"
    write_run_config(wanted, tmp_path)
    assert json.loads((tmp_path / RUN_CONFIG).read_text()) == to_dict(wanted)


@pytest.mark.parametrize("name, content, reason", [
    ("thesis.tex", "x", "config.json: No such file or directory"),
    (RUN_CONFIG, '{"widgets": 3}', "config.json: unknown key widgets"),
    (RUN_CONFIG, "{", "config.json: Expecting property name"),
    (RUN_CONFIG, "[]", "config.json: the config should be an object"),
    (RUN_CONFIG, b"\xff\xfe", "config.json: 'utf-8' codec can't decode"),
    ("config.json/file", "x", "config.json: Is a directory"),
])
def test_a_foreign_folder_is_refused_and_left_alone(tmp_path, name, content, reason):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=rf"not empty and not a run directory \({reason}.*\); name") as caught:
        open_run_dir(RUN, tmp_path)
    assert "\n" not in str(caught.value) and files(tmp_path) == before


def test_a_place_that_cannot_be_written(tmp_path):
    """A file in a folder's place: what root is refused too."""
    (tmp_path / "file").write_text("x")
    for place, reason in [("file", "File exists"), ("file/run", "Not a directory"), ("x" * 300, "File name too long")]:
        with pytest.raises(ConfigError, match=rf"cannot write the run directory .*: {reason}; name another"):
            open_run_dir(RUN, tmp_path / place)
    assert files(tmp_path) == {"file": b"x"}


def test_another_model_is_refused_and_nothing_is_lost(tmp_path):
    begin(tmp_path, step=40)
    before = files(tmp_path)
    for wanted, sentence in [
        (replace(RUN, model=ModelConfig(num_layers=2)), r"holds another model \(model.num_layers 32 -> 2\)"),
        (replace(RUN, training=TrainingConfig(num_steps=30)), "trained 40 steps, more than training.num_steps 30"),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            open_run_dir(wanted, tmp_path)
    assert files(tmp_path) == before


def test_a_damaged_checkpoint_is_named_and_nothing_is_lost(tmp_path):
    begin(tmp_path, step=40)
    for file in (tmp_path / "checkpoints/40/config").rglob("*"):
        file.write_bytes(b"")
    before = files(tmp_path)
    with pytest.raises(DataError, match=r"checkpoints/40 cannot be read \(.*\); remove it to go on"):
        open_run_dir(RUN, tmp_path)
    assert files(tmp_path) == before


def opened_managers(monkeypatch) -> list:
    """The checkpoint managers that are opened from now on and not closed."""
    still_open = []
    make, close = Checkpoints.__init__, Checkpoints.close

    def opening(self, *arguments, **options):
        make(self, *arguments, **options)
        still_open.append(self)

    def closing(self):
        close(self)
        still_open.remove(self)

    monkeypatch.setattr(Checkpoints, "__init__", opening)
    monkeypatch.setattr(Checkpoints, "close", closing)
    return still_open


def test_a_refusal_leaves_no_checkpoints_open(tmp_path, monkeypatch):
    begin(tmp_path, step=40)
    still_open = opened_managers(monkeypatch)
    for wanted in (replace(RUN, model=ModelConfig(num_layers=2)), replace(RUN, training=TrainingConfig(num_steps=30))):
        with pytest.raises(ConfigError):
            open_run_dir(wanted, tmp_path)
    assert still_open == []


def test_a_corpus_that_cannot_be_read_leaves_no_checkpoints_open(tmp_path, monkeypatch):
    still_open = opened_managers(monkeypatch)
    config = load_config(Path(__file__).parents[2] / "configs/tiny.py")
    with pytest.raises(LlamaError, match=r"nowhere\.txt"):
        fit(replace(config, data=replace(config.data, sources=("nowhere.txt",))), tmp_path / "run")
    assert still_open == [] and not (tmp_path / "run/metrics.jsonl").exists()
