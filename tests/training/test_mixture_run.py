"""Runs with stages and limits of epochs: what they print and record, that they end well, and that stops change nothing."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from llama_jax.config import Config
from llama_jax.config.file import load_config
from llama_jax.config.mixture import MixtureStage
from llama_jax.data.manifest import MANIFEST_FILE, read_manifest
from llama_jax.data.mixture import Mixture
from llama_jax.data.windows import TokenSource
from llama_jax.errors import ConfigError
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.training.loop import fit
from llama_jax.training.metrics import TrainingMeter
from tests.training.test_resume import write_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path, tokenizer) -> Config:
    """12 steps of 8 rows of 32 tokens from two sources of 75 and 15 windows; the second has no share at first."""
    for name, first, count in (("books", 3, 2000), ("wiki", 4, 400)):
        write_folder(tmp_path / name, first, count, tokenizer)
    c = load_config(ROOT / "configs/tiny.py")
    return replace(
        c,
        model=replace(c.model, num_layers=1, dim=16, num_heads=2, num_kv_heads=2, ffn_dim=16, vocab_size=512),
        optimizer=replace(c.optimizer, warmup_steps=1),
        data=replace(c.data, sources=(f"{tmp_path}/books=1", f"{tmp_path}/wiki=0"), stages=("1000: books=0.25 wiki=0.75",),
                     sequence_length=32, heldout_fraction=0.0, max_epochs=2.0),
        training=replace(c.training, num_steps=12, batch_size=8, log_every=1, heldout_every=0, sample_tokens=0),
        checkpoint=replace(c.checkpoint, every=100, keep=9),
    )


def ledgers(run: Path) -> dict[int, dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: (line["tokens"], line["sources"]) for line in lines if "sources" in line}


def test_a_run_that_would_pass_a_limit_stops(config, tmp_path, capsys):
    """The stage begins at row 32, and six of eight rows are of wiki then: five steps read it twice, and no sixth is begun."""
    run = tmp_path / "run"
    assert int(fit(config, run).step) == 9 and Checkpoints(run / "checkpoints").latest() == 9
    said = capsys.readouterr().out
    assert "this run ends after step 9, because wiki would pass data.max_epochs 2" in said
    assert "step 5: another stage of the mixture begins: books 25.0%, wiki 75.0% (data.stages)" in said
    assert ("stopped after step 9 of 12, which is saved: wiki would pass data.max_epochs 2; raise data.max_epochs or change the "
            "mixture to go on from here") in said
    table = said[said.index("source  planned"):].splitlines()
    assert re.fullmatch(r"source +planned +realised +tokens +epochs +documents +repeated tokens", table[0])
    assert re.fullmatch(r"books +58.33% +58.33% +1,344 +0.56 +\d+ +0", table[1])
    assert re.fullmatch(r"wiki +41.67% +41.67% +960 +2.00 +80 +479", table[2])
    tokens, written = ledgers(run)[9]
    assert tokens == 9 * 8 * 32 and written["wiki"] == {
        "tokens": 960, "epochs": 2.0, "planned": 0.416667, "realised": 0.416667, "documents": 80, "repeated": 479}


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_where_the_limit_is_raised(config, tmp_path, capsys):
    run = tmp_path / "run"
    for _ in range(2):
        assert int(fit(config, run).step) == 9, "the same command finds nothing left to do"
        assert "stopped after step 9 of 12" in capsys.readouterr().out
    raised = replace(config, data=replace(config.data, max_epochs=0.0))
    assert int(fit(raised, run).step) == 12
    assert "stopped after" not in capsys.readouterr().out
    fit(raised, tmp_path / "whole")
    assert ledgers(run) == ledgers(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("action, said", [
    ("warn", "step 10: wiki passes data.max_epochs 2"),
    ("reweigh", "step 10: wiki has reached data.max_epochs 2 and is left out; the mixture is now books 100.0%"),
])
def test_a_stop_changes_neither_what_is_read_nor_the_ledger(config, tmp_path, capsys, action, said):
    config = replace(config, data=replace(config.data, on_max_epochs=action))
    fit(config, tmp_path / "whole")
    assert said in capsys.readouterr().out
    for steps in (3, 5, 10, 12):  # before, in and after the stage, and after the limit
        fit(replace(config, training=replace(config.training, num_steps=steps)), tmp_path / "parts")
    assert ledgers(tmp_path / "parts") == ledgers(tmp_path / "whole")
    _, sources = ledgers(tmp_path / "whole")[12]
    assert (sources["wiki"]["epochs"] <= 2) == (action == "reweigh")
    positions = [Checkpoints(tmp_path / run / "checkpoints").progress(12)["position"] for run in ("parts", "whole")]
    assert positions[0] == positions[1]


def test_no_step_within_the_limit_is_an_error(config, tmp_path):
    config = replace(config, data=replace(config.data, max_epochs=0.01))
    with pytest.raises(ConfigError, match=r"books would pass data.max_epochs 0.01 within the first 8 rows; raise"):
        fit(config, tmp_path / "run")


def test_bits_per_byte_are_those_of_the_rows(config, tmp_path, monkeypatch):
    """The second line spans the begin of a stage, and wiki has more bytes per token: every row is counted again."""
    steps, add = [], TrainingMeter.add_step
    monkeypatch.setattr(TrainingMeter, "add_step", lambda self, metrics: (steps.append(metrics), add(self, metrics)))
    config = replace(config, data=replace(config.data, max_epochs=0.0),
                     training=replace(config.training, num_steps=6, log_every=3))
    manifest = read_manifest(tmp_path / "wiki")
    larger = tuple(replace(shard, bytes=2 * shard.bytes) for shard in manifest.shards)
    (tmp_path / "wiki" / MANIFEST_FILE).write_text(replace(manifest, shards=larger).to_json())
    fit(config, tmp_path / "run")
    sources = [TokenSource(tmp_path / name, 32) for name in ("books", "wiki")]
    assert sources[0].predicted_per_byte == 2 * sources[1].predicted_per_byte
    mixture = Mixture(sources, [1, 0], seed=config.training.seed, stages=[MixtureStage(1000, (0.25, 0.75))])
    nats = [step["loss"] * step["tokens"] for step in steps]
    sizes = [sum(step["tokens"] / 8 / sources[mixture[8 * number + row].source].predicted_per_byte for row in range(8))
             for number, step in enumerate(steps)]
    written = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    lines = {line["step"]: line["bits_per_byte"] for line in written if "loss" in line}
    assert lines == {last: pytest.approx(sum(nats[last - 3:last]) / sum(sizes[last - 3:last]) / math.log(2)) for last in (3, 6)}
