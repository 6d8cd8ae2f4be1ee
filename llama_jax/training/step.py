"""The train step and the eval step: pure functions of arrays, to be jitted by the loop or compiled by a plan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax import Array, lax

from llama_jax.batch import Batch
from llama_jax.config import TrainingConfig
from llama_jax.model.decoder import Transformer, head_matrix
from llama_jax.training.loss import next_token_loss

Params = Any
Metrics = dict[str, Array]


@struct.dataclass
class TrainState:
    """All that training changes; arrays only."""

    step: Array
    """int32, optimizer steps done."""
    params: Params
    opt_state: optax.OptState


def init_state(model: Transformer, optimizer: optax.GradientTransformation, seed: int, *, boxed: bool = False) -> TrainState:
    """A fresh state from `seed`; boxed leaves the logical axes on the parameters (for `sharding.shardings`)."""
    params = model.init(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))["params"]
    opt_state = optimizer.init(params)
    state = TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=opt_state)
    return state if boxed else nn.unbox(state)


def make_loss(model: Transformer, config: TrainingConfig) -> Callable[[Params, Batch], tuple[Array, tuple[Array, Array]]]:
    """(params, batch) -> (loss sum, (nll sum, sum of weights)), sums over the batch's tokens."""

    def loss(params: Params, batch: Batch):
        where = (batch.positions, batch.segment_ids) if config.separate_documents else ()
        h_BTD = model.apply({"params": params}, batch.tokens, *where, method=Transformer.hidden)
        with jax.named_scope("loss"):
            total, nll = next_token_loss(
                h_BTD, head_matrix(params), batch.targets, batch.weights, z_loss=config.z_loss, chunk=config.loss_chunk
            )
        return total, (nll, batch.weights.sum())

    return loss


def make_train_step(
    model: Transformer, optimizer: optax.GradientTransformation, config: TrainingConfig
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """(state, batch) -> (state, {loss, grad_norm, tokens}); loss is the mean nll of the batch's weighted tokens."""
    loss = make_loss(model, config)

    def mean_loss(params: Params, batch: Batch, tokens: Array):
        """The batch's sums over `tokens`: a micro-batch's own mean would weigh it wrongly."""
        return jax.tree.map(lambda x: x / tokens, loss(params, batch))

    def gradients(params: Params, batch: Batch, tokens: Array):
        (_, (nll, _)), grads = jax.value_and_grad(mean_loss, has_aux=True)(params, batch, tokens)
        return grads, nll

    def accumulated(params: Params, batch: Batch, tokens: Array):
        """The backward pass adds to one set of gradients in place: no micro-batch has a set of its own."""
        sums = jax.tree.map(lambda x: jax.new_ref(jnp.zeros_like(x)), params)

        def micro(nll_sum, batch: Batch):
            total, pull, (nll, _) = jax.vjp(lambda params: mean_loss(params, batch, tokens), params, has_aux=True)
            pull.with_refs(sums)(jnp.ones_like(total))
            return nll_sum + nll, None

        nll, _ = lax.scan(micro, jnp.float32(0), micro_batches(batch, config.accumulation_steps))
        return jax.tree.map(lambda ref: ref[...], sums), nll

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        tokens = jnp.maximum(batch.weights.sum(), 1.0)
        grads, nll = (gradients if config.accumulation_steps == 1 else accumulated)(state.params, batch, tokens)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        metrics = {"loss": nll, "grad_norm": optax.tree.norm(grads), "tokens": tokens}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return train_step


def make_eval_step(model: Transformer, config: TrainingConfig) -> Callable[[Params, Batch], Metrics]:
    """(params, batch) -> {nll, tokens}: sums, so that batches of different weight add up."""
    loss = make_loss(model, config)

    def eval_step(params: Params, batch: Batch) -> Metrics:
        _, (nll, tokens) = loss(params, batch)
        return {"nll": nll, "tokens": tokens}

    return eval_step


def micro_batches(batch: Batch, count: int) -> Batch:
    """(B, T) fields as (count, B / count, T); row r goes to micro-batch r % count, so each device keeps its rows."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), batch)
