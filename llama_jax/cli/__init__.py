"""The commands. `options` holds what each is told, `parsing` reads it from a command line; a module per command does its work.

Importing this package imports no jax; the table of the commands is in `llama_jax.__main__`.
"""

from llama_jax.cli.data_options import PrepareOptions, TokenizerOptions
from llama_jax.cli.find_config import find_config, packaged_configs
from llama_jax.cli.options import (
    AblateOptions,
    ConvertOptions,
    EvaluateOptions,
    GenerateOptions,
    InspectOptions,
    PlanOptions,
    SamplingOptions,
    ScoreOptions,
    ServeOptions,
    TrainOptions,
)
from llama_jax.cli.parsing import apply_overrides, parse_ablate, parse_options, parse_plan, parse_train

__all__ = [
    "AblateOptions", "ConvertOptions", "EvaluateOptions", "GenerateOptions", "InspectOptions", "PlanOptions", "PrepareOptions",
    "SamplingOptions", "ScoreOptions", "ServeOptions", "TokenizerOptions", "TrainOptions", "apply_overrides", "find_config",
    "packaged_configs", "parse_ablate", "parse_options", "parse_plan", "parse_train",
]
