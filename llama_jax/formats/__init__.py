"""Weights on disk: run directories of this project, Hugging Face folders and Meta folders, read and written.

`open_source` opens a folder of any format as a WeightSource, and `load` turns it into a model, its parameters and its tokenizer.
`save` writes these three as a run directory; `write_run`, `write_hf` and `write_meta` write a folder tensor by tensor. `mapping`
holds the table of parameter names in the three formats. Importing this package imports no jax; opening a folder does.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr

if TYPE_CHECKING:
    from llama_jax.formats.base import STORED_DTYPES, WeightSource, check_vocabulary, tokenizer_of
    from llama_jax.formats.checkpoints import Checkpoints
    from llama_jax.formats.hf import HFFolder, write_hf
    from llama_jax.formats.loading import abstract_params, load, load_params, load_source, read_params
    from llama_jax.formats.mapping import Tensor, tensors
    from llama_jax.formats.meta import MetaFolder, write_meta
    from llama_jax.formats.open import open_source
    from llama_jax.formats.run import RunFolder, checkpoint_steps, find_checkpoint, write_run
    from llama_jax.formats.saving import save

_MODULES = {
    "STORED_DTYPES": "base",
    "WeightSource": "base",
    "check_vocabulary": "base",
    "tokenizer_of": "base",
    "Checkpoints": "checkpoints",
    "HFFolder": "hf",
    "write_hf": "hf",
    "abstract_params": "loading",
    "load": "loading",
    "load_params": "loading",
    "load_source": "loading",
    "read_params": "loading",
    "Tensor": "mapping",
    "tensors": "mapping",
    "MetaFolder": "meta",
    "write_meta": "meta",
    "open_source": "open",
    "RunFolder": "run",
    "checkpoint_steps": "run",
    "find_checkpoint": "run",
    "write_run": "run",
    "save": "saving",
}
"""The module of each name, which is imported when the name is first asked for."""

__all__ = [
    "STORED_DTYPES", "Checkpoints", "HFFolder", "MetaFolder", "RunFolder", "Tensor", "WeightSource", "abstract_params",
    "check_vocabulary", "checkpoint_steps", "find_checkpoint", "load", "load_params", "load_source", "open_source",
    "read_params", "save", "tensors", "tokenizer_of", "write_hf", "write_meta", "write_run",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
