"""Hugging Face folders: every spelling of a config, a real checkpoint, and what is wrong with others."""

import json
import math
import os
import shutil

import jax
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from llama_jax.config import MeshConfig, ModelConfig, RopeScaling
from llama_jax.conversion.convert import convert_weights
from llama_jax.errors import DataError
from llama_jax.formats import hf
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.config_json import config_from_hf
from llama_jax.formats.loading import abstract_params, read_params
from llama_jax.formats.open import open_source
from llama_jax.formats.safetensors_files import INDEX_FILE
from llama_jax.inference.generate import generate
from llama_jax.inference.sampling import Sampling
from llama_jax.model.decoder import Transformer
from tests.golden.stories import load_llama2c

LLAMA2 = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
          "num_attention_heads": 32, "num_hidden_layers": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
          "vocab_size": 32000, "hidden_act": "silu", "pretraining_tp": 1, "rope_scaling": None, "torch_dtype": "float16"}
LLAMA31 = LLAMA2 | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "rope_theta": 500000.0,
                    "max_position_embeddings": 131072, "attention_bias": False, "mlp_bias": False, "head_dim": 128,
                    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                     "original_max_position_embeddings": 8192}}
NEW = {key: value for key, value in LLAMA31.items() if key not in ("rope_theta", "rope_scaling")} | {
    "rope_parameters": LLAMA31["rope_scaling"] | {"rope_theta": 500000.0}}
YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 256, "beta_fast": 24.0, "beta_slow": None}
MEANT_YARN = RopeScaling("yarn", 16.0, original_length=256, beta_fast=24.0)
MEANT31 = ModelConfig(vocab_size=128256, num_kv_heads=8, ffn_dim=14336, max_length=131072, rope_theta=5e5,
                      rope_scaling=RopeScaling("llama3", 8.0, 1.0, 4.0, 8192))


@pytest.mark.parametrize("values, config", [
    (LLAMA2, ModelConfig(max_length=4096)),
    (LLAMA31, MEANT31),
    (NEW, MEANT31),
    (LLAMA2 | {"rope_scaling": {"type": "linear", "factor": 4}},
     ModelConfig(max_length=4096, rope_scaling=RopeScaling("linear", 4.0))),
    (LLAMA2 | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
     ModelConfig(max_length=4096, rope_theta=1e6)),
    (LLAMA2 | {"head_dim": 64, "tie_word_embeddings": True},
     ModelConfig(max_length=4096, head_dim=64, tied_embeddings=True)),
    (LLAMA2 | {"attention_bias": True, "mlp_bias": True}, ModelConfig(max_length=4096, use_bias=True)),
    (LLAMA2 | {"rope_scaling": {"type": "yarn", "factor": 4, "finetuned": True}},
     ModelConfig(max_length=4096, rope_scaling=RopeScaling("yarn", 4.0, original_length=4096))),
    (LLAMA2 | {"rope_parameters": YARN | {"rope_theta": 1e6, "mscale": 1.0, "truncate": True}},
     ModelConfig(max_length=4096, rope_theta=1e6, rope_scaling=MEANT_YARN)),
    (LLAMA2 | {"rope_scaling": YARN | {"attention_factor": 0.1 * math.log(16) + 1}},
     ModelConfig(max_length=4096, rope_scaling=MEANT_YARN)),
    (LLAMA2 | {"rope_scaling": YARN | {"attention_factor": None, "mscale": 1.0, "mscale_all_dim": 0}},
     ModelConfig(max_length=4096, rope_scaling=MEANT_YARN)),
])
def test_spellings_of_a_config(tmp_path, values, config):
    assert config_from_hf(values, tmp_path) == config


@pytest.mark.parametrize("change, named", [
    ({"architectures": ["MistralForCausalLM"], "model_type": "mistral"}, "MistralForCausalLM"),
    ({"model_type": "qwen2"}, "qwen2"), ({"attention_bias": True}, "attention_bias = True and mlp_bias = False ask"),
    ({"mlp_bias": True}, "attention_bias = False and mlp_bias = True ask"), ({"mlp_bias": 1}, "mlp_bias should be bool, got 1"),
    ({"sliding_window": 4096}, "sliding_window = 4096"),
    ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"), ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic' is not implemented"),
    ({"rope_scaling": YARN | {"attention_factor": 1.0}}, "attention_factor makes yarn multiply queries and keys by 1; only"),
    ({"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}, r"mscale makes yarn multiply .* by 1; only .* = 1.27726"),
    ({"rope_scaling": YARN | {"truncate": False}}, "truncate = False leaves yarn's borders unrounded"),
    ({"rope_scaling": YARN | {"truncate": None}}, "truncate = None"),
    ({"rope_scaling": YARN | {"beta_slow": 40.0}}, "0 < beta_slow < beta_fast, got 40.0 and 24.0"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "factor should be float, it is missing"),
    ({"rope_scaling": [1]}, "rope_scaling should be an object"),
    ({"rope_scaling": {"type": "linear"}}, "factor should be float, it is missing"),
    ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor must be at least 1"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ({"hidden_size": None}, "hidden_size should be int, got None"), ({"hidden_size": "big"}, "got 'big'"),
    ({"num_key_value_heads": 5}, "must be a multiple"), ({"num_hidden_layers": 0}, "num_layers must be positive"),
])
def test_what_is_no_llama_is_named(tmp_path, change, named):
    with pytest.raises(DataError, match=named) as caught:
        config_from_hf(LLAMA2 | change, tmp_path / "config.json")
    assert "config.json" in str(caught.value) and "\n" not in str(caught.value)


def test_stories_loads_and_tells_its_story(shared_data, tokenizer):
    """A real folder, on one device and split over four: the weights llama2.c has, and its published text."""
    folder = shared_data / "checkpoints/stories260K"
    source = open_source(folder / "hf")
    config, wanted = load_llama2c(folder / "stories260K.bin")
    assert source.config == config and source.compute.dtype == "float32"
    for mesh in (None, MeshConfig(data=1, fsdp=2, tensor=2)):
        params = read_params(source, abstract_params(config, mesh))
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), params, dict(wanted))
        assert len(params["embedding"].sharding.device_set) == (4 if mesh else 1)
    greedy = json.loads((folder / "greedy.json").read_text())
    params = read_params(source, abstract_params(config))
    [result] = generate(Transformer(config, source.compute), params, tokenizer, [greedy["prompt_tokens"]],
                        Sampling(temperature=0.0, max_new_tokens=len(greedy["tokens"]) - 1))
    assert [*greedy["prompt_tokens"], *result.tokens] == greedy["tokens"]


def test_shards_hold_what_the_index_says(tmp_path, memory, monkeypatch):
    monkeypatch.setattr(hf, "SHARD_BYTES", 100_000)
    convert_weights(memory, tmp_path / "hf", "hf")
    index = json.loads((tmp_path / "hf" / INDEX_FILE).read_text())
    files = sorted((tmp_path / "hf").glob("*.safetensors"))
    sizes = 0
    for file in files:
        with safe_open(file, framework="np") as weights:
            assert {name for name, where in index["weight_map"].items() if where == file.name} == set(weights.keys())
            tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
        assert len(tensors) == 1 or sum(x.nbytes for x in tensors) <= 100_000
        sizes += sum(x.nbytes for x in tensors)
    assert index["metadata"]["total_size"] == sizes and len(files) > 3
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"


def test_float16_and_mixed_dtypes(tmp_path, memory, folders):
    convert_weights(memory, tmp_path / "half", "hf", dtype="float16")
    source = open_source(tmp_path / "half")
    assert source.dtype == np.float16 and source.compute.dtype == "bfloat16"
    shutil.copytree(folders["hf"], tmp_path / "mixed")
    tensors = read(tmp_path / "mixed/model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(STORED_DTYPES["bfloat16"])
    save_file(tensors, tmp_path / "mixed/model.safetensors")
    assert open_source(tmp_path / "mixed").dtype == np.float32


def read(file) -> dict[str, np.ndarray]:
    with safe_open(file, framework="np") as weights:
        return {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118


@pytest.fixture
def folder(tmp_path, memory, monkeypatch):
    """A folder of five files, to be spoilt."""
    monkeypatch.setattr(hf, "SHARD_BYTES", 200_000)
    convert_weights(memory, tmp_path / "hf", "hf")
    return tmp_path / "hf"


def spoil_tensor(folder, name: str, change) -> None:
    for file in folder.glob("*.safetensors"):
        tensors = read(file)
        if name in tensors:
            changed = change(tensors.pop(name))
            save_file(tensors | ({} if changed is None else {name: changed}), file)


def nan(x):
    x = np.array(x)
    x.reshape(-1)[7] = np.nan
    return x


def edit(file, change) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


Q = "model.layers.1.self_attn.q_proj.weight"
SECOND = "model-00002-of-00005.safetensors"
def add_bias(folder) -> None:
    save_file({"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)}, folder / "more.safetensors")
    point(folder, "more.safetensors")


def point(folder, name: str) -> None:
    edit(folder / INDEX_FILE, lambda values: values["weight_map"].update({Q: name}))


DAMAGE = {
    "missing shard": (lambda f: (f / SECOND).unlink(), f"names {SECOND}, which is not there"),
    "truncated": (lambda f: os.truncate(f / SECOND, 5000), f"{SECOND} is not a whole safetensors file"),
    "empty": (lambda f: os.truncate(f / SECOND, 0), f"{SECOND} is not a whole safetensors file"),
    "wrong dtype": (lambda f: spoil_tensor(f, Q, lambda x: x.astype(np.int8)), f"{Q} in .* is I8; weights should be"),
    "NaN": (lambda f: spoil_tensor(f, Q, nan), rf"{Q} in .* holds 1 value\(s\) that are NaN"),
    "infinite": (lambda f: spoil_tensor(f, Q, lambda x: np.full_like(x, np.inf)), f"{Q} in .* NaN or infinite"),
    "wrong shape": (lambda f: spoil_tensor(f, Q, lambda x: x[:-1].copy()),
                    rf"{Q} in .* has the shape \(63, 64\), .* asks for \(64, 64\)"),
    "another config": (lambda f: edit(f / "config.json", lambda v: v.update(num_hidden_layers=4)),
                       "lacks 9 of 39 tensors .* first model.layers.3"),
    "a tensor gone": (lambda f: spoil_tensor(f, Q, lambda x: None), f"lacks 1 of 30 tensors .* first {Q}"),
    "a bias": (add_bias, "q_proj.bias, which a LLaMA does not have"),
    "absent file": (lambda f: point(f, "model-7.safetensors"), "names model-7.safetensors, which is not there"),
    "leads up": (lambda f: point(f, "../x.safetensors"), "../x.safetensors leads outside"),
    "absolute": (lambda f: point(f, "/etc/passwd"), "/etc/passwd leads outside"),
    "no map": (lambda f: (f / INDEX_FILE).write_text("{}"), "has no weight_map"),
    "no JSON": (lambda f: (f / INDEX_FILE).write_text("{"), "is not JSON"),
    "no object": (lambda f: (f / "config.json").write_text("[]"), "config.json should hold an object"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(folder, tmp_path, case):
    damage, sentence = DAMAGE[case]
    damage(folder)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    with pytest.raises(DataError, match=sentence) as caught:
        convert_weights(open_source(folder), tmp_path / "out", "hf")
    assert "\n" not in str(caught.value) and str(caught.value).endswith((".", "?"))
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["hf"]


def test_a_link_that_leads_outside_is_refused(folder, tmp_path):
    (folder / SECOND).rename(tmp_path / "elsewhere")
    (folder / SECOND).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=f"{SECOND} leads outside of"):
        open_source(folder)


def test_the_links_of_a_cache_are_followed(folder, tmp_path):
    """models--x/snapshots/<commit>/file -> ../../blobs/<hash>."""
    snapshot, blobs = tmp_path / "models--x/snapshots/abc", tmp_path / "models--x/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(folder.iterdir()):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert open_source(snapshot).config == open_source(folder).config


def test_no_weights_in_this_format(folder):
    for file in folder.glob("model*"):
        file.unlink()
    with pytest.raises(DataError, match=r"holds neither model.safetensors nor model.safetensors.index.json"):
        open_source(folder)
