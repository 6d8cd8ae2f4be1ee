"""From a folder to a model, its parameters and its tokenizer: the one door."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama_jax.config import MeshConfig
from llama_jax.formats.base import Source, abstract_params, check_vocabulary, open_source, read_params
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.formats.run import RunFolder
from llama_jax.model.decoder import Transformer
from llama_jax.tokenizer.base import Tokenizer


def load(path: str | Path, mesh: MeshConfig | None = None) -> tuple[Transformer, Any, Tokenizer]:
    """(model, params, tokenizer) of a run directory (its newest step), DIR/checkpoints/STEP, a Hugging Face or a Meta folder.

    Parameters are float32 and lie on the first device, or as the sharding rules say on `mesh`. Raises DataError where
    there is nothing to load or it is damaged, ConfigError where tokenizer, model and mesh do not fit each other.
    """
    return load_source(open_source(path), mesh)


def load_source(
    source: Source, mesh: MeshConfig | None = None, report: Callable[[int], None] = lambda count: None
) -> tuple[Transformer, Any, Tokenizer]:
    """`load` of a folder that is open; `report` hears how many more tensors of another's format are read."""
    tokenizer = source.tokenizer()
    check_vocabulary(source, tokenizer)
    model = replace(source.config, attention="auto")  # what trained may be another machine's, and need not know every mask
    params = params_of(source, abstract_params(model, mesh), report)
    return Transformer(model), params, tokenizer


def params_of(source: Source, target: Any, report: Callable[[int], None] = lambda count: None) -> Any:
    """The parameters of a source, laid out as `target` (ShapeDtypeStructs with shardings) says.

    Of a run, orbax reads for every device what lies there, and casts.
    """
    if not isinstance(source, RunFolder):
        return read_params(source, target, report)
    checkpoints = Checkpoints(source.folder / "checkpoints")
    try:
        return checkpoints.restore_params(source.step, target)
    finally:
        checkpoints.close()
