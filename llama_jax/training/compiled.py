"""The jitted functions of a run with their shardings, for the devices of this machine or of one that is only described."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llama_jax.batch import Batch
from llama_jax.config import Config
from llama_jax.data.loader import batch_sharding
from llama_jax.errors import ConfigError
from llama_jax.formats.checkpoints import abstract_arrays
from llama_jax.model.decoder import Transformer
from llama_jax.model.positions import described_by_position
from llama_jax.model.tree import decay_mask, shardings_of
from llama_jax.ops.attention import choose
from llama_jax.ops.spec import AttentionSpec, described_by_training
from llama_jax.parallel.attention import is_sliced
from llama_jax.parallel.mesh import check_batch, check_length, check_model
from llama_jax.training.optimizer import make_optimizer
from llama_jax.training.step import TrainState, init_state, make_eval_step, make_train_step


class Program(NamedTuple):
    """The jitted functions of a run on a mesh, with the shapes and shardings of their arguments."""

    model: Transformer
    """The model for everything but training, with rows of any length and any mask."""
    init: Callable[[], TrainState]
    """() -> the state before the first step, sharded over the mesh."""
    train_step: Callable
    """(state, batch) -> (state, metrics), see `make_train_step`; donates the state that it is given."""
    eval_step: Callable
    """(params, batch) -> sums over held-out tokens, see `make_eval_step`."""
    abstract_state: TrainState
    """ShapeDtypeStructs of the train state, with shardings."""
    abstract_batch: Batch
    """ShapeDtypeStructs of a batch, with shardings."""
    attention: str
    """The attention backend of the steps, and why it was chosen, for the log."""


def build(config: Config, mesh: Mesh) -> Program:
    """Jit the functions of a run with their shardings; nothing is compiled or allocated, and the devices need not be present.

    Trace and compile inside `jax.set_mesh(mesh)`. Raises ConfigError where model, rows, backend or memory do not fit the mesh.
    """
    check_config_on_mesh(config, mesh)
    attention, why = choose(config.compute.attention, attention_spec(config, mesh))
    model = Transformer(config.model, replace(config.compute, attention=attention))
    optimizer = make_optimizer(config.optimizer, config.training.num_steps, decayed=decay_mask(config.model))
    start = partial(init_state, model, optimizer, seed=config.training.parameter_seed)
    abstract_state = jax.eval_shape(start)
    state_shardings = shardings_of(config.model, mesh, tree=abstract_state)
    replicated, rows = NamedSharding(mesh, PartitionSpec()), batch_sharding(mesh)
    return Program(
        model=Transformer(config.model, replace(config.compute, attention="auto")),
        init=jax.jit(start, out_shardings=state_shardings),
        train_step=jax.jit(
            make_train_step(model, optimizer, config.training),
            in_shardings=(state_shardings, rows),
            out_shardings=(state_shardings, replicated),
            donate_argnums=0,
        ),
        eval_step=jax.jit(
            make_eval_step(model, config.training),
            in_shardings=(state_shardings.params, rows),
            out_shardings=replicated,
        ),
        abstract_state=abstract_arrays(abstract_state, state_shardings),
        abstract_batch=_abstract_batch(config, rows),
        attention=f"{attention} ({why})",
    )


def check_config_on_mesh(config: Config, mesh: Mesh) -> None:
    """Raise ConfigError where model, batch, row length or rematerialisation do not suit the mesh."""
    check_model(config.model, mesh)
    check_batch(config.training.batch_size, config.training.accumulation_steps, mesh=mesh)
    check_length(config.data.sequence_length, mesh)
    device = mesh.devices.flat[0]
    memories = [memory.kind for memory in device.addressable_memories()]
    if config.compute.remat == "offload" and "pinned_host" not in memories:
        raise ConfigError(f"compute.remat offload keeps activations in pinned host memory, which {device.device_kind} does not "
                          f"have (it has {', '.join(memories)}); take linear or full.")


def attention_spec(config: Config, mesh: Mesh) -> AttentionSpec:
    """Describe the attention of training rows, by which a backend is chosen."""
    c = config.model
    return AttentionSpec(device=mesh.devices.flat[0], length=config.data.sequence_length, head_dim=c.head_size,
                         dtype=jnp.dtype(config.compute.dtype),
                         described=described_by_training(config.training.separate_documents) | described_by_position(c),
                         sliced=is_sliced(c.num_heads, c.num_kv_heads, mesh=mesh))


def _abstract_batch(config: Config, sharding: NamedSharding) -> Batch:
    """ShapeDtypeStructs of a batch of training.batch_size rows."""
    shape = (config.training.batch_size, config.data.sequence_length)
    dtypes = Batch(jnp.int32, jnp.int32, jnp.int32, jnp.int32, jnp.float32)
    return Batch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for dtype in dtypes))
