"""Position encodings, and how the loss goes on beyond the length of the training rows.

Run:      python -m llama_jax ablate --config configs/ablations/positions.py
Paper:    Shaw et al. 2018 (arXiv 1803.02155), Su et al. 2021 (arXiv 2104.09864), Press et al. 2022 (arXiv 2108.12409),
          Ma et al. 2024 (arXiv 2406.09897)
Question: Which encoding gives the lowest loss, and which keeps it at twice and four times the trained length?
Arms:     rope (baseline), rope3d, sinusoidal, learned, shaw, alibi, none
Expected: Relative encodings (RoPE, Shaw) beat absolute ones. Beyond the trained length ALiBi keeps its loss, RoPE's rises, and
          that of absolute positions rises most.
Hours:    21 runs of 200 steps, about 17 minutes on two CPU cores

Trained on rows of 128 tokens, measured on held-out rows of 256 and 512 too. The model has 512 learned positions, of which those
from 128 on are never trained. Chunks of 3D-RPE have 64 tokens, so that training rows hold two.
"""

from dataclasses import replace

from llama_jax.config import PRESETS, Study, model_arm
from llama_jax.config.presets import study_base


def get_study() -> Study:
    base = study_base(replace(PRESETS["tiny"], max_length=512))
    plain = [model_arm(base, kind, position=kind) for kind in ("sinusoidal", "learned", "shaw", "alibi", "none")]
    return Study(
        paper="Shaw et al. 2018, arXiv 1803.02155; Su et al. 2021, arXiv 2104.09864; Press et al. 2022, arXiv 2108.12409; "
              "Ma et al. 2024, arXiv 2406.09897",
        question="Which position encoding gives the lowest loss, and which keeps it beyond the trained length?",
        expected="Relative encodings (RoPE, Shaw) beat absolute ones. Beyond the trained length ALiBi keeps its loss, RoPE's "
                 "rises, and that of absolute positions rises most.",
        hours="21 runs of 200 steps, about 17 minutes on two CPU cores",
        arms=(model_arm(base, "rope"), model_arm(base, "rope3d", position="rope3d", rope_chunk=64), *plain),
        baseline="rope",
        lengths=(256, 512),
    )
