"""What convert is told; the work, and jax with it, is imported when it begins."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Convert:
    """Bring weights from one format into another, tensor by tensor."""

    source: str
    """A run directory of train.py (its newest step), DIR/checkpoints/STEP, a Hugging Face or a Meta folder."""
    target: str
    """Folder to make; what exists is never overwritten."""
    to: Literal["orbax", "hf", "meta"]
    """orbax: a run directory that every --checkpoint and --init_from takes; hf: for transformers; meta: params.json and
    consolidated.NN.pth."""
    dtype: Literal["", "float32", "bfloat16", "float16"] = ""
    """What weights are stored in; empty: as in the source."""
    num_kv_heads: int = 0
    """Average neighbouring kv heads until so many are left (grouped-query attention; 1: multi-query); 0: keep them."""
    max_length: int = 0
    """Context length of the target; 0: the source's. A Meta folder does not say its own: see docs/CONVERT.md."""
    meta_shards: int = 1
    """Files of a Meta folder, one a model-parallel shard."""
    verify: bool = False
    """Compare the logits of source and target on random tokens."""

    def run(self) -> None:
        """Convert, and say what came out."""
        from llama_jax.cli.convert import run_convert

        run_convert(self)
