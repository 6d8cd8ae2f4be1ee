"""Initialisation from existing weights (`init_from`): opens their folder, and checks their model and tokenizer."""

from pathlib import Path

from llama_jax.config import Config, ModelConfig
from llama_jax.config.compare import different_meaning
from llama_jax.errors import ConfigError
from llama_jax.files.remote import fetched
from llama_jax.formats.base import WeightSource, check_vocabulary, tokenizer_of
from llama_jax.formats.loading import load_params
from llama_jax.formats.open import open_source
from llama_jax.formats.run import checkpoint_steps
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.training.step import TrainState


def open_initial_weights(config: Config, workdir: Path) -> WeightSource | None:
    """Open the folder of weights that `config.init_from` names.

    Returns:
        None where none is named, or where the run has a checkpoint already and resumes from that.

    Raises:
        ConfigError: the weights are of another model than the config's.
        DataError: the folder holds no weights.
    """
    if not config.init_from or checkpoint_steps(workdir):
        return None
    source = open_source(fetched(config.init_from))
    check_initial_model(source.config, config.model, folder=config.init_from)
    return source


def check_initial_model(given: ModelConfig, wanted: ModelConfig, *, folder: str) -> None:
    """Raise ConfigError where weights of the model `given` do not fit the model `wanted`; the message has the options to add."""
    if different := different_meaning(given, wanted):
        options = " ".join(f"--model.{key} {_as_typed(theirs)}" for key, (theirs, _) in different.items())
        raise ConfigError(f"the weights of {folder} belong to another model than the config's; add {options}")


def _as_typed(json_value: str) -> str:
    """Write a field's JSON value as the command line takes it: strings without quotes, and Python's True and False."""
    return json_value.replace('"', "").replace("true", "True").replace("false", "False")


def required_tokenizer(source: WeightSource, chosen_path: str) -> Tokenizer:
    """The tokenizer that the weights were trained with, which the run must use.

    Args:
        source: the weights; their folder usually holds the tokenizer.
        chosen_path: data.tokenizer, which names it where the folder does not; may be empty.

    Raises:
        ConfigError: the two are different tokenizers, or there is none.
    """
    own = tokenizer_of(source)
    chosen = load_tokenizer(fetched(chosen_path)) if chosen_path else None
    if not (own or chosen):
        raise ConfigError(f"{source.folder} holds no tokenizer; set --data.tokenizer to the one its weights were trained with.")
    if own and chosen and own.sha256 != chosen.sha256:
        raise ConfigError(f"data.tokenizer {chosen_path} is not the tokenizer that lies in {source.folder}, which its weights "
                          "were trained with; leave data.tokenizer empty.")
    if chosen:
        check_vocabulary(source, chosen)
    return own or chosen


def load_initial_params(state: TrainState, source: WeightSource) -> TrainState:
    """Replace the parameters of `state` with those of `source`, sharded alike."""
    return state.replace(params=load_params(source, state.params))
