"""Pre-norm against post-norm, each with and without learning-rate warmup.

Run:      python -m llama_jax ablate --config configs/ablations/norm_position_warmup.py
Paper:    Xiong et al. 2020 (arXiv 2002.04745)
Question: Does post-norm need warmup, and pre-norm not?
Arms:     post+warmup (baseline), post, pre+warmup, pre
Expected: Post-norm without warmup trains badly or not at all; pre-norm does as well without as with.
Hours:    12 runs of 200 steps, about 8 minutes on two CPU cores

Pre-norm is RMSNorm before each sublayer and before the head, post-norm is RMSNorm after each residual sum. The peak learning rate
is the same in all arms; without warmup the first update uses it.
"""

from dataclasses import replace

from llama_jax.config import Arm, Config, Study
from llama_jax.config.presets import study_base


def _variant(norm_position: str, warmup_steps: int) -> Config:
    base = study_base()
    return replace(base, model=replace(base.model, norm_position=norm_position),
                   optimizer=replace(base.optimizer, warmup_steps=warmup_steps))


def get_study() -> Study:
    return Study(
        paper="Xiong et al. 2020, arXiv 2002.04745",
        question="Does post-norm need learning-rate warmup, and pre-norm not?",
        expected="Post-norm without warmup trains badly or not at all; pre-norm does as well without warmup as with it.",
        hours="12 runs of 200 steps, about 8 minutes on two CPU cores",
        arms=(Arm("post+warmup", _variant("post", 20)), Arm("post", _variant("post", 0)),
              Arm("pre+warmup", _variant("pre", 20)), Arm("pre", _variant("pre", 0))),
        baseline="post+warmup",
    )
