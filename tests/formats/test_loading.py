"""From a folder of any format to a model, its parameters in either dtype, and its tokenizer where there is one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import llama_jax
from llama_jax.__main__ import main
from llama_jax.config import MeshConfig, OptimizerConfig, TrainingConfig
from llama_jax.conversion.convert import convert_weights
from llama_jax.errors import ConfigError
from llama_jax.evaluation.answers import Answerer
from llama_jax.formats.loading import load
from llama_jax.formats.open import open_source
from llama_jax.inference.generate import stream
from llama_jax.scoring.likelihood import token_loglikelihood
from llama_jax.serving.engine import Engine
from llama_jax.tokenizer.load import NoTokenizer
from llama_jax.training.step import init_state
from tests.conversion.test_convert import Zeros
from tests.formats.memory import MemorySource, config_of
from tests.training.test_step import packed_batch

ROOT = Path(__file__).parents[2]
GREEDY = llama_jax.Sampling(temperature=0, max_new_tokens=6)


def test_load_takes_every_format(folders):
    trees = [load(folders[to]) for to in ("orbax", "hf", "meta")]
    for model, params, tokenizer in trees:
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))
        jax.tree.map(np.testing.assert_array_equal, params, trees[0][1])
        assert tokenizer.sha256 == trees[0][2].sha256 and model.config.num_layers == 3
    step = load(folders["orbax"] / "checkpoints/0")[1]
    jax.tree.map(np.testing.assert_array_equal, step, trees[0][1])


@pytest.mark.parametrize("to", ["orbax", "hf", "meta"])
@pytest.mark.parametrize("mesh", [None, MeshConfig(data=1, fsdp=2, tensor=2)])
def test_two_bytes_per_parameter(folders, to, mesh):
    wanted = load(folders[to])[1]
    model, params, _ = load(folders[to], mesh, dtype="bfloat16")
    assert model.compute.dtype == "bfloat16" and open_source(folders[to]).compute.dtype == "float32"
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), params, wanted)
    assert len(params["embedding"].sharding.device_set) == (4 if mesh else 1)
    assert jax.tree.map(lambda x: x.dtype, load(folders[to], dtype=jnp.float32)[1]) == jax.tree.map(lambda x: x.dtype, wanted)


@pytest.mark.parametrize("dtype, sentence", [
    ("bfloat", "parameters cannot be loaded as bfloat; did you mean bfloat16"), ("float16", "float16; did you mean bfloat16"),
    (np.int8, "as int8; known: bfloat16, float32"), ("double", "as double"),
])
def test_other_dtypes_name_the_nearest(tmp_path, dtype, sentence):
    with pytest.raises(ConfigError, match=sentence):
        load(tmp_path / "nowhere", dtype=dtype)


ARCHITECTURES = {"llama": {}, "others": {"norm": "layernorm", "position": "shaw", "use_bias": True, "tied_embeddings": True},
                 "learned": {"position": "learned", "norm_position": "post", "feedforward": "relu"}}


@pytest.mark.parametrize("name", ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("others", "learned"))])
def test_of_weights_stored_in_bfloat16_nothing_is_lost(tmp_path, name):
    """Logits, decoding and likelihoods are those of the float32 parameters, bit for bit, when both compute in bfloat16."""
    convert_weights(MemorySource(config_of(2, **ARCHITECTURES[name])), tmp_path / "run", "orbax", dtype="bfloat16")
    model, params, tokenizer = load(tmp_path / "run", dtype="bfloat16")
    whole = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    jax.tree.map(np.testing.assert_array_equal, whole, load(tmp_path / "run")[1])
    tokens_BT = np.random.default_rng(0).integers(0, 512, (2, 40)).astype(np.int32)
    logits = [jax.jit(model.apply)({"params": tree}, tokens_BT) for tree in (params, whole)]
    assert logits[0].dtype == np.float32 and np.isfinite(logits[0]).all()
    np.testing.assert_array_equal(*logits)
    ids = tokens_BT.tolist()
    assert tokenizer is None
    assert llama_jax.generate(model, params, None, ids, GREEDY) == llama_jax.generate(model, whole, None, ids, GREEDY)
    pairs = [(row[:20], row[20:]) for row in ids]
    assert token_loglikelihood(model, params, pairs) == token_loglikelihood(model, whole, pairs)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_train_step_refuses_16_bits(accumulation_steps):
    config = config_of()
    model, optimizer = llama_jax.Transformer(config), llama_jax.make_optimizer(OptimizerConfig(), 100)
    step = llama_jax.make_train_step(model, optimizer, TrainingConfig(accumulation_steps=accumulation_steps))
    state = jax.eval_shape(lambda: init_state(model, optimizer, seed=0))
    half = state.replace(params=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), state.params))
    jax.eval_shape(step, state, packed_batch(0))
    with pytest.raises(ConfigError, match=r"float32 parameters, and embedding is bfloat16, .*; load them without dtype, or cast"):
        jax.eval_shape(step, half, packed_batch(0))


@pytest.fixture(scope="module")
def without_tokenizer(tmp_path_factory, folders) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "hf"
    shutil.copytree(folders["hf"], folder, ignore=shutil.ignore_patterns("*token*"))
    return folder


def test_a_folder_without_a_tokenizer_serves_token_ids(without_tokenizer, folders):
    model, params, tokenizer = llama_jax.load(without_tokenizer)
    _, whole, own = llama_jax.load(folders["hf"])
    assert tokenizer is None
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    ids = [[5, 6, 7], [8, 9, 10, 11]]
    found = llama_jax.generate(model, params, tokenizer, ids, GREEDY)
    wanted = llama_jax.generate(model, params, own, ids, GREEDY)
    for bare, texts in zip(found, wanted, strict=True):
        assert bare.tokens[: len(texts.tokens)] == texts.tokens and bare.text == ""
        assert len(bare.tokens) == len(bare.logprobs) == 6 and bare.finish_reason == "length"
    assert np.isfinite(token_loglikelihood(model, params, [([1, 2], [3])])[0].logprob)
    assert llama_jax.generate(model, params, tokenizer, [1, 2, 3], GREEDY)  # one prompt


NEEDS_TEXT = {
    "a prompt that is text": lambda m, p: llama_jax.generate(m, p, None, ["To be"]),
    "a stop string": lambda m, p: llama_jax.generate(m, p, None, [[1, 2]], llama_jax.Sampling(stop=("x",))),
    "a stream of text": lambda m, p: list(stream(m, p, None, [1, 2])),
    "the likelihood of a text": lambda m, p: llama_jax.loglikelihood(m, p, None, [("a", "b")]),
    "the likelihood of a text, whole": lambda m, p: llama_jax.rolling_loglikelihood(m, p, None, ["ab"]),
    "evaluation": lambda m, p: Answerer(m, p, None),
    "serving": lambda m, p: Engine(m, p, tokenizer=None, slots=1, queue=1),
}


@pytest.mark.parametrize("what", NEEDS_TEXT)
def test_what_needs_text_says_so(without_tokenizer, what):
    model, params, _ = load(without_tokenizer)
    sentence = f"^{what.partition(',')[0]} needs a tokenizer and got None, as .*; give the one"
    with pytest.raises(NoTokenizer, match=sentence) as caught:
        NEEDS_TEXT[what](model, params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", [
    ["generate", "--prompt", "a"], ["score", "--input", "in.jsonl", "--output", "out.jsonl"], ["serve"],
    ["eval", "--tasks", "perplexity", "--text_files", "text.txt"]], ids=lambda command: command[0])
def test_commands_that_need_text_say_so(without_tokenizer, tmp_path, monkeypatch, capsys, command):
    if command == ["serve"]:
        pytest.importorskip("uvicorn")
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"context": "a", "continuation": "b"}\n')
    Path("text.txt").write_text("To be.")
    assert main([command[0], "--checkpoint", str(without_tokenizer), *command[1:]]) == 3
    said = f"error: no tokenizer at {without_tokenizer}: expected a SentencePiece file or a folder with tokenizer.model or "
    assert capsys.readouterr().err == said + "tokenizer.json.\n"


PEAK = """
import gc, sys
from pathlib import Path
import llama_jax
from llama_jax.formats.open import open_source
from llama_jax.model.accounting import parameter_count
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
small, *folders = sys.argv[1:]
for folder in folders:
    parameter_count(open_source(folder).config)
    llama_jax.load(small, dtype="bfloat16")  # what starts once has started
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    begin = memory("VmRSS")
    kept = llama_jax.load(folder, dtype="bfloat16")
    print(memory("VmHWM") - begin)
    del kept
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measures memory in /proc")
def test_there_is_never_a_float32_copy_of_the_model(tmp_path, folders):
    """39M parameters stored in float32 (157 MB): the peak is 79 MB, a parameter of some MB, and what each reader takes."""
    config = config_of(8, dim=320, num_layers=24, ffn_dim=1280)
    for to in ("hf", "meta", "orbax"):
        convert_weights(Zeros(config, params={}), tmp_path / to, to)
        command = [sys.executable, "-c", PEAK, folders[to], tmp_path / to]
        peak = int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        assert peak < 125_000_000, (to, peak)
