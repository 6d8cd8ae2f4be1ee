"""What a model's config cannot hold, and what a model cannot be asked: one sentence each, that says what to do."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.__main__ import run_command
from llama_jax.cli.parsing import apply_overrides
from llama_jax.config import Config, DataConfig, ModelConfig, load_config
from llama_jax.config.model import RopeScaling
from llama_jax.errors import ConfigError, DataError
from llama_jax.inference.generate import generate
from llama_jax.inference.prompts import PromptTooLong, encode_prompt
from llama_jax.scoring.likelihood import token_loglikelihood
from tests.model.variants import CASES, model_of


def test_what_is_no_choice_is_answered_with_the_nearest(tmp_path, capsys):
    for field, wrong, right in (("norm", "rmsnrm", "rmsnorm"), ("norm_position", "pst", "post"), ("position", "ropee", "rope"),
                                ("feedforward", "swiglo", "swiglu"), ("position", "alibbi", "alibi")):
        sentence = rf"model\.{field} cannot be '{wrong}'; did you mean {right}"
        (tmp_path / "config.json").write_text(json.dumps({"model": {field: wrong}}))
        for refused in (partial(ModelConfig, **{field: wrong}), partial(load_config, tmp_path / "config.json"),
                        partial(apply_overrides, Config(), [f"--model.{field}", wrong]),
                        partial(apply_overrides, Config(), [f"--model.{field.replace('_', '-')}={wrong}"])):
            with pytest.raises(ConfigError, match=sentence) as caught:
                refused()
            assert "\n" not in str(caught.value)
    assert run_command("train", ["--config", "tiny", "--model.norm", "rmsnrm"], prog="train") == 2
    assert capsys.readouterr().err == "error: model.norm cannot be 'rmsnrm'; did you mean rmsnorm?\n"


@pytest.mark.parametrize("fields_of_model, sentence", [
    ({"position": "alibi", "rope_scaling": RopeScaling("yarn")},
     "model.rope_scaling is for model.position rope and rope3d, and this model's is alibi."),
    ({"rope_chunk": 5}, "model.rope_chunk is for model.position rope3d, and this model's is rope."),
    ({"position": "alibi", "relative_clip": 3}, "model.relative_clip is for model.position shaw, and this model's is alibi."),
    ({"position": "rope3d", "rope_chunk": 0}, "model.rope_chunk must be positive, got 0."),
    ({"position": "shaw", "relative_clip": -1}, "model.relative_clip must be positive, got -1."),
    ({"position": "sinusoidal", "dim": 33, "num_heads": 3, "num_kv_heads": 3},
     "model.position sinusoidal wants an even model.dim (a sine and a cosine per frequency), got 33."),
    ({"position": "rope3d", "head_dim": 7}, "the width of a head must be even (rotary embeddings turn pairs), got 7."),
])
def test_what_has_no_meaning_together_is_refused(fields_of_model, sentence):
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        ModelConfig(**fields_of_model)


def test_nothing_goes_beyond_the_positions_that_are_learned(tokenizer):
    name, config = next((name, config) for name, config in CASES.items() if config.position == "learned")
    model, params = model_of(name)
    tokens, positions = jnp.array([[5, 6, 7, 8]] * 2), jnp.array([[0, 1, 2, 3], [125, 126, 127, 128]])
    with pytest.raises(ConfigError, match=r"position 128 lies beyond the 128 learned positions .*max_length\); cut the text, or"):
        model.apply({"params": params}, tokens, positions)
    logits = jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs))(params, tokens, positions)
    assert np.isfinite(logits[0]).all() and np.isnan(logits[1]).any()
    for count in (128, 140):
        with pytest.raises(PromptTooLong, match=f"prompt has {count} tokens and the model's context holds 128, of which one"):
            generate(model, params, tokenizer, [[5] * count])
        with pytest.raises(PromptTooLong):  # what serve answers with, as an error of the client's
            encode_prompt(tokenizer, [5] * count, config=config)
    [longest] = token_loglikelihood(model, params, [([5] * 140, [6])])
    assert np.isfinite(longest.logprob) and longest.truncated == 12
    with pytest.raises(DataError, match=r"1 ids of context and 129 to score; .* the model's context holds 128\."):
        token_loglikelihood(model, params, [([5], [6] * 129)])
    with pytest.raises(ConfigError, match=r"data\.sequence_length must not exceed model\.max_length, got 129 and 128\."):
        Config(model=config, data=DataConfig(sequence_length=129))
