"""The quickstart: a small LLaMA on the complete Tiny Shakespeare, which comes with the package.

Run:      python train.py --config configs/tiny.py
Hardware: two CPU cores, two to three minutes
"""

from llama_jax.config import CheckpointConfig, ComputeConfig, Config, DataConfig, OptimizerConfig, TrainingConfig
from llama_jax.config.presets import PRESETS


def get_config() -> Config:
    return Config(
        model=PRESETS["tiny"],
        compute=ComputeConfig(dtype="float32", scan_layers=False),
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=50),
        data=DataConfig(sources=("embedded:tinyshakespeare",), heldout_fraction=0.1, sequence_length=128),
        training=TrainingConfig(num_steps=700, batch_size=16, log_every=20, heldout_every=350,
                                sample_prompts=("ROMEO:", "First Citizen:\n")),
        checkpoint=CheckpointConfig(every=350),
    )
