"""The model that a command asks for with --checkpoint and --tensor, loaded with a progress bar."""

import sys

import jax

from llama_jax.config import MeshConfig, Verification
from llama_jax.errors import ConfigError
from llama_jax.formats.open import open_source
from llama_jax.formats.run import RunFolder
from llama_jax.inference.params import DecodingParams
from llama_jax.inference.reading import InferenceDtype, Observer, read_for_inference
from llama_jax.model.decoder import Transformer
from llama_jax.model.tree import parameters
from llama_jax.parallel.malloc import keep_freed_memory
from llama_jax.parallel.xla_flags import set_inference_flags
from llama_jax.terminal import progress_bar
from llama_jax.tokenizer.base import Tokenizer


def load_model(
    checkpoint: str, tensor: int, *, data: int = 1, dtype: InferenceDtype = "stored", verify: Verification = "full",
    observe: Observer | None = None,
) -> tuple[Transformer, DecodingParams, Tokenizer]:
    """(model, parameters, tokenizer) on a mesh of data x tensor devices; `data` -1 takes all devices there are.

    The other arguments are those of `read_for_inference`.
    """
    check_devices(tensor)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    source = open_source(checkpoint, verify=verify)
    count = sum(leaf.shape[0] if leaf.stacked else 1 for leaf in parameters(source.config).values())
    with progress_bar("tensors", lambda done, seconds: f"{done:,.0f} of {count:,}", total=count) as advance:
        loaded = read_for_inference(source, MeshConfig(data=data, tensor=tensor), dtype=dtype, report=advance, observe=observe)
    if source.format != RunFolder.format:  # such a folder may hold several tokenizers: say which was chosen
        print(f"{checkpoint}: {source.format}; tokenizer: {loaded[2]}", file=sys.stderr)
    return loaded


def check_devices(tensor: int) -> None:
    """Start jax's devices, with the compiler flags of inference; raises ConfigError where there are fewer than `tensor`."""
    set_inference_flags()
    if not 0 < tensor <= jax.device_count():
        raise ConfigError(f"tensor must lie in [1, {jax.device_count()}], the devices there are, got {tensor}.")
