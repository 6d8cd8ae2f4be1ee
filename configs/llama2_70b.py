"""Llama 2 70B, grouped-query attention with 8 kv heads (arXiv 2307.09288).

Run:      python train.py --config configs/llama2_70b.py
Hardware: 1,024 A100-80GB or better; tensor inside a host
Tokens:   2.0T in batches of 4M (1,024 x 4,096)
Hours:    not in this project's sources
Data:     prepared folders; its mixture is not published, Table 1 of LLaMA stands in.
"""

from dataclasses import replace

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, MeshConfig, TrainingConfig
from llama_jax.config.presets import PRESETS, paper_optimizer, paper_sources


def get_config() -> Config:
    return Config(
        model=PRESETS["llama2-70b"],
        compute=ComputeConfig(remat="linear"),
        optimizer=replace(paper_optimizer(1.5e-4), eps=1e-5),
        data=DataConfig(sources=paper_sources(), heldout=("data/heldout",), sequence_length=4096),
        training=TrainingConfig(num_steps=476_837, batch_size=1024, heldout_every=1000, heldout_batches=8),
        mesh=MeshConfig(data=1, fsdp=-1, tensor=8),
        checkpoint=CheckpointConfig(every=1000, keep=2, keep_every=50_000),
    )
