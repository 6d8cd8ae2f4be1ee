"""A tensor is found by any of its names, and only where the format that the name belongs to can hold the model."""

import pytest

from llama_jax.config import RopeScaling
from llama_jax.config.presets import PRESETS
from llama_jax.errors import ConfigError
from llama_jax.formats.mapping import Tensor, tensors
from llama_jax.formats.names import formats_that_hold, tensors_called
from llama_jax.model.tree import parameters
from tests.formats.memory import config_of

CONFIG = config_of()
LAYERNORM = config_of(norm="layernorm", use_bias=True, position="learned")


@pytest.mark.parametrize("tensor", [*tensors(CONFIG)], ids=lambda tensor: tensor.ours)
def test_every_name_of_every_tensor(tensor):
    names = {tensor.ours, tensor.hf, tensor.meta, tensor.hf.removesuffix(".weight"), tensor.meta.removesuffix(".weight")}
    if tensor.weight.stacked:
        names |= {tensor.weight.ours.replace("layers", f"layers{mark}{tensor.layer}") for mark in "._"}
    for name in names:
        assert tensors_called(name, CONFIG) == [tensor], name
    every = [Tensor(tensor.weight, layer) for layer in range(CONFIG.num_layers if tensor.weight.stacked else 1)]
    for name in (tensor.weight.ours, tensor.weight.hf, tensor.weight.hf.replace(".{}", "") + ".weight", tensor.weight.meta):
        assert tensors_called(name.replace(".{}", ""), CONFIG) == every, name


def test_models_of_other_kinds_have_names_here_alone():
    assert formats_that_hold(CONFIG) == {"hf", "meta"} and formats_that_hold(LAYERNORM) == frozenset()
    assert formats_that_hold(config_of(head_dim=10)) == {"hf"}
    assert formats_that_hold(config_of(rope_scaling=RopeScaling("yarn", factor=2.0))) <= {"hf"}
    assert [t.ours for t in tensors_called("layers.attention_norm.bias", LAYERNORM)] == [
        f"layers.attention_norm.bias[{n}]" for n in range(3)]
    assert [t.ours for t in tensors_called("layers_1.attention.bq", LAYERNORM)] == ["layers.attention.bq[1]"]
    biased = config_of(use_bias=True)  # which Hugging Face's format holds: a module there has two tensors
    for name, ours in (("model.layers.1.mlp.up_proj", "w_up"), ("model.layers.1.mlp.up_proj.bias", "b_up")):
        assert [t.ours for t in tensors_called(name, biased)] == [f"layers.feedforward.{ours}[1]"]
    with pytest.raises(ConfigError, match=r"no tensor model\.layers\.0\.self_attn\.q_proj; "):
        tensors_called("model.layers.0.self_attn.q_proj", LAYERNORM)


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_of_every_model_is_listed_once(name):
    config = PRESETS[name]
    listed = [*tensors(config)]
    assert len({tensor.ours for tensor in listed}) == len(listed)
    assert {tensor.weight.ours for tensor in listed} == {*parameters(config)}
    for tensor in listed[:: len(listed) // 20 + 1]:
        assert tensor.leaf(config) == parameters(config)[tensor.weight.ours].of_layer


@pytest.mark.parametrize("name, sentence", [
    ("layers.attention.wx", "no tensor layers.attention.wx; did you mean layers.attention.w"),
    ("model.layers.0.self_atn.q_proj.weight", "did you mean model.layers.self_attn.q_proj"),
    ("tok_embedings", "did you mean tok_embeddings"),
    ("??", "known: embedding, final_norm.scale, head, layers.attention.wk,"),
    ("layers.3.attention.wq", "its layers are 0 to 2"), ("layers.attention.wq[99]", "its layers are 0 to 2"),
    ("head[1]", "head is not one of a layer; leave [1] out"),
])
def test_names_that_mean_nothing(name, sentence):
    with pytest.raises(ConfigError) as caught:
        tensors_called(name, CONFIG)
    assert sentence in str(caught.value) and str(caught.value).startswith(f"the model has no tensor {name}")
