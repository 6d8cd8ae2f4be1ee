"""TinyLlama-1.1B's shape: the model for one GPU.

Run:      python train.py --config configs/1b.py
Hardware: one 80 GB GPU; any number with --mesh.fsdp -1
Tokens:   105B in batches of 0.5M (256 x 2,048); raise --training.num_steps for more
Hours:    about 490 on one card at 60,000 tokens/s
Data:     prepared folders with Table 1's shares.
"""

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, MeshConfig, TrainingConfig
from llama_jax.config.presets import PRESETS, paper_optimizer, paper_sources


def get_config() -> Config:
    return Config(
        model=PRESETS["tinyllama-1b"],
        compute=ComputeConfig(remat="linear"),
        optimizer=paper_optimizer(4.0e-4),
        data=DataConfig(sources=paper_sources(), heldout=("data/heldout",), sequence_length=2048),
        training=TrainingConfig(num_steps=200_000, batch_size=256, accumulation_steps=16, heldout_every=1000, heldout_batches=8),
        mesh=MeshConfig(data=-1),
        checkpoint=CheckpointConfig(every=1000, keep=2, keep_every=50_000),
    )
