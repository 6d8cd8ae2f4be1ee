"""Learning rate and batch size of the config tiny, at equal tokens.

Run:      python -m llama_jax ablate --config configs/ablations/lr_batch.py
Paper:    Touvron et al. 2023 (arXiv 2302.13971), table 2; McCandlish et al. 2018 (arXiv 1812.06162) on batch sizes
Question: Which learning rate and batch size suit tiny, and does the best rate grow with the batch?
Arms:     learning rates 2e-3, 4e-3, 8e-3 x batches of 8, 16 and 32 rows; lr4e-3-batch16 (that of tiny) is the baseline
Expected: Small batches are best at equal tokens; larger ones want a higher rate.
Hours:    27 runs of 410 thousand tokens, about 18 minutes on two CPU cores

All arms read the same rows: 400 steps of 8, 200 of 16, 100 of 32; a tenth of them is warmup.
"""

from dataclasses import replace

from llama_jax.config import Arm, Study
from llama_jax.config.presets import study_base


def _arm(peak_lr: float, batch_size: int) -> Arm:
    base = study_base()
    steps = base.training.num_steps * base.training.batch_size // batch_size
    rate = f"{peak_lr:.0e}".replace("e-0", "e-")
    return Arm(f"lr{rate}-batch{batch_size}", replace(
        base,
        optimizer=replace(base.optimizer, peak_lr=peak_lr, warmup_steps=steps // 10),
        training=replace(base.training, num_steps=steps, batch_size=batch_size, heldout_every=steps // 4),
        checkpoint=replace(base.checkpoint, every=steps // 2),
    ))


def get_study() -> Study:
    return Study(
        paper="Touvron et al. 2023, arXiv 2302.13971, table 2; McCandlish et al. 2018, arXiv 1812.06162",
        question="Which learning rate and batch size suit tiny, and does the best rate grow with the batch?",
        expected="Small batches are best at equal tokens; larger ones want a higher rate.",
        hours="27 runs of 410 thousand tokens, about 18 minutes on two CPU cores",
        arms=tuple(_arm(peak_lr, batch_size) for batch_size in (8, 16, 32) for peak_lr in (2e-3, 4e-3, 8e-3)),
        baseline="lr4e-3-batch16",
    )
