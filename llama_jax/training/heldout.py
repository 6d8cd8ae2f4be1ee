"""The loss on held-out text during training."""

import math
from collections.abc import Sequence

from jax.sharding import Mesh

from llama_jax.config import TrainingConfig
from llama_jax.data.loader import load_heldout
from llama_jax.data.windows import TokenSource
from llama_jax.training.compiled import Program
from llama_jax.training.metrics import bits_per_byte, perplexity
from llama_jax.training.step import Params


def heldout_metrics(program: Program, params: Params, *, sources: Sequence[TokenSource], mesh: Mesh,
                    config: TrainingConfig) -> dict[str, float]:
    """Measure loss (nats per token), perplexity and bits per byte on each held-out source.

    Takes the first `config.heldout_batches` batches of a source, or all of it where that is 0. With several sources the names
    end in /SOURCE.
    """
    values = {}
    for source in sources:
        batches = load_heldout(source, mesh, batch_size=config.batch_size, limit=config.heldout_batches)
        sums = [program.eval_step(params, batch) for batch in batches]
        nats = sum(float(batch_sums["nll"]) for batch_sums in sums)
        tokens = sum(float(batch_sums["tokens"]) for batch_sums in sums)
        loss = nats / tokens if tokens else math.nan
        suffix = "" if len(sources) == 1 else f"/{source.name}"
        values |= {
            f"heldout_loss{suffix}": loss,
            f"heldout_perplexity{suffix}": perplexity(loss),
            f"heldout_bits_per_byte{suffix}": bits_per_byte(loss, source.predicted_per_byte),
        }
    return values
