"""Fewer kv heads by up-training a multi-head checkpoint, against training with fewer heads from the beginning.

Run:      python -m llama_jax ablate --config configs/ablations/gqa_uptraining.py
Paper:    Ainslie et al. 2023 (arXiv 2305.13245), section 2.1 and figure 5
Question: Do 5% of the steps bring a checkpoint with averaged kv heads close to the multi-head model it came from?
Arms:     mha (16 kv heads, baseline), gqa-4 and mqa from scratch; gqa-4+uptrained and mqa+uptrained, which begin with the last
          checkpoint of mha, its kv heads averaged, and train 10 of 200 steps more
Expected: Up-trained GQA comes close to MHA; MQA stays further behind.
Hours:    15 runs, 9 of 200 steps and 6 of 10, about 8 minutes on two CPU cores

The up-training reads the beginning of the stream once more, with a learning rate of a quarter of the peak.
"""

from dataclasses import replace

from llama_jax.config import PRESETS, Arm, Study, model_arm
from llama_jax.config.presets import study_base

UPTRAINING_SHARE = 0.05
"""Steps of up-training as a share of the steps before (Ainslie et al. 2023, alpha)."""


def get_study() -> Study:
    base = study_base(replace(PRESETS["tiny"], num_heads=16, num_kv_heads=16))
    steps = round(UPTRAINING_SHARE * base.training.num_steps)
    short = replace(base, optimizer=replace(base.optimizer, peak_lr=base.optimizer.peak_lr / 4, warmup_steps=2),
                    training=replace(base.training, num_steps=steps))

    def uptrained(name: str, num_kv_heads: int) -> Arm:
        return replace(model_arm(short, name, num_kv_heads=num_kv_heads), starts_from="mha")

    return Study(
        paper="Ainslie et al. 2023, arXiv 2305.13245, section 2.1",
        question="Do 5% of the steps bring a checkpoint with averaged kv heads close to the multi-head model it came from?",
        expected="Up-trained GQA comes close to MHA; MQA stays further behind.",
        hours="15 runs, 9 of 200 steps and 6 of 10, about 8 minutes on two CPU cores",
        arms=(model_arm(base, "mha"), model_arm(base, "gqa-4", num_kv_heads=4), uptrained("gqa-4+uptrained", 4),
              model_arm(base, "mqa", num_kv_heads=1), uptrained("mqa+uptrained", 1)),
        baseline="mha",
    )
