"""The optimizer of section 2.3, built with optax: AdamW, gradient clipping and a cosine learning-rate schedule."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from llama_jax.config import ModelConfig, OptimizerConfig
from llama_jax.model.tree import decay_mask


def learning_rate(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Learning-rate schedule, update number (from 1) -> learning rate: linear warmup, then cosine decay (section 2.3).

    Update n of the warmup uses peak_lr * n / warmup_steps, so the first update trains and update `warmup_steps` uses the peak;
    the last one, `num_steps`, uses peak_lr * final_lr_ratio. Without a warmup the first update uses the peak. transformers'
    cosine schedule is the same curve one update later: it gives update n the value at n - 1.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.peak_lr,
        warmup_steps=min(max(config.warmup_steps, 1), num_steps - 1),
        decay_steps=num_steps,
        end_value=config.peak_lr * config.final_lr_ratio,
    )


def make_optimizer(
    config: OptimizerConfig, num_steps: int, *, decayed: Callable[[Any], Any] | None = None
) -> optax.GradientTransformation:
    """Make the optimizer: gradient clipping by global norm, then AdamW with weight decay of matrices only (section 2.3).

    `decayed` is (params) -> tree of bools: which parameters weight decay shrinks. The default is `model.tree.decay_mask` of a
    LLaMA of any size, since only names are compared; it raises ConfigError for parameters of other names.
    """
    rate = learning_rate(config, num_steps)
    adamw = optax.adamw(
        lambda updates_done: rate(updates_done + 1),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decayed or decay_mask(ModelConfig()),
    )
    if config.moment_dtype != "float32":
        adamw = _stored_as(config.moment_dtype, adamw)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def _stored_as(dtype: str, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with every float array of its state stored as `dtype` between updates, which compute in float32."""

    def cast(state: optax.OptState, dtype: str) -> optax.OptState:
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None):
        updates, state = inner.update(updates, cast(state, "float32"), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(inner.init(params), dtype), update)
