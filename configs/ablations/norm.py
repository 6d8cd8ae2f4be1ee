"""RMSNorm against LayerNorm.

Run:      python -m llama_jax ablate --config configs/ablations/norm.py
Paper:    Zhang & Sennrich 2019 (arXiv 1910.07467), the normalisation of LLaMA (section 2.2)
Question: Does leaving out LayerNorm's mean and bias cost anything?
Arms:     rmsnorm (baseline), layernorm
Expected: The same loss; RMSNorm is faster.
Hours:    6 runs of 200 steps, about 4 minutes on two CPU cores
"""

from llama_jax.config import Study, model_arm
from llama_jax.config.presets import study_base


def get_study() -> Study:
    base = study_base()
    return Study(
        paper="Zhang & Sennrich 2019, arXiv 1910.07467",
        question="Does leaving out LayerNorm's mean and bias cost anything?",
        expected="The same loss; RMSNorm is faster.",
        hours="6 runs of 200 steps, about 4 minutes on two CPU cores",
        arms=(model_arm(base, "rmsnorm"), model_arm(base, "layernorm", norm="layernorm")),
        baseline="rmsnorm",
    )
