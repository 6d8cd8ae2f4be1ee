"""Which changes of a config leave a run's parameters what they are, and which make another model."""

import re
from dataclasses import fields, replace
from typing import get_args, get_type_hints

import pytest

from llama_jax.config import Config, ModelConfig, RopeScaling
from llama_jax.config.compare import FREE_TO_CHANGE, changes, check_same_model, different_meaning
from llama_jax.errors import ConfigError
from llama_jax.ops.rotary import SCALING_KINDS
from llama_jax.training.init_from import check_initial_model

CONFIG = Config(name="x")


def test_another_model_is_refused():
    wanted = replace(CONFIG, model=replace(CONFIG.model, num_layers=3, num_kv_heads=8))
    with pytest.raises(ConfigError, match=r"model \(model.num_layers 32 -> 3, model.num_kv_heads 32 -> 8\); use"):
        check_same_model(CONFIG, wanted)


@pytest.mark.parametrize("section, field, value", [
    ("compute", "attention", "chunked"), ("compute", "remat", "full"), ("compute", "scan_layers", False),
    ("compute", "dtype", "float32"), ("compute", "loss_chunk", 8), ("model", "max_length", 4096),
])
def test_what_does_not_touch_the_parameters_may_change(section, field, value):
    assert section == "compute" or field in FREE_TO_CHANGE
    check_same_model(CONFIG, replace(CONFIG, **{section: replace(getattr(CONFIG, section), **{field: value})}))


@pytest.mark.parametrize("saved, wanted", [
    ({"rope_scaling": RopeScaling(factor=2.0)}, {"rope_scaling": RopeScaling(original_length=4096, high_freq_factor=9.0)}),
    ({"rope_scaling": RopeScaling("linear", factor=2.0)}, {"rope_scaling": RopeScaling("linear", 2.0, low_freq_factor=2.0)}),
    ({"dim": 64, "num_heads": 4, "num_kv_heads": 4}, {"dim": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16}),
])
def test_fields_that_mean_nothing_for_the_model_may_change(saved, wanted):
    saved, wanted = (replace(CONFIG, model=ModelConfig(**fields)) for fields in (saved, wanted))
    check_same_model(saved, wanted)
    check_same_model(wanted, saved)
    check_initial_model(saved.model, wanted.model, folder="a folder")  # for init_from
    assert changes(saved, wanted)  # said all the same


def test_learned_positions_are_as_many_as_the_context_is_long():
    """Between two models that have them; a model that has none differs in its position encoding, whatever its context."""
    learned = ModelConfig(position="learned")
    longer = replace(learned, max_length=4096)
    assert different_meaning(learned, longer) == {"max_length": ("2048", "4096")}
    assert different_meaning(longer, ModelConfig()) == {"position": ('"learned"', '"rope"')}
    with pytest.raises(ConfigError, match=r"another model than the config's; add --model.max_length 2048$"):
        check_initial_model(learned, longer, folder="a folder")


@pytest.mark.parametrize("wanted, sentence", [
    (RopeScaling("linear", factor=4.0), "model.rope_scaling.factor 2.0 -> 4.0"),
    (RopeScaling("none", factor=2.0), 'model.rope_scaling.kind "linear" -> "none"'),
    (RopeScaling("llama3", factor=2.0), 'model.rope_scaling.kind "linear" -> "llama3"'),
])
def test_fields_that_its_kind_uses_may_not_change(wanted, sentence):
    saved = replace(CONFIG, model=ModelConfig(rope_scaling=RopeScaling("linear", factor=2.0)))
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        check_same_model(saved, replace(CONFIG, model=ModelConfig(rope_scaling=wanted)))


USED = {
    "none": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_length"),
    "yarn": ("factor", "beta_fast", "beta_slow", "original_length"),
}


@pytest.mark.parametrize("kind", USED)
@pytest.mark.parametrize("field", [field.name for field in fields(RopeScaling) if field.name != "kind"])
def test_a_kind_of_rope_scaling_uses_its_fields_and_no_other(kind, field):
    scaling = RopeScaling(kind, beta_fast=8.0, beta_slow=2.0)
    saved, wanted = (replace(CONFIG, model=ModelConfig(rope_scaling=x)) for x in (scaling, replace(scaling, **{field: 3})))
    if field not in USED[kind]:
        return check_same_model(saved, wanted)
    with pytest.raises(ConfigError, match=f"model.rope_scaling.{field} "):
        check_same_model(saved, wanted)


def test_every_kind_and_field_of_rope_scaling_is_known():
    """A kind or a field that is added to RopeScaling must be placed."""
    assert list(SCALING_KINDS) == list(get_args(get_type_hints(RopeScaling)["kind"]))
    assert {kind: set(names) for kind, names in SCALING_KINDS.items()} == {kind: set(names) for kind, names in USED.items()}
    assert {"kind"}.union(*USED.values()) == {field.name for field in fields(RopeScaling)}


def test_changes_are_listed():
    wanted = replace(CONFIG, optimizer=replace(CONFIG.optimizer, peak_lr=0.1), name="y")
    assert changes(CONFIG, wanted) == ['name: "x" -> "y"', "optimizer.peak_lr: 0.0003 -> 0.1"]
    assert changes(CONFIG, CONFIG) == []
