"""The file samples.txt: continuations of the configured prompts, written at the end of a run."""

from pathlib import Path

from llama_jax.config import TrainingConfig
from llama_jax.inference.generate import generate_long_text
from llama_jax.inference.sampling import Sampling
from llama_jax.model.decoder import Transformer
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.training.step import Params


def write_samples(workdir: Path, model: Transformer, *, params: Params, tokenizer: Tokenizer,
                  config: TrainingConfig) -> list[str]:
    """Write samples.txt with a continuation of each of `config.sample_prompts`, and return the texts."""
    sampling = Sampling(max_new_tokens=config.sample_tokens, temperature=0.8, top_p=1.0, seed=config.seed % 2**32)
    texts = [generate_long_text(model, params, tokenizer, prompt, sampling, prompt_index=place)
             for place, prompt in enumerate(config.sample_prompts)]
    (workdir / "samples.txt").write_text("\n\n---\n\n".join(texts) + "\n")
    return texts
