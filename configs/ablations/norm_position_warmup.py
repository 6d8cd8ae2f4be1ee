"""Pre-norm against post-norm, each with and without learning-rate warmup.

Run:      python -m llama_jax ablate --config configs/ablations/norm_position_warmup.py
Paper:    Xiong et al. 2020 (arXiv 2002.04745)
Question: Does post-norm need warmup, and pre-norm not?
Arms:     post+warmup (baseline), post, pre+warmup, pre
Expected: Post-norm without warmup trains badly or not at all; pre-norm does as well without as with.
Hours:    12 runs of 200 steps, about 8 minutes on two CPU cores

Pre-norm is RMSNorm before each sublayer and before the head, post-norm is RMSNorm after each residual sum. The model is deeper
than that of the other studies, 8 layers of width 64, and the peak learning rate twice theirs, because with 4 layers at 4e-3
post-norm trains without warmup as well. The peak is the same in all arms; without warmup the first update uses it.
"""

from dataclasses import replace

from llama_jax.config import PRESETS, Arm, Config, Study
from llama_jax.config.presets import study_base


def _variant(norm_position: str, warmup_steps: int) -> Config:
    base = study_base(replace(PRESETS["tiny"], num_layers=8, dim=64, ffn_dim=192, norm_position=norm_position))
    return replace(base, optimizer=replace(base.optimizer, peak_lr=8e-3, warmup_steps=warmup_steps))


def get_study() -> Study:
    return Study(
        paper="Xiong et al. 2020, arXiv 2002.04745",
        question="Does post-norm need learning-rate warmup, and pre-norm not?",
        expected="Post-norm without warmup trains badly or not at all; pre-norm does as well without warmup as with it.",
        hours="12 runs of 200 steps, about 8 minutes on two CPU cores",
        arms=(Arm("post+warmup", _variant("post", 40)), Arm("post", _variant("post", 0)),
              Arm("pre+warmup", _variant("pre", 40)), Arm("pre", _variant("pre", 0))),
        baseline="post+warmup",
    )
