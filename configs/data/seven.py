"""A small LLaMA on the seven sources of Table 1 of arXiv 2302.13971, with their shares.

Run:      python train.py --config configs/data/seven.py
Hardware: two CPU cores, two to three minutes
Data:     folders made by `python -m llama_jax prepare`, one per source, as data/wikipedia, all with one tokenizer of 1,024
          pieces (`python -m llama_jax tokenizer train --vocab_size 1024`).
"""

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, OptimizerConfig, TrainingConfig
from llama_jax.config.presets import PRESETS, paper_sources


def get_config() -> Config:
    return Config(
        model=PRESETS["tiny"],
        compute=ComputeConfig(dtype="float32", scan_layers=False),
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=50),
        data=DataConfig(sources=paper_sources(), sequence_length=128),
        training=TrainingConfig(num_steps=700, batch_size=16, log_every=20, heldout_every=350),
        checkpoint=CheckpointConfig(every=350),
    )
