"""Every choice of a run: frozen dataclasses that check themselves, their JSON form, and the presets."""

from llama_jax.config.fields import from_dict, nearest, to_dict
from llama_jax.config.schema import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RopeScaling,
    TrainingConfig,
)

__all__ = [
    "CheckpointConfig", "Config", "DataConfig", "EvalConfig", "MeshConfig", "ModelConfig", "OptimizerConfig", "RopeScaling",
    "TrainingConfig", "from_dict", "nearest", "to_dict",
]
