"""Configuration of a run: frozen dataclasses that validate themselves, their JSON form, config files and presets."""

from llama_jax.config.fields import from_dict, to_dict
from llama_jax.config.file import config_from_dict, load_config
from llama_jax.config.model import ComputeConfig, ModelConfig, RopeScaling
from llama_jax.config.presets import PRESETS, paper_optimizer, paper_sources
from llama_jax.config.schema import (
    CheckpointConfig,
    Config,
    DataConfig,
    EvalConfig,
    MeshConfig,
    OptimizerConfig,
    TrainingConfig,
)

__all__ = [
    "PRESETS", "CheckpointConfig", "ComputeConfig", "Config", "DataConfig", "EvalConfig", "MeshConfig", "ModelConfig",
    "OptimizerConfig", "RopeScaling", "TrainingConfig", "config_from_dict", "from_dict", "load_config",
    "paper_optimizer", "paper_sources", "to_dict",
]
