"""Attention within documents alone, against attention over everything before in the row.

Run:      python -m llama_jax ablate --config configs/ablations/document_masking.py
Paper:    Llama 3 (arXiv 2407.21783), section 3.2, masks documents from each other; LLaMA's paper does not say
Question: Does keeping the documents of a packed row apart lower the loss?
Arms:     masked (baseline), unmasked
Expected: Little difference in rows of usual length (Llama 3 saw it matter for very long rows only).
Hours:    6 runs of 200 steps, about 4 minutes on two CPU cores

Documents here are the speeches of Tiny Shakespeare, about 60 tokens each. Unlike web pages they answer each other, so that seeing
the speech before can help: each arm is evaluated as it was trained, masked or not.
"""

from dataclasses import replace

from llama_jax.config import Arm, Study
from llama_jax.config.presets import study_base


def get_study() -> Study:
    base = study_base()
    base = replace(base, data=replace(base.data, document_separator="\n\n"))
    unmasked = replace(base, training=replace(base.training, separate_documents=False))
    return Study(
        paper="Llama 3, arXiv 2407.21783, section 3.2",
        question="Does keeping the documents of a packed row apart lower the loss?",
        expected="Little difference in rows of usual length.",
        hours="6 runs of 200 steps, about 4 minutes on two CPU cores",
        arms=(Arm("masked", base), Arm("unmasked", unmasked)),
        baseline="masked",
    )
