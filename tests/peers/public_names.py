"""Every public name of llama_jax in use; tests/peers/test_types.py has pyright read this file, and nothing runs it.

A line marked `pyright: ignore` is a mistake that pyright must see: settings below make a mark without a mistake an error.
"""
# pyright: standard, reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Callable
from typing import assert_type

import jax
import jax.numpy as jnp
import optax

import llama_jax
from llama_jax import PRESETS, Generated, Likelihood, Mask, Sampling, Transformer
from llama_jax.config import ModelConfig, OptimizerConfig, TrainingConfig

MODULES: list[Callable[..., object]] = [
    llama_jax.Attention, llama_jax.Block, llama_jax.FeedForward, llama_jax.LayerNorm, llama_jax.RMSNorm,
    llama_jax.Transformer,
]
FUNCTIONS: list[Callable[..., object]] = [
    llama_jax.attend, llama_jax.every_derivative, llama_jax.make_train_step, llama_jax.next_token_loss, llama_jax.rope_tables,
    llama_jax.rotate,
]


def use_a_model(tokens_BT: jax.Array) -> None:
    assert_type(PRESETS["tiny"], ModelConfig)
    model, params, tokenizer = llama_jax.load("runs/tiny")
    assert_type(model, Transformer)
    print(model.apply({"params": params}, tokens_BT), llama_jax.__version__)
    assert_type(llama_jax.capture(model, params, tokens_BT, ["resid_post"]), tuple[jax.Array, dict[str, jax.Array]])
    print({name: (row.shape, row.meaning) for name, row in llama_jax.CAPTURED.items()})

    sampling = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=100, num_samples=4)
    assert_type(llama_jax.generate(model, params, tokenizer, ["ROMEO:"], sampling), list[Generated])
    for piece in llama_jax.stream(model, params, tokenizer, "ROMEO:", sampling):
        assert_type(piece, str)
    assert_type(llama_jax.loglikelihood(model, params, tokenizer, [("My kingdom for a", " horse")]), list[Likelihood])
    llama_jax.save("out", model, params, tokenizer)
    llama_jax.convert("out", "out-hf", to="hf", dtype="bfloat16")
    assert_type(llama_jax.rolling_loglikelihood(model, params, tokenizer, ["A horse!"]), list[Likelihood])


def train(mask_of: Callable[[jax.Array], Mask]) -> None:
    optimizer = llama_jax.make_optimizer(OptimizerConfig(), 100)
    assert_type(optimizer, optax.GradientTransformation)
    assert_type(llama_jax.learning_rate(OptimizerConfig(), 100), optax.Schedule)
    assert callable(llama_jax.make_train_step(Transformer(PRESETS["tiny"]), optimizer, TrainingConfig()))
    assert_type(mask_of(jnp.zeros((1, 8), jnp.int32)).segment_ids_BT, jax.Array | None)


def mistakes() -> None:
    llama_jax.genrate  # pyright: ignore  # noqa: B018
    Sampling(temprature=0.8)  # pyright: ignore
    PRESETS["tiny"].num_layer  # pyright: ignore  # noqa: B018
    llama_jax.load(3)  # pyright: ignore
    llama_jax.convert("out", "out-hf", to="huggingface")  # pyright: ignore
