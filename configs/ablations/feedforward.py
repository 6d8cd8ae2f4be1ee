"""The eight feed-forward layers of Shazeer's table, at equal parameters.

Run:      python -m llama_jax ablate --config configs/ablations/feedforward.py
Paper:    Shazeer 2020 (arXiv 2002.05202), table 1
Question: Are gated feed-forward layers better than plain ones with as many parameters?
Arms:     relu (baseline), gelu, swish of width 576; glu, bilinear, reglu, geglu, swiglu of width 384
Expected: All gated layers beat all plain ones; GEGLU and SwiGLU are best.
Hours:    24 runs of 200 steps, about 16 minutes on two CPU cores

A gated layer has three matrices, so that it takes 2/3 of a plain one's width: 3 x 384 = 2 x 576.
"""

from llama_jax.config import Study, model_arm
from llama_jax.config.presets import study_base


def get_study() -> Study:
    base = study_base()
    plain = [model_arm(base, kind, feedforward=kind, ffn_dim=576) for kind in ("relu", "gelu", "swish")]
    gated = [model_arm(base, kind, feedforward=kind, ffn_dim=384) for kind in ("glu", "bilinear", "reglu", "geglu", "swiglu")]
    return Study(
        paper="Shazeer 2020, arXiv 2002.05202, table 1",
        question="Are gated feed-forward layers better than plain ones with as many parameters?",
        expected="All gated layers beat all plain ones; GEGLU and SwiGLU are best.",
        hours="24 runs of 200 steps, about 16 minutes on two CPU cores",
        arms=(*plain, *gated),
        baseline="relu",
    )
