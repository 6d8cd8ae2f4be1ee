"""init_from: a run begins with the weights of a folder, its own tokenizer, a fresh optimizer; and what does not fit is told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from llama_jax.config import Config, DataConfig, MeshConfig, OptimizerConfig, TrainingConfig
from llama_jax.conversion.convert import convert_weights
from llama_jax.data.corpus import open_corpus
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.loading import load
from llama_jax.formats.open import open_source
from llama_jax.model.decoder import Transformer
from llama_jax.parallel.mesh import make_mesh
from llama_jax.tokenizer.training import train_sentencepiece
from llama_jax.training.compiled import build
from llama_jax.training.init_from import check_initial_model, load_initial_params, open_initial_weights, required_tokenizer
from llama_jax.training.loop import fit
from tests.formats.memory import MemorySource, config_of
from tests.golden.small import FLOAT32

MODEL = config_of(2, num_layers=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "hf"
    convert_weights(MemorySource(MODEL, tokenizer), folder, "hf")
    return folder


@pytest.fixture
def config(tmp_path, play, weights) -> Config:
    (tmp_path / "play.txt").write_text(play[:30_000])
    return Config(
        name="on", init_from=str(weights), model=MODEL, optimizer=OptimizerConfig(peak_lr=3e-3, warmup_steps=1),
        data=DataConfig((str(tmp_path / "play.txt"),), sequence_length=32),
        training=TrainingConfig(num_steps=3, batch_size=8, log_every=1, sample_tokens=0))


def losses(workdir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]


def test_a_run_goes_on_from_a_folder(tmp_path, config, weights, tokenizer, capsys):
    """Its first loss is that of the weights; resumed, it does not begin with them again, nor need them."""
    run = tmp_path / "run"
    shutil.copytree(weights, tmp_path / "copy")
    config = replace(config, init_from=str(tmp_path / "copy"))
    state = fit(config, run)
    out = capsys.readouterr().out
    assert f"weights: Hugging Face folder {tmp_path / 'copy'}; tokenizer: SentencePiece (tokenizer.model), 512 pieces" in out
    rows = np.concatenate([np.fromfile(file, "<u2") for file in (run / "data").rglob("*.bin")])
    windows = rows[: len(rows) // 33 * 33].reshape(-1, 33).astype(np.int32)
    _, params, _ = load(weights)
    logits = jax.jit(Transformer(MODEL, FLOAT32).apply)({"params": params}, windows[:, :-1])
    nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), windows[:, 1:, None], -1).mean()
    first, *_, last = losses(run)
    assert first == pytest.approx(nll, abs=0.1) and last < first - 0.1
    assert int(state.step) == 3 and json.loads((run / "config.json").read_text())["init_from"] == config.init_from

    shutil.rmtree(tmp_path / "copy")
    longer = replace(config, training=replace(config.training, num_steps=4))
    fit(longer, run)
    assert losses(run)[-1] < first - 0.1 and "resuming" in capsys.readouterr().out


def test_the_weights_are_the_folders_and_the_rest_is_fresh(tmp_path, config, weights):
    """Whatever the format: parameters from the folder, laid out as the run's own; step and moments as at the seed."""
    convert_weights(open_source(weights), tmp_path / "orbax", "orbax", dtype="bfloat16")
    with jax.set_mesh(mesh := make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        fresh = build(config, mesh).init()
        wanted = jax.tree.map(np.asarray, load(weights)[1])
        for folder, rounded in ((weights, wanted), (tmp_path / "orbax", jax.tree.map(half, wanted))):
            state = load_initial_params(fresh, open_source(folder))
            jax.tree.map(np.testing.assert_array_equal, state.params, rounded)
            assert jax.tree.map(lambda x: x.sharding, state.params) == jax.tree.map(lambda x: x.sharding, fresh.params)
            jax.tree.map(np.testing.assert_array_equal, (state.step, state.opt_state), (fresh.step, fresh.opt_state))


def half(x: np.ndarray) -> np.ndarray:
    return x.astype(STORED_DTYPES["bfloat16"]).astype(np.float32)


def test_a_converted_folder_is_no_run_to_resume(tmp_path, config, weights):
    convert_weights(open_source(weights), tmp_path / "orbax", "orbax")
    for init_from in ("", str(weights)):
        with pytest.raises(ConfigError, match=r"holds converted weights, not a run; train from them with --init_from .* another"):
            fit(replace(config, init_from=init_from), tmp_path / "orbax")


def test_another_model_is_refused_with_what_mends_it():
    with pytest.raises(ConfigError) as caught:
        check_initial_model(
            MODEL, replace(MODEL, dim=128, num_layers=5, tied_embeddings=True, rope_theta=1.0), folder="W")
    assert str(caught.value) == ("the weights of W belong to another model than the config's; add --model.dim 64 "
                                 "--model.num_layers 2 --model.rope_theta 10000.0 --model.tied_embeddings False")
    check_initial_model(MODEL, replace(MODEL, head_dim=8, max_length=64), folder="W")


def test_the_tokenizer_must_be_the_weights_own(tmp_path, config, weights, tokenizer, play):
    other = train_sentencepiece([play[:100_000]], 512)
    other.save(tmp_path / "other")
    source = open_source(weights)
    assert required_tokenizer(source, "").sha256 == tokenizer.sha256 == required_tokenizer(source, str(weights)).sha256
    with pytest.raises(ConfigError, match=r"other is not the tokenizer that lies in .*hf, which its weights were trained with"):
        fit(replace(config, data=replace(config.data, tokenizer=str(tmp_path / "other"))), tmp_path / "run")
    assert not list((tmp_path / "run").glob("*")), "its lock is gone again"
    bare = MemorySource(MODEL)
    assert required_tokenizer(bare, str(weights)).sha256 == tokenizer.sha256
    with pytest.raises(ConfigError, match=r"holds no tokenizer; set --data.tokenizer to the one its weights were trained with"):
        required_tokenizer(bare, "")
    with pytest.raises(ConfigError, match="has 512 pieces and the model 400"):
        required_tokenizer(MemorySource(config_of(vocab_size=400)), str(weights))


def test_padded_models_keep_their_smaller_tokenizer(tmp_path, config, tokenizer):
    for given in (tokenizer, None):  # the second time it is the run's own
        corpus = open_corpus(config.data, 520, workdir=tmp_path / "run", given=given, padded=True)
        assert corpus.tokenizer.sha256 == tokenizer.sha256
    with pytest.raises(ConfigError, match=r"has 512 pieces but model.vocab_size is 520"):
        open_corpus(config.data, 520, workdir=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"has 512 pieces but model.vocab_size is 500"):
        open_corpus(config.data, 500, workdir=tmp_path / "other", given=tokenizer, padded=True)


def test_a_folder_without_weights(tmp_path, config):
    with pytest.raises(DataError, match=r"no checkpoint at .*nowhere"):
        open_initial_weights(replace(config, init_from=str(tmp_path / "nowhere")), tmp_path / "run")
    assert open_initial_weights(replace(config, init_from=""), tmp_path / "run") is None
