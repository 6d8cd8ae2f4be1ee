"""The file samples.txt: continuations of the configured prompts, written at the end of a run."""

from collections.abc import Sequence
from pathlib import Path

from llama_jax.config import TrainingConfig
from llama_jax.files.atomic import write_atomic
from llama_jax.inference.generate import generate_long_text
from llama_jax.inference.sampling import Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.training.step import Params

SAMPLES_FILE = "samples.txt"
"""File of a run directory that holds samples of the trained model."""


def make_samples(model: Transformer, params: Params, *, tokenizer: Tokenizer, config: TrainingConfig) -> list[str]:
    """A continuation of each of `config.sample_prompts`."""
    sampling = Sampling(max_new_tokens=config.sample_tokens, temperature=0.8, top_p=1.0, seed=config.seed % 2**32)
    return [generate_long_text(model, params, tokenizer, prompt, sampling, prompt_index=place)
            for place, prompt in enumerate(config.sample_prompts)]


def write_samples(workdir: Path, texts: Sequence[str]) -> None:
    """Write samples.txt; raises StorageError where that fails."""
    write_atomic(workdir / SAMPLES_FILE, ("\n\n---\n\n".join(texts) + "\n").encode())
