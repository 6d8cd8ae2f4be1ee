"""The train step and the evaluation step as pure functions, which `training.compiled` jits with their shardings."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array, lax

from llama_jax.batch import Batch
from llama_jax.config import TrainingConfig
from llama_jax.errors import ConfigError
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.model.tree import name_of
from llama_jax.training.loss import next_token_loss

Params = Any
Metrics = dict[str, Array]


@struct.dataclass
class TrainState:
    """State of training, a pytree of arrays: step count, parameters and optimizer state."""

    step: Array
    """int32 scalar: number of optimizer steps done."""
    params: Params
    opt_state: optax.OptState


def init_state(model: Transformer, optimizer: optax.GradientTransformation, *, seed: int) -> TrainState:
    """Make the state before the first step: parameters drawn at random from `seed`, and a fresh optimizer state."""
    params = model.init(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))["params"]
    opt_state = optimizer.init(params)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=opt_state)


def make_loss(model: Transformer, config: TrainingConfig) -> Callable[[Params, Batch], tuple[Array, tuple[Array, Array]]]:
    """Make the loss function, (params, batch) -> (loss, (nll, tokens)): sums in nats over the batch's weighted tokens.

    loss is nll, the negative log-likelihood, plus the z-loss; tokens is the sum of weights.
    """

    def loss(params: Params, batch: Batch):
        where = (batch.positions, batch.segment_ids) if config.separate_documents else ()
        h_BTD = model.apply({"params": params}, batch.tokens, *where, method=Transformer.hidden)
        with jax.named_scope("loss"):
            total, nll = next_token_loss(
                h_BTD, head_matrix(params), batch.targets, batch.weights, z_loss=config.z_loss, chunk=model.compute.loss_chunk
            )
        return total, (nll, batch.weights.sum())

    return loss


def make_train_step(
    model: Transformer, optimizer: optax.GradientTransformation, config: TrainingConfig
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Make the train step, (state, batch) -> (state, metrics).

    Metrics are float32 scalars: loss, the mean negative log-likelihood in nats per predicted token; grad_norm, the global norm
    of the gradients before clipping; tokens, the number of predicted tokens (the sum of the batch's weights). The step raises
    ConfigError for parameters of 16 bits, which most updates are too small to change.
    """
    loss = make_loss(model, config)

    def mean_loss(params: Params, batch: Batch, *, tokens: Array):
        """The sums of a micro-batch over the `tokens` of the whole batch: its own mean would give its tokens another weight."""
        return jax.tree.map(lambda x: x / tokens, loss(params, batch))

    def gradients(params: Params, batch: Batch, *, tokens: Array):
        (_, (nll, _)), grads = jax.value_and_grad(partial(mean_loss, tokens=tokens), has_aux=True)(params, batch)
        return grads, nll

    def accumulated_gradients(params: Params, batch: Batch, *, tokens: Array):
        """Gradients of all micro-batches, which the backward pass adds up in place: none has a set of its own in memory."""
        sums = jax.tree.map(lambda x: jax.new_ref(jnp.zeros_like(x)), params)

        def micro(nll_sum, batch: Batch):
            total, pull, (nll, _) = jax.vjp(lambda params: mean_loss(params, batch, tokens=tokens), params, has_aux=True)
            pull.with_refs(sums)(jnp.ones_like(total))
            return nll_sum + nll, None

        nll, _ = lax.scan(micro, jnp.float32(0), micro_batches(batch, config.accumulation_steps))
        return jax.tree.map(lambda ref: ref[...], sums), nll

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        _check_precision(state.params)
        tokens = jnp.maximum(batch.weights.sum(), 1.0)
        gradients_of = gradients if config.accumulation_steps == 1 else accumulated_gradients
        grads, nll = gradients_of(state.params, batch, tokens=tokens)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = {"loss": nll, "grad_norm": optax.tree.norm(grads), "tokens": tokens}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return train_step


def _check_precision(params: Params) -> None:
    """Raise ConfigError where a parameter has fewer than 32 bits: bfloat16 loses updates smaller than 1/256 of a weight."""
    for path, x in jax.tree.flatten_with_path(params)[0]:
        if x.dtype.itemsize < 4:
            raise ConfigError(f"training updates float32 parameters, and {name_of(path)} is {x.dtype.name}, which small updates "
                              "do not change; load them without dtype, or cast them to float32 before the state is made.")


def make_eval_step(model: Transformer, config: TrainingConfig) -> Callable[[Params, Batch], Metrics]:
    """Make the evaluation step for held-out text, (params, batch) -> {nll, tokens}, both summed over the batch.

    nll is in nats; tokens is the number of predicted tokens. Sums over batches give the exact mean, whatever their padding.
    """
    loss = make_loss(model, config)

    def eval_step(params: Params, batch: Batch) -> Metrics:
        _, (nll, tokens) = loss(params, batch)
        return {"nll": nll, "tokens": tokens}

    return eval_step


def micro_batches(batch: Batch, count: int) -> Batch:
    """Split a batch into `count` micro-batches: (B, T) fields become (count, B / count, T).

    Row r goes to micro-batch r % count, so that each device keeps its rows.
    """
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), batch)
