"""Fewer key-value heads: loss against the size of the cache and the speed of decoding.

Run:      python -m llama_jax ablate --config configs/ablations/kv_heads.py
Paper:    Shazeer 2019 (arXiv 1911.02150), Ainslie et al. 2023 (arXiv 2305.13245); Llama 2 70B and Llama 3 have 8 kv heads
Question: What does sharing keys and values cost in loss, and what does it save in decoding?
Arms:     mha (16 kv heads, baseline), gqa-8, gqa-4, gqa-2, mqa (1 kv head); 16 query heads of width 8
Expected: The loss rises a little as heads are shared; the cache shrinks in proportion, and decoding gets faster.
Hours:    15 runs of 200 steps, about 13 minutes on two CPU cores

Decoding is timed for 16 texts behind prompts of 256 tokens. Arms with fewer kv heads have fewer parameters, too.
"""

from dataclasses import replace

from llama_jax.config import PRESETS, Study, model_arm
from llama_jax.config.presets import study_base


def get_study() -> Study:
    base = study_base(replace(PRESETS["tiny"], num_heads=16, num_kv_heads=16, max_length=512))
    return Study(
        paper="Shazeer 2019, arXiv 1911.02150; Ainslie et al. 2023, arXiv 2305.13245",
        question="What does sharing keys and values between heads cost in loss, and what does it save in decoding?",
        expected="The loss rises a little as heads are shared; the cache shrinks in proportion, and decoding gets faster.",
        hours="15 runs of 200 steps, about 13 minutes on two CPU cores",
        arms=(model_arm(base, "mha"), *(model_arm(base, f"gqa-{heads}", num_kv_heads=heads) for heads in (8, 4, 2)),
              model_arm(base, "mqa", num_kv_heads=1)),
        baseline="mha",
        decode=True,
    )
