"""transformers and torch read what we write and we read what they write; continued training begins where they stand."""

import json
import math
import shutil

import jax
import numpy as np
import pytest

from llama_jax.config import Config, DataConfig, OptimizerConfig, RopeScaling, TrainingConfig
from llama_jax.conversion.convert import convert_weights
from llama_jax.conversion.verify import logits_of_source
from llama_jax.errors import DataError
from llama_jax.formats import hf
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.loading import load
from llama_jax.formats.mapping import tensors
from llama_jax.formats.open import open_source
from llama_jax.formats.safetensors_files import WEIGHTS_FILE
from llama_jax.formats.torchfile import TorchFile
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.bpe import Tiktoken
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.training.loop import fit
from tests.formats.memory import MemorySource, config_of
from tests.golden import make_rope
from tests.golden.small import random_params
from tests.golden.texts import random_texts

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MODELS = {
    "mha": {"kv_heads": 8}, "gqa tied": {"kv_heads": 2, "tied_embeddings": True},
    "mqa llama3": {"kv_heads": 1, "rope_theta": 5e5, "rope_scaling": RopeScaling("llama3", 8.0, 1.0, 4.0, 32)},
    "linear": {"rope_scaling": RopeScaling("linear", 4.0)}, "wide heads": {"head_dim": 16},
    "yarn": {"rope_scaling": RopeScaling("yarn", 4.0, original_length=32, beta_fast=20.0, beta_slow=0.5)},
    "yarn, wide": {"head_dim": 32, "rope_theta": 5e5, "rope_scaling": RopeScaling("yarn", 16.0, original_length=64)},
    "biases": {"kv_heads": 2, "use_bias": True},
}


def torch_logits(folder, tokens_BT) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor(tokens_BT, dtype=torch.long)).logits.numpy()


@pytest.mark.parametrize("name", MODELS)
def test_transformers_gives_our_logits(tmp_path, tokenizer, monkeypatch, name):
    monkeypatch.setattr(hf, "SHARD_BYTES", 200_000)
    convert_weights(MemorySource(config_of(**MODELS[name]), tokenizer), tmp_path / "hf", "hf")
    tokens_BT = np.random.default_rng(0).integers(0, 512, (2, 100))
    ours = logits_of_source(open_source(tmp_path / "hf"), tokens_BT)
    np.testing.assert_allclose(ours, torch_logits(tmp_path / "hf", tokens_BT), atol=1e-5)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "hf")
    assert (generation.bos_token_id, generation.eos_token_id) == (1, 2)


def test_a_folder_that_contradicts_itself_is_read_as_transformers_reads_it(tmp_path, tokenizer, monkeypatch):
    """One file beside older shards and their index; another head in a folder that is said to be tied."""
    monkeypatch.setattr(hf, "SHARD_BYTES", 200_000)
    convert_weights(MemorySource(config_of(), tokenizer), tmp_path / "resaved", "hf")
    monkeypatch.undo()
    new = MemorySource(config_of(), tokenizer, params=random_params(config_of(), 7))
    convert_weights(new, tmp_path / "new", "hf")
    shutil.copy(tmp_path / "new" / WEIGHTS_FILE, tmp_path / "resaved")
    shutil.copytree(tmp_path / "new", tmp_path / "tied")
    config = json.loads((tmp_path / "tied/config.json").read_text())
    (tmp_path / "tied/config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    tokens_BT = np.random.default_rng(0).integers(0, 512, (2, 50))
    wanted = logits_of_source(new, tokens_BT)
    for name in ("resaved", "tied"):
        np.testing.assert_allclose(logits_of_source(open_source(tmp_path / name), tokens_BT), wanted, atol=1e-4)
        np.testing.assert_allclose(torch_logits(tmp_path / name, tokens_BT), wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["resaved/old-shards-kept", "resaved/resaved-by-transformers-5.24", "tied-other-head"])
def test_contradictory_folders_of_the_shared_data(shared_data, name):
    tokens_BT = np.random.default_rng(0).integers(0, 512, (2, 50))
    ours = logits_of_source(open_source(shared_data / "faults" / name), tokens_BT)
    np.testing.assert_allclose(ours, torch_logits(shared_data / "faults" / name, tokens_BT), atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_we_read_what_transformers_saves(tmp_path, dtype):
    """Its own config spelling, its own shards, a stretched context."""
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=48, intermediate_size=100, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=[2, 5],
        rope_parameters={"rope_type": "llama3", "rope_theta": 1e5, "factor": 4.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 64})
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(tmp_path / "hf", max_shard_size="60KB")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 2
    tokens_BT = np.random.default_rng(0).integers(0, 300, (2, 200))
    source = open_source(tmp_path / "hf")
    assert source.dtype.name == dtype
    np.testing.assert_allclose(logits_of_source(source, tokens_BT), torch_logits(tmp_path / "hf", tokens_BT), atol=1e-4)


YARN = {"rope_type": "yarn", "rope_theta": 1e5, "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize("rope", [YARN, YARN | {"beta_fast": 10.0, "beta_slow": 2.0, "truncate": True}, YARN | {"mscale": 0.7},
                                  YARN | {"attention_factor": 0.1 * math.log(4) + 1}])
def test_we_read_yarn_and_biases_as_transformers_saves_them(tmp_path, rope):
    """And refuse what would be another model."""
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=100, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, rope_parameters=dict(rope), attention_bias=True, mlp_bias=True)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    for name, x in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(x, std=0.5)
    model.save_pretrained(tmp_path / "hf")
    tokens_BT = np.random.default_rng(0).integers(0, 300, (2, 200))
    wanted = torch_logits(tmp_path / "hf", tokens_BT)
    np.testing.assert_allclose(logits_of_source(open_source(tmp_path / "hf"), tokens_BT), wanted, atol=1e-5)
    values = json.loads((tmp_path / "hf/config.json").read_text())
    for change in ({"mlp_bias": False}, {"attention_bias": False},
                   {"rope_parameters": values["rope_parameters"] | {"attention_factor": 1.0}},
                   {"rope_parameters": values["rope_parameters"] | {"truncate": False}}):
        (tmp_path / "hf/config.json").write_text(json.dumps(values | change))
        with pytest.raises(DataError, match=r"mlp_bias = |attention_factor makes yarn|truncate = False"):
            open_source(tmp_path / "hf")
        assert np.abs(torch_logits(tmp_path / "hf", tokens_BT) - wanted).max() > 5e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_torch_reads_what_we_write_and_we_what_it_saves(tmp_path, tokenizer, dtype):
    memory = MemorySource(config_of(2), tokenizer, dtype=STORED_DTYPES[dtype])
    convert_weights(memory, tmp_path / "meta", "meta", meta_shards=2)
    for file in sorted((tmp_path / "meta").glob("*.pth")):
        state = torch.load(file, weights_only=True)
        mapped = torch.load(file, weights_only=True, mmap=True)
        ours = TorchFile(file)
        for name, tensor in state.items():
            assert tensor.dtype == getattr(torch, dtype) and torch.equal(tensor, mapped[name])
            assert tensor.view(torch.uint8).numpy().tobytes() == np.ascontiguousarray(ours.read(name)).tobytes()
        ours.close()
        # what torch makes of it: a state dict with views, parameters, strides and shared storages
        state["layers.0.attention.wq.weight"] = state["layers.0.attention.wq.weight"].T.contiguous().T
        state["norm.weight"] = torch.nn.Parameter(torch.cat([state["norm.weight"]] * 2)[64:], requires_grad=False)
        state["rope.freqs"] = torch.arange(4.0)
        torch.save(state, file)
    source = open_source(tmp_path / "meta")
    for tensor in tensors(memory.config):
        assert source.read(tensor).tobytes() == memory.read(tensor).tobytes()


def test_a_state_dict_of_a_module(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    torch.save(module.state_dict(), tmp_path / "x.pth")
    file = TorchFile(tmp_path / "x.pth")
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(file.read(name), tensor.numpy())
    file.close()


@pytest.mark.parametrize("name", make_rope.CASES)
def test_golden_frequencies_are_what_the_script_makes_today(name):
    golden = json.loads(make_rope.FILE.read_text())[name]
    np.testing.assert_allclose(golden, make_rope.frequencies(make_rope.CASES[name]), rtol=1e-7)


def texts_of(play: str) -> list[str]:
    spaces = [" " * n + "x" + " " * (n // 2) for n in range(40)]
    return [*(play[at : at + 300] for at in range(0, 60_000, 300)), *random_texts(1000), *spaces, " ", "\n\n", "a\u2581b"]


def assert_auto_tokenizer_agrees(folder, tokenizer: Tokenizer, texts: list[str]) -> None:
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    assert (auto.bos_token_id, auto.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    for text in texts:
        ids = auto(text)["input_ids"]
        assert ids == [*tokenizer.begin, *tokenizer.encode(text)], text
        assert auto.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


def test_auto_tokenizer_reads_our_sentencepiece(tmp_path, tokenizer, play, shared_data):
    convert_weights(MemorySource(config_of(), tokenizer), tmp_path / "own", "hf")
    assert_auto_tokenizer_agrees(tmp_path / "own", tokenizer, texts_of(play))
    metas = load_tokenizer(shared_data / "tokenizer/llama-tokenizer.model")
    convert_weights(MemorySource(config_of(vocab_size=32_000), metas), tmp_path / "meta", "hf")
    cases = (shared_data / "tokenizer/llama-spm-cases.inp").read_text().split("\n__ggml_vocab_test__\n")
    assert_auto_tokenizer_agrees(tmp_path / "meta", metas, [*texts_of(play), *cases])


def test_auto_tokenizer_reads_our_llama_3(tmp_path, ranks, play):
    tokenizer = Tiktoken(ranks)
    convert_weights(MemorySource(config_of(vocab_size=tokenizer.vocab_size), tokenizer), tmp_path / "hf", "hf")
    assert_auto_tokenizer_agrees(tmp_path / "hf", tokenizer, texts_of(play))
    assert isinstance(open_source(tmp_path / "hf").tokenizer(), Tiktoken)
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "hf")
    assert tuple(generation.eos_token_id) == tokenizer.eos_ids
    for file in ("tokenizer.model",):  # a folder that transformers wrote has the tokenizer.json alone
        (tmp_path / "hf" / file).unlink()
    again = open_source(tmp_path / "hf").tokenizer()
    assert (again.bos_id, again.eos_ids, again.begin) == (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.begin)
    assert all(again.encode(text) == tokenizer.encode(text) for text in texts_of(play))


def test_training_goes_on_where_transformers_stands(tmp_path, tokenizer, play):
    """20 steps on real text from a Hugging Face folder: the first loss is theirs for the same rows, and then it falls."""
    convert_weights(MemorySource(config_of(2), tokenizer), tmp_path / "hf", "hf")
    loaded = load(tmp_path / "hf")[0]
    model = loaded.config
    (tmp_path / "play.txt").write_text(play)
    config = Config(
        name="on", init_from=str(tmp_path / "hf"), model=model, compute=loaded.compute,
        optimizer=OptimizerConfig(peak_lr=3e-3, warmup_steps=2),
        data=DataConfig((str(tmp_path / "play.txt"),), sequence_length=64),
        training=TrainingConfig(num_steps=20, batch_size=8, log_every=1, sample_tokens=0))
    first_batch = {}
    from llama_jax.training import loop

    load_batches = loop.load_batches

    def seen(*arguments, **options):
        for batch in load_batches(*arguments, **options):
            if not first_batch:
                first_batch.update(tokens=np.asarray(batch.tokens), targets=np.asarray(batch.targets),
                                   weights=np.asarray(batch.weights))
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "load_batches", seen)
        fit(config, tmp_path / "run")
    theirs = torch.tensor(torch_logits(tmp_path / "hf", first_batch["tokens"]))
    nll = torch.nn.functional.cross_entropy(theirs.flatten(0, 1), torch.tensor(first_batch["targets"]).long().flatten(),
                                            reduction="none").numpy()
    wanted = (nll * first_batch["weights"].reshape(-1)).sum() / first_batch["weights"].sum()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] == pytest.approx(wanted, abs=1e-4)
    assert len(losses) == 20 and losses[-1] < losses[0] - 0.5
    convert_weights(open_source(tmp_path / "run"), tmp_path / "back", "hf")
    tokens_BT = first_batch["tokens"][:2]
    ours = logits_of_source(open_source(tmp_path / "run"), tokens_BT)
    np.testing.assert_allclose(torch_logits(tmp_path / "back", tokens_BT), ours, atol=1e-4)
    assert model == open_source(tmp_path / "back").config
    assert jax.default_backend() == "cpu"
