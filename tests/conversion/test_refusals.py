"""What a format has no word for is refused by the name of its field, whichever way the weights go."""

import re

import pytest

from llama_jax.config import RopeScaling
from llama_jax.conversion.convert import convert, convert_weights
from llama_jax.errors import ConfigError
from llama_jax.formats.open import open_source
from llama_jax.model.positions import POSITIONS
from llama_jax.ops.feedforward import FEEDFORWARDS
from tests.conversion.test_roundtrip import assert_same
from tests.formats.memory import MemorySource, config_of

CHOICES = {
    'model.norm "layernorm"': {"norm": "layernorm"}, 'model.norm_position "post"': {"norm_position": "post"},
    **{f'model.feedforward "{kind}"': {"feedforward": kind} for kind in FEEDFORWARDS if kind != "swiglu"},
    **{f'model.position "{kind}"': {"position": kind} for kind in POSITIONS if kind != "rope"},
}
"""Choices that only a run directory holds."""
ONLY_HF = {"model.use_bias true": {"use_bias": True}, "model.rope_scaling = ": {"rope_scaling": RopeScaling("yarn", 4.0)},
           "(model.head_dim)": {"head_dim": 10}}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_choice_of_ours_alone(tmp_path, choice):
    """Refused by name to the other formats, which leaves nothing; held by a run directory, from one to the next."""
    memory = MemorySource(config_of(2, **CHOICES[choice]))
    convert_weights(memory, tmp_path / "run", "orbax")
    for to in ("hf", "meta"):
        with pytest.raises(ConfigError, match=re.escape(choice)) as caught:
            convert(tmp_path / "run", tmp_path / to, to=to)
        assert str(caught.value).endswith(f"({choice}); only a run directory (orbax) holds every model.")
    convert(tmp_path / "run", tmp_path / "again", to="orbax", num_kv_heads=2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["again", "run"]
    assert_same(memory, open_source(tmp_path / "again"))


@pytest.mark.parametrize("choice", ONLY_HF)
def test_a_choice_that_metas_format_lacks(tmp_path, choice):
    memory = MemorySource(config_of(2, **ONLY_HF[choice]))
    with pytest.raises(ConfigError, match=re.escape(choice)):
        convert_weights(memory, tmp_path / "meta", "meta")
    convert_weights(memory, tmp_path / "hf", "hf")
    assert [entry.name for entry in tmp_path.iterdir()] == ["hf"]
    assert open_source(tmp_path / "hf").config == memory.config
    assert_same(memory, open_source(tmp_path / "hf"))


def test_learned_positions_have_one_length(tmp_path):
    memory = MemorySource(config_of(position="learned"))
    with pytest.raises(ConfigError, match=r"vector for each of its 128 positions .* cannot become 64; leave max_length out"):
        convert_weights(memory, tmp_path / "run", "orbax", max_length=64)
    convert_weights(memory, tmp_path / "run", "orbax", max_length=128)
    assert open_source(tmp_path / "run").config == memory.config


@pytest.mark.parametrize("arguments, sentence", [
    ({"to": "hugging"}, "there is no format 'hugging'; known: hf, meta, orbax."),
    ({"to": "orbx"}, "no format 'orbx'; did you mean orbax?"),
    ({"to": "hf", "dtype": "bfloat"}, "stored as 'bfloat'; did you mean bfloat16 or float32"),
    ({"to": "hf", "meta_shards": 2}, "and the format is hf"), ({"to": "hf", "max_length": -1}, "at least 0, got 1 and -1"),
    ({"to": "hf", "num_kv_heads": 3}, "num_kv_heads must divide the 4 kv heads of"),
])
def test_arguments_of_convert(tmp_path, folders, arguments, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        convert(folders["hf"], tmp_path / "out", **arguments)
    assert not list(tmp_path.iterdir())


def test_the_function_means_what_the_command_means(tmp_path, folders):
    assert convert(folders["hf"], tmp_path / "meta", to="meta", meta_shards=2, max_length=128) is None
    assert len(list((tmp_path / "meta").glob("*.pth"))) == 2
    rounded = convert(str(folders["hf"]), str(tmp_path / "rounded"), to="hf", dtype="bfloat16", verify=True)
    assert rounded.largest > 1e-4 and open_source(tmp_path / "rounded").dtype.name == "bfloat16"
    assert convert(folders["hf"], tmp_path / "run", to="orbax", verify=True).largest == 0
