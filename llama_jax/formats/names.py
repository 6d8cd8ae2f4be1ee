"""What a model's tensors are called in each format, and which of them a typed name means."""

import re

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError, LlamaError, nearest
from llama_jax.formats.config_json import config_to_hf
from llama_jax.formats.mapping import Tensor, Weight, tensors, weights_of
from llama_jax.formats.params_json import config_to_meta

_LAYER = re.compile(r"\[(\d+)\]$|(?<=layers)[._](\d+)(?=\.)")
"""A layer's number in a name: layers.attention.wq[3], layers.3.attention.wq, model.layers.3.self_attn.q_proj."""


def formats_that_hold(config: ModelConfig) -> frozenset[str]:
    """Which of Hugging Face's and Meta's formats ("hf", "meta") can hold a model, so that its tensors have names there."""
    def holds(describe, *arguments) -> bool:
        try:
            describe(config, *arguments)
        except LlamaError:
            return False
        return True

    return frozenset(name for name, held in (("hf", holds(config_to_hf, "float32")), ("meta", holds(config_to_meta))) if held)


def tensors_called(name: str, config: ModelConfig) -> list[Tensor]:
    """The tensors that `name` means: one, or those of all layers where it is a stacked parameter's and says no layer.

    It is a name of this project, of Hugging Face or of Meta (of the formats that can hold the model), with or without ".weight".
    Raises ConfigError, naming the nearest, where the model has no such tensor.
    """
    match = _LAYER.search(name)
    base = _LAYER.sub("", name, count=1).removesuffix(".weight")
    weights = weights_of(config)
    held = formats_that_hold(config)
    meant = {alias: weight for weight in weights for alias in _names_without_layer(weight, held)}
    if base not in meant:
        guess = nearest(base, meant)
        if not guess.startswith("; did you mean"):  # else all names of all formats would be listed
            guess = nearest(base, [weight.ours for weight in weights])
        raise ConfigError(f"the model has no tensor {name}{guess}")
    found = [tensor for tensor in tensors(config) if tensor.weight == meant[base]]
    if not match:
        return found
    layer = int(match[1] or match[2])
    if not found[0].weight.stacked:
        raise ConfigError(f"the model has no tensor {name}: {base} is not one of a layer; leave {match[0]} out.")
    if layer >= config.num_layers:
        raise ConfigError(f"the model has no tensor {name}: its layers are 0 to {config.num_layers - 1}.")
    return [found[layer]]


def _names_without_layer(weight: Weight, held: frozenset[str]) -> list[str]:
    elsewhere = [weight.hf if "hf" in held else "", weight.meta if "meta" in held else ""]
    part = "" if weight.part == "weight" else f".{weight.part}"
    return [weight.ours, *(name.replace(".{}", "") + part for name in elsewhere if name)]
