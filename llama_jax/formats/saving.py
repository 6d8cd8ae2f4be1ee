"""From a model and its parameters in memory to a folder that everything here reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llama_jax.config import ModelConfig
from llama_jax.errors import ConfigError
from llama_jax.formats.base import STORED_DTYPES
from llama_jax.formats.mapping import Tensor, weights_of
from llama_jax.formats.new_folder import new_folder
from llama_jax.formats.run import config_around_model, write_run
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import name_of, unboxed
from llama_jax.tokenizer.base import Tokenizer


def save(folder: str | Path, model: Transformer, params: Any, tokenizer: Tokenizer | None = None) -> None:
    """Save a model as a folder that `load`, every command and `convert` read: a run directory with one checkpoint, step 0.

    Every architecture can be saved, and every parameter keeps its dtype and its bits. The folder appears under its name when it
    is complete; after a kill `.NAME.<pid>.unfinished` stays beside it.

    Args:
        folder: A folder that does not exist yet, or is empty.
        model: The model; its architecture and its compute settings are saved.
        params: Its parameter tree, of arrays of jax (on one device or sharded over those of this process) or numpy in float32,
            bfloat16 or float16; flax's metadata boxes are taken off.
        tokenizer: Its tokenizer; None: the folder has none, and `load` gives None in its place.

    Raises:
        ConfigError: The folder holds something; names, shapes or dtypes of `params` are not the model's; the tokenizer is another
            library's, or has more pieces than the model has ids; or the program runs in several processes.
        DataError: The folder cannot be written. Nothing is left under its name.
    """
    folder = Path(folder)
    if jax.process_count() > 1:
        raise ConfigError("save works in programs of one process, and this one runs in several; gather the parameters in "
                          "one, and save them there.")
    arrays = _storable(unboxed(model.config, params))
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise ConfigError("tokenizer should be what llama_jax.tokenizer.load_tokenizer gives, or None, got "
                          f"{tokenizer!r:.60}.")
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise ConfigError(f"the tokenizer has {tokenizer.vocab_size} pieces and the model {model.config.vocab_size} ids; save "
                          "the one that the model was trained with.")
    place = str(folder.absolute())
    config = config_around_model(model.config, model.compute, name=Path(place).name, origin=place)
    with new_folder(folder, needed=sum(x.nbytes for x in arrays.values())) as unfinished:
        write_run(unfinished, config, weights=_tensors_of(arrays, model.config), tokenizer=tokenizer)


def _storable(params: Any) -> dict[str, jax.Array | np.ndarray]:
    """The arrays of a parameter tree by name; raises ConfigError for a dtype that weights are not stored in."""
    leaves = jax.tree.flatten_with_path(params)[0]
    arrays = {name_of(path): leaf if isinstance(leaf, jax.Array) else np.asarray(leaf) for path, leaf in leaves}
    for name, x in arrays.items():
        if x.dtype.name not in STORED_DTYPES:
            raise ConfigError(f"{name} is {x.dtype.name}, and parameters are saved as {', '.join(STORED_DTYPES)}; cast it first.")
    return arrays


def _tensors_of(arrays: dict[str, jax.Array | np.ndarray], config: ModelConfig) -> Iterator[tuple[Tensor, np.ndarray]]:
    """All tensors of the model in order; host memory holds one parameter with all its layers."""
    for weight in weights_of(config):
        array = np.asarray(arrays[weight.ours])
        if weight.stacked:
            yield from ((Tensor(weight, layer), ours) for layer, ours in enumerate(array))
        else:
            yield Tensor(weight), array
