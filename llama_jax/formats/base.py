"""The interface of a folder of weights, whatever its format, and the checks that every format makes."""

from pathlib import Path
from typing import Protocol

import ml_dtypes
import numpy as np

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.config.compare import different_meaning
from llama_jax.errors import ConfigError, DataError
from llama_jax.formats.mapping import TABLE, Tensor
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import NoTokenizer

STORED_DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}
"""The dtypes that weights may be stored in, by name."""

EMBEDDING_TENSOR, HEAD_TENSOR = Tensor(TABLE[0]), Tensor(TABLE[-1])
"""The embedding, and the output head, which a model with tied embeddings does not store."""

_EXPONENT_BITS = {"float32": 0x7F800000, "bfloat16": 0x7F80, "float16": 0x7C00}


class WeightSource(Protocol):
    """A folder of weights in any format, opened to be read tensor by tensor."""

    folder: Path
    format: str
    """Name of the format as messages show it, such as "Hugging Face folder"."""
    config: ModelConfig
    """The architecture of the model whose weights these are."""
    compute: ComputeConfig
    """How the model is computed where nothing else is asked for: in the dtype of its weights, or as the run computed it."""
    padded: bool
    """Whether the model's vocabulary may be larger than the tokenizer's; folders of other projects often pad theirs."""
    dtype: np.dtype
    """The one of STORED_DTYPES that holds every tensor without loss."""

    def read(self, tensor: Tensor, *, check_finite: bool = True) -> np.ndarray:
        """Return one tensor (one layer of a stacked parameter) in this project's axes and the dtype it is stored in.

        Raises DataError where it cannot be read or, unless `check_finite` is False, holds a value that is not finite.
        """

    def tokenizer(self) -> Tokenizer:
        """Load the folder's tokenizer; raises NoTokenizer where there is none, DataError where it is damaged."""


def lossless_dtype(dtypes: set[np.dtype]) -> np.dtype:
    """The one of STORED_DTYPES that holds every value of all `dtypes`."""
    return next(iter(dtypes)) if len(dtypes) == 1 else STORED_DTYPES["float32"]


def compute_for(dtype: np.dtype) -> ComputeConfig:
    """How a model computes whose weights are stored in `dtype`: in float32, or in bfloat16 where they are stored in 16 bits."""
    return ComputeConfig(dtype="float32" if dtype == STORED_DTYPES["float32"] else "bfloat16")


def require_finite(array: np.ndarray, name: str) -> np.ndarray:
    """Return `array`, which has one of STORED_DTYPES; raises DataError with `name` where a value is NaN or infinite."""
    bits = array.view(np.uint32 if array.dtype.itemsize == 4 else np.uint16)
    # NaN and infinity have all bits of the exponent set; comparing bits works for bfloat16 too, and copies no floats
    exponent = bits.dtype.type(_EXPONENT_BITS[array.dtype.name])
    bad = (bits & exponent) == exponent
    if bad.any():
        raise DataError(f"{name} holds {int(bad.sum())} value(s) that are NaN or infinite; get the weights again.")
    return array


def check_reads_back(config: ModelConfig, read_back: ModelConfig, *, format: str) -> None:
    """Raise ConfigError where the config file of another format, once written, reads back as another model than `config`.

    That is a choice which the format has no word for, and which its readers would compute as a LLaMA's.
    """
    if changed := different_meaning(config, read_back):
        choices = ", ".join(f"model.{key} {wanted}" for key, (wanted, _) in changed.items())
        raise ConfigError(f"{format} cannot express this model ({choices}); only a run directory (orbax) holds every model.")


def tokenizer_of(source: WeightSource) -> Tokenizer | None:
    """The tokenizer in the source's folder, or None; raises ConfigError where it does not fit the model."""
    try:
        tokenizer = source.tokenizer()
    except NoTokenizer:
        return None
    check_vocabulary(source, tokenizer)
    return tokenizer


def check_vocabulary(source: WeightSource, tokenizer: Tokenizer) -> None:
    """Raise ConfigError where the tokenizer's vocabulary is not the model's."""
    pieces, ids = tokenizer.vocab_size, source.config.vocab_size
    if pieces > ids or (pieces < ids and not source.padded):
        raise ConfigError(f"the tokenizer of {source.folder} has {pieces} pieces and the model {ids}; put the tokenizer there "
                          "that it was trained with.")
