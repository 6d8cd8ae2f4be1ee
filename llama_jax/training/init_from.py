"""Where a run's first weights come from: the seed, or a folder that `init_from` names."""

from pathlib import Path

from llama_jax.config import Config, ModelConfig
from llama_jax.config.compare import FREE_TO_CHANGE, meaning
from llama_jax.errors import ConfigError
from llama_jax.formats.base import WeightSource, check_vocabulary, tokenizer_of
from llama_jax.formats.loading import load_params
from llama_jax.formats.open import open_source
from llama_jax.formats.run import steps_of
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.training.step import TrainState


def starting_point(config: Config, workdir: Path) -> WeightSource | None:
    """The folder to begin from; None where there is none, or where the run has a checkpoint of its own already.

    Raises ConfigError where its model is not the config's, DataError where it holds no weights.
    """
    if not config.init_from or steps_of(workdir):
        return None
    source = open_source(config.init_from)
    check_shape(source.config, config.model, config.init_from)
    return source


def check_shape(given: ModelConfig, wanted: ModelConfig, where: str) -> None:
    """Raise ConfigError, with the options that mend it, where weights of `given` would mean something else in `wanted`."""
    theirs, ours = meaning(given), meaning(wanted)
    if different := [key for key in theirs if key not in FREE_TO_CHANGE and theirs[key] != ours[key]]:
        options = " ".join(f"--model.{key} {theirs[key]}" for key in different)
        for json_way, typed in (('"', ""), ("true", "True"), ("false", "False")):
            options = options.replace(json_way, typed)
        raise ConfigError(f"the weights of {where} belong to another model than the config's; add {options}")


def tokenizer_for(source: WeightSource, named: str) -> Tokenizer:
    """The tokenizer the weights were trained with, which the run must use.

    It lies beside them, or is `named` (data.tokenizer). Raises ConfigError where they are two, or there is none.
    """
    own, chosen = tokenizer_of(source), load_tokenizer(named) if named else None
    if not (own or chosen):
        raise ConfigError(f"{source.folder} holds no tokenizer; set --data.tokenizer to the one its weights were trained with.")
    if own and chosen and own.sha256 != chosen.sha256:
        raise ConfigError(f"data.tokenizer {named} is not the tokenizer that lies in {source.folder}, which its weights were "
                          "trained with; leave data.tokenizer empty.")
    if chosen:
        check_vocabulary(source, chosen)
    return own or chosen


def take_params(state: TrainState, source: WeightSource) -> TrainState:
    """`state` with the source's parameters in the place of its own, laid out like them."""
    target, empty = state.params, state.replace(params=None)
    return empty.replace(params=load_params(source, target))
