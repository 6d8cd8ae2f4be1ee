"""Scoring texts: exact log-probabilities of continuations and documents, with prefix sharing between requests."""

from llama_jax.scoring.likelihood import (
    Likelihood,
    encode_pair,
    loglikelihood,
    loglikelihood_batches,
    rolling_loglikelihood,
    rolling_windows,
    token_loglikelihood,
)
from llama_jax.scoring.prefix_trees import (
    PackedRow,
    PrefixTree,
    TreeBatch,
    build_prefix_trees,
    pack_rows,
    tree_batches,
)

__all__ = [
    "Likelihood",
    "PackedRow",
    "PrefixTree",
    "TreeBatch",
    "build_prefix_trees",
    "encode_pair",
    "loglikelihood",
    "loglikelihood_batches",
    "pack_rows",
    "rolling_loglikelihood",
    "rolling_windows",
    "token_loglikelihood",
    "tree_batches",
]
