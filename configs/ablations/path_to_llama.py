"""From the Transformer of 2017 to LLaMA, one change after another.

Run:      python -m llama_jax ablate --config configs/ablations/path_to_llama.py
Paper:    Touvron et al. 2023 (arXiv 2302.13971), section 2.2
Question: What does each of LLaMA's changes to the Transformer add to those before it?
Arms:     vanilla (post-norm LayerNorm, ReLU, sinusoids, biases; baseline), then in turn + pre-norm, + RMSNorm, + SwiGLU, + RoPE;
          llama is the last, without biases
Expected: The loss falls along the path; most with pre-norm, SwiGLU and RoPE.
Hours:    18 runs of 200 steps, about 15 minutes on two CPU cores

The peak learning rate is 2e-3 and warmup takes 80 of the 200 steps, in all arms. With the rate and the warmup of the other
studies (4e-3, 20 steps) `vanilla` did not get past the frequencies of the tokens, nor with 2e-3 and 20 or 4e-3 and 80,
one seed each.
"""

from dataclasses import replace

from llama_jax.config import PRESETS, Arm, Study
from llama_jax.config.presets import VANILLA, path_to_llama, study_base


def get_study() -> Study:
    tiny = PRESETS["tiny"]
    vanilla = replace(VANILLA, vocab_size=tiny.vocab_size, dim=tiny.dim, num_layers=tiny.num_layers, num_heads=tiny.num_heads,
                      num_kv_heads=tiny.num_kv_heads, ffn_dim=4 * tiny.dim, max_length=tiny.max_length)
    optimizer = replace(study_base().optimizer, peak_lr=2e-3, warmup_steps=80)
    arms = {name: replace(study_base(model), optimizer=optimizer) for name, model in path_to_llama(vanilla).items()}
    return Study(
        paper="Touvron et al. 2023, arXiv 2302.13971, section 2.2",
        question="What does each of LLaMA's changes to the Transformer of 2017 add to those before it?",
        expected="The loss falls along the path; most with pre-norm, SwiGLU and RoPE.",
        hours="18 runs of 200 steps, about 15 minutes on two CPU cores",
        arms=tuple(Arm(name, config) for name, config in arms.items()),
        baseline="vanilla",
        path=True,
    )
