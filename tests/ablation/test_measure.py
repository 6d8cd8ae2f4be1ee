"""What is measured of a run agrees with what the run and other ways of computing it say, and is the same on every attempt."""

import json
import math

import jax
import numpy as np
import pytest

from llama_jax.ablation.measure import _count_spikes, measure_run
from llama_jax.ablation.study_dir import RunKey, StudyFolder
from llama_jax.data.batches import batch_of_rows
from llama_jax.data.corpus import open_corpus
from llama_jax.data.windows import TokenRow
from llama_jax.model.decoder import Transformer
from llama_jax.training.loop import fit
from tests.ablation.study import small_study
from tests.ablation.test_study_dir import prepared

LEARNED = RunKey("learned", 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[StudyFolder, dict]:
    """A study folder in which one run, of learned positions, is trained; and its parameters."""
    path = tmp_path_factory.mktemp("measured")
    folder = prepared(path / "study", small_study(path, lengths=(16, 32, 64), decode=True))
    return folder, fit(folder.config(LEARNED), folder.run_dir(LEARNED)).params


@pytest.fixture(scope="module")
def measured(trained) -> dict:
    folder, params = trained
    return measure_run(folder, LEARNED, params=params, peak_bytes=7)


@pytest.mark.slow
def test_measurements(trained, measured):
    folder, params = trained
    lines = [json.loads(line) for line in (folder.run_dir(LEARNED) / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert (measured["arm"], measured["seed"], measured["status"], measured["reason"]) == ("learned", 1, "done", "")
    assert measured["curve"] == [[step, loss] for step, loss in enumerate(losses, 1)] and measured["steps"] == 20
    assert measured["largest_grad_norm"] == max(line["grad_norm"] for line in lines if "grad_norm" in line)
    assert (measured["peak_bytes"], measured["stream_rows"]) == (7, 20 * 8)
    assert measured["cache_bytes_per_token"] == 2 * 4 * 4 * 4  # keys and values, heads, width, float32
    last = [line for line in lines if "heldout_loss/colours-heldout" in line][-1]
    sums = np.array(measured["heldout"])
    assert sums.shape == (2 * 3, 2)
    per_byte = []
    for name, part in (("colours", sums[:3]), ("numbers", sums[3:])):
        loss = last[f"heldout_loss/{name}-heldout"]
        assert part[:, 0].sum() / part[:, 1].sum() == pytest.approx(loss, rel=1e-6)
        per_byte.append(loss / math.log(2) / last[f"heldout_bits_per_byte/{name}-heldout"])
    assert min(per_byte) < measured["bytes_per_token"] < max(per_byte)
    assert [step for step, _ in measured["heldout_curve"]] == [10, 20]
    timing = measured["timing"]
    assert timing["tokens_per_second"] > 0 and timing["decode_tokens_per_second"] > 0 and timing["seconds"] > 0
    again = measure_run(folder, LEARNED, params=params, peak_bytes=7)
    assert json.dumps(again | {"timing": {}}) == json.dumps(measured | {"timing": {}})


@pytest.mark.slow
def test_loss_by_position(trained, measured):
    folder, params = trained
    assert measured["by_position"]["64"] is None
    assert measured["by_position_missing"] == {"64": "this model has parameters for 32 positions, and none beyond"}
    of_length = np.array(measured["by_position"]["32"])
    assert of_length[:, 0].tolist() == [0, 8, 16, 24]
    assert of_length[:, 1:].sum(0) == pytest.approx(np.sum(measured["heldout"], axis=0), rel=1e-5)
    # rows of 16: by position, from the log-probabilities of all windows
    config = folder.config(LEARNED)
    model = Transformer(config.model, config.compute)
    expected = np.zeros((2, 2))
    for source in open_corpus(config.data, 288, workdir=folder.run_dir(LEARNED)).heldout:
        rows = [source.row([source.span(window)]) for window in range(3 * 8)]  # the tokens of the held-out batches
        batch = batch_of_rows([TokenRow(*(field[half : half + 16] for field in row)) for row in rows for half in (0, 16)])
        segments = batch.segment_ids - batch.segment_ids[:, :1]
        begins = np.concatenate([np.ones((48, 1), bool), segments[:, 1:] > segments[:, :-1]], 1)
        positions = np.arange(16) - np.maximum.accumulate(np.where(begins, np.arange(16), 0), axis=1)
        logits = model.apply({"params": params}, batch.tokens, positions, segments)
        nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), batch.targets[..., None], -1)[..., 0]
        for bucket in (0, 1):
            here = (batch.weights > 0) & (positions // 8 == bucket)
            expected[bucket] += nll[here].sum(), here.sum()
    assert np.array(measured["by_position"]["16"])[:, 1:] == pytest.approx(expected, rel=1e-4)


def test_spikes():
    assert _count_spikes([]) == _count_spikes([5.0]) == _count_spikes([5.0, 4.0, 3.9, 4.7]) == 0
    assert _count_spikes([5.0, 4.0, 4.1, 4.0, 6.0, 4.0]) == 1
    assert _count_spikes([4.0] * 30 + [4.81, 4.79]) == 1


def test_a_run_that_diverged_has_no_heldout_loss(tmp_path):
    folder, key = prepared(tmp_path / "study", small_study(tmp_path)), RunKey("wild", 0)
    folder.run_dir(key).mkdir(parents=True)
    line = {"step": 1, "loss": 5.0, "grad_norm": 2.0, "tokens_per_second": 9.0, "seconds": 3.0}
    (folder.run_dir(key) / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    values = measure_run(folder, key, params=None, peak_bytes=0, reason="step 2: loss nan.")
    assert (values["status"], values["reason"]) == ("diverged", "step 2: loss nan.")
    assert (values["steps"], values["curve"]) == (1, [[1, 5.0]])
    assert "heldout" not in values and values["timing"] == {"tokens_per_second": 9.0, "seconds": 3.0,
                                                            "decode_tokens_per_second": None}
    folder.write_measurements(key, values)
    assert folder.measurements_of(key) == values and folder.is_finished(key)
