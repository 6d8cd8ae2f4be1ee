"""From raw text to batches on devices: token shards, mixtures of sources, and a record of what a run has read."""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.data.batches import batch_of_rows, batch_of_tokens
    from llama_jax.data.corpus import Corpus, open_corpus
    from llama_jax.data.hash_split import HashSplit, is_held_out
    from llama_jax.data.hub import HubSplit
    from llama_jax.data.inputs import find_inputs, read_input
    from llama_jax.data.ledger import SourceTotals, source_totals
    from llama_jax.data.loader import batch_sharding, load_batches, load_heldout
    from llama_jax.data.manifest import Manifest, Shard, read_manifest, verify_shards
    from llama_jax.data.mixture import Mixture
    from llama_jax.data.permutation import permutation_keys, permuted
    from llama_jax.data.position import DataPosition, EpochCut, SourceProgress
    from llama_jax.data.prepare import prepare_data
    from llama_jax.data.reader import SourceReader
    from llama_jax.data.sources import find_text_files, read_documents
    from llama_jax.data.windows import Span, TokenRow, TokenSource

_MODULES = {
    "Corpus": "corpus",
    "DataPosition": "position",
    "EpochCut": "position",
    "HashSplit": "hash_split",
    "HubSplit": "hub",
    "Manifest": "manifest",
    "Mixture": "mixture",
    "Shard": "manifest",
    "SourceProgress": "position",
    "SourceReader": "reader",
    "SourceTotals": "ledger",
    "Span": "windows",
    "TokenRow": "windows",
    "TokenSource": "windows",
    "batch_of_rows": "batches",
    "batch_of_tokens": "batches",
    "batch_sharding": "loader",
    "find_inputs": "inputs",
    "find_text_files": "sources",
    "is_held_out": "hash_split",
    "load_batches": "loader",
    "load_heldout": "loader",
    "open_corpus": "corpus",
    "permutation_keys": "permutation",
    "permuted": "permutation",
    "prepare_data": "prepare",
    "read_documents": "sources",
    "read_input": "inputs",
    "read_manifest": "manifest",
    "source_totals": "ledger",
    "verify_shards": "manifest",
}
"""The module of every public name. It is imported when the name is first used: the worker processes of `prepare_data` import
this package and must not load jax."""

__all__ = [
    "Corpus",
    "DataPosition",
    "EpochCut",
    "HashSplit",
    "HubSplit",
    "Manifest",
    "Mixture",
    "Shard",
    "SourceProgress",
    "SourceReader",
    "SourceTotals",
    "Span",
    "TokenRow",
    "TokenSource",
    "batch_of_rows",
    "batch_of_tokens",
    "batch_sharding",
    "find_inputs",
    "find_text_files",
    "is_held_out",
    "load_batches",
    "load_heldout",
    "open_corpus",
    "permutation_keys",
    "permuted",
    "prepare_data",
    "read_documents",
    "read_input",
    "read_manifest",
    "source_totals",
    "verify_shards",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
