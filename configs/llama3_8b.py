"""Llama 3 8B (arXiv 2407.21783): vocabulary 128,256, theta 500,000, no attention across documents.

Run:      python train.py --config configs/llama3_8b.py
Hardware: 64 H100 or better
Tokens:   15T in batches of 4M (512 x 8,192)
Hours:    not in this project's sources
Data:     prepared folders; its mixture is not published, Table 1 of LLaMA stands in.
"""

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, MeshConfig, TrainingConfig
from llama_jax.config.presets import PRESETS, paper_optimizer, paper_sources


def get_config() -> Config:
    return Config(
        model=PRESETS["llama3-8b"],
        compute=ComputeConfig(remat="linear"),
        optimizer=paper_optimizer(3.0e-4),
        data=DataConfig(sources=paper_sources(), heldout=("data/heldout",), sequence_length=8192),
        training=TrainingConfig(num_steps=3_576_279, batch_size=512, heldout_every=1000, heldout_batches=8),
        mesh=MeshConfig(data=1, fsdp=-1),
        checkpoint=CheckpointConfig(every=1000, keep=2, keep_every=50_000),
    )
