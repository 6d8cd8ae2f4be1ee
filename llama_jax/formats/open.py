"""Which format a folder of weights has."""

from pathlib import Path

from llama_jax.config import Verification
from llama_jax.errors import DataError
from llama_jax.formats.base import WeightSource
from llama_jax.formats.hf import HFFolder
from llama_jax.formats.meta import MetaFolder
from llama_jax.formats.run import RunFolder


def open_source(path: str | Path, *, verify: Verification = "full") -> WeightSource:
    """Open a run directory (its newest step), DIR/checkpoints/STEP, a Hugging Face folder or a Meta folder.

    Only descriptions are read yet, no weights. Tensors are compared with their checksums, where there are some, as they are
    read: all of them, a sample or none (those of a Meta folder always). Raises DataError where the folder is none of these or
    contradicts itself.
    """
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"no checkpoint at {path}: there is no such folder.")
    found = [kind for kind in (RunFolder, MetaFolder) if kind.is_one(path)]
    # a config.json alone makes a Hugging Face folder only where nothing else is there: the other formats may hold one too
    if HFFolder.has_weights(path) if found else HFFolder.is_one(path):
        found.append(HFFolder)
    if len(found) > 1:
        raise DataError(f"{path} holds weights twice, as a {' and as a '.join(kind.format for kind in found)}; move one of them "
                        "away.")
    if found:
        return found[0](path, verify=verify)
    raise DataError(f"no checkpoint at {path}: expected a run directory of train.py with checkpoints/<step> (or one of these "
                    "steps), a Hugging Face folder with config.json and *.safetensors, or a Meta folder with params.json and "
                    "consolidated.*.pth.")
