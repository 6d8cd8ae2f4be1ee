"""An output head that shares the weights of the embedding, against one of its own.

Run:      python -m llama_jax ablate --config configs/ablations/tied_head.py
Paper:    Press & Wolf 2017 (arXiv 1608.05859); LLaMA's head is its own
Question: What does a head of its own bring, and does it pay for its parameters?
Arms:     untied (baseline), tied
Expected: In small models tying costs little or helps, with 12% fewer parameters here.
Hours:    6 runs of 200 steps, about 4 minutes on two CPU cores
"""

from llama_jax.config import Study, model_arm
from llama_jax.config.presets import study_base


def get_study() -> Study:
    base = study_base()
    return Study(
        paper="Press & Wolf 2017, arXiv 1608.05859",
        question="What does an output head of its own bring, and does it pay for its parameters?",
        expected="In small models tying costs little or helps, with fewer parameters.",
        hours="6 runs of 200 steps, about 4 minutes on two CPU cores",
        arms=(model_arm(base, "untied"), model_arm(base, "tied", tied_embeddings=True)),
        baseline="untied",
    )
