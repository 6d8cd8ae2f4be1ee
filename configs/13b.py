"""LLaMA-13B as Table 2 of arXiv 2302.13971 trains it.

Run:      python train.py --config configs/13b.py
Hardware: A100-80GB or better, 128 of them
Tokens:   1.0T in batches of 4M (2,048 x 2,048)
Hours:    135,168 A100 hours in the paper (Table 15)
Data:     folders made by `python -m llama_jax prepare`, one per source of Table 1 (2.1).
"""

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, MeshConfig, TrainingConfig
from llama_jax.config.presets import PRESETS, paper_optimizer, paper_sources


def get_config() -> Config:
    return Config(
        model=PRESETS["llama-13b"],
        compute=ComputeConfig(remat="linear"),
        optimizer=paper_optimizer(3.0e-4),
        data=DataConfig(sources=paper_sources(), heldout=("data/heldout",), sequence_length=2048),
        training=TrainingConfig(num_steps=238_419, batch_size=2048, heldout_every=1000, heldout_batches=8),
        mesh=MeshConfig(data=1, fsdp=-1),
        checkpoint=CheckpointConfig(every=1000, keep=2, keep_every=50_000),
    )
