"""Configuration of a run: frozen dataclasses that validate themselves, their JSON form, config files and presets."""

from llama_jax.config.fields import from_dict, to_dict
from llama_jax.config.file import config_from_dict, load_config, load_study
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
    Verification,
)
from llama_jax.config.study import Arm, Study, model_arm

__all__ = [
    "PRESETS", "Arm", "CheckpointConfig", "ComputeConfig", "Config", "DataConfig", "EvalConfig", "MeshConfig", "ModelConfig",
    "OptimizerConfig", "RopeScaling", "Study", "TrainingConfig", "Verification", "config_from_dict", "from_dict",
    "load_config", "load_study", "model_arm", "paper_optimizer", "paper_sources", "to_dict",
]
