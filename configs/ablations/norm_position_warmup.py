"""Pre-norm against post-norm, each with and without learning-rate warmup.

Run:      python -m llama_jax ablate --config configs/ablations/norm_position_warmup.py
Paper:    Xiong et al. 2020 (arXiv 2002.04745)
Question: Does post-norm need warmup, and pre-norm not?
Arms:     post+warmup (baseline), post, pre+warmup, pre
Expected: Post-norm without warmup trains badly or not at all; pre-norm does as well without as with.
Hours:    12 runs of 200 steps, about 5 minutes on two CPU cores

Pre-norm is RMSNorm before each sublayer and before the head, post-norm is RMSNorm after each residual sum. The peak learning rate
is the same in all arms; without warmup the first update uses it. The model has 8 layers of width 64, the batch 8 rows of 64
tokens and the peak is 5e-3: where post-norm is about to fail. With the 4 layers, batch and peak of the other studies it trains
without warmup as well, because initial matrices of standard deviation 0.02 are small at these widths. A run of post-norm that
fails does not diverge: its loss stays at that of token frequencies, about 5.65.
"""

from dataclasses import replace

from llama_jax.config import PRESETS, Arm, Config, Study
from llama_jax.config.presets import study_base


def _variant(norm_position: str, warmup_steps: int) -> Config:
    base = study_base(replace(PRESETS["tiny"], num_layers=8, dim=64, ffn_dim=192, norm_position=norm_position))
    return replace(base, optimizer=replace(base.optimizer, peak_lr=5e-3, warmup_steps=warmup_steps),
                   data=replace(base.data, sequence_length=64), training=replace(base.training, batch_size=8))


def get_study() -> Study:
    return Study(
        paper="Xiong et al. 2020, arXiv 2002.04745",
        question="Does post-norm need learning-rate warmup, and pre-norm not?",
        expected="Post-norm without warmup trains badly or not at all; pre-norm does as well without warmup as with it.",
        hours="12 runs of 200 steps, about 5 minutes on two CPU cores",
        arms=(Arm("post+warmup", _variant("post", 80)), Arm("post", _variant("post", 0)),
              Arm("pre+warmup", _variant("pre", 80)), Arm("pre", _variant("pre", 0))),
        baseline="post+warmup",
    )
