"""Llama 2 13B (arXiv 2307.09288).

Run:      python train.py --config configs/llama2_13b.py
Hardware: 128 A100-80GB or better
Tokens:   2.0T in batches of 4M (1,024 x 4,096)
Hours:    not in this project's sources
Data:     prepared folders; its mixture is not published, Table 1 of LLaMA stands in.
"""

from dataclasses import replace

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, MeshConfig, TrainingConfig
from llama_jax.config.presets import PRESETS, paper_optimizer, paper_sources


def get_config() -> Config:
    return Config(
        model=PRESETS["llama2-13b"],
        compute=ComputeConfig(remat="linear"),
        optimizer=replace(paper_optimizer(3.0e-4), eps=1e-5),
        data=DataConfig(sources=paper_sources(), heldout=("data/heldout",), sequence_length=4096),
        training=TrainingConfig(num_steps=476_837, batch_size=1024, heldout_every=1000, heldout_batches=8),
        mesh=MeshConfig(data=1, fsdp=-1),
        checkpoint=CheckpointConfig(every=1000, keep=2, keep_every=50_000),
    )
