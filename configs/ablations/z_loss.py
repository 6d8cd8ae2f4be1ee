"""The z-loss, which keeps the logits from drifting.

Run:      python -m llama_jax ablate --config configs/ablations/z_loss.py
Paper:    PaLM (arXiv 2204.02311), section 5: 1e-4 times log(Z)^2; LLaMA has none
Question: Does the z-loss change the loss or the stability of a small run?
Arms:     none (baseline), 1e-4, 1e-3
Expected: No difference in loss; PaLM has it for stability at large scale.
Hours:    9 runs of 200 steps, about 6 minutes on two CPU cores
"""

from dataclasses import replace

from llama_jax.config import Arm, Config, Study
from llama_jax.config.presets import study_base


def _with_weight(z_loss: float) -> Config:
    base = study_base()
    return replace(base, training=replace(base.training, z_loss=z_loss))


def get_study() -> Study:
    return Study(
        paper="PaLM, arXiv 2204.02311, section 5",
        question="Does the z-loss change the loss or the stability of a small run?",
        expected="No difference in loss; it is for stability at large scale.",
        hours="9 runs of 200 steps, about 6 minutes on two CPU cores",
        arms=(Arm("none", _with_weight(0.0)), Arm("1e-4", _with_weight(1e-4)), Arm("1e-3", _with_weight(1e-3))),
        baseline="none",
    )
