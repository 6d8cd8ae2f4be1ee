"""Stages and limits of a mixture as a config writes them; every mistake is one sentence that says what to write."""

import json

import pytest

from llama_jax.config import Config, DataConfig, config_from_dict, to_dict
from llama_jax.config.mixture import MixtureStage, rename_stages
from llama_jax.errors import ConfigError

SOURCES = ("data/wikipedia=0.5", "data/books.jsonl.zst=0.5", "embedded:tinyshakespeare=0", "run/data/code/train=1", "x/a.txt=1",
           "y/a.txt=1")


def stages(*texts: str) -> list[MixtureStage]:
    whole = "1: tinyshakespeare=1"  # a source of share 0 is read in some stage
    return DataConfig(SOURCES, stages=(whole, *texts)).mixture_stages()[1:]


@pytest.mark.parametrize("text, expected", [
    ("2e9: wikipedia=0.5 books=0.25", (2_000_000_000, (0.5, 0.25, 0, 0, 0, 0))),
    ("2_000:tinyshakespeare=3", (2000, (0, 0, 3.0, 0, 0, 0))),
    ("  10 :   code=1   data/wikipedia=1e-3 ", (10, (0.001, 0, 0, 1.0, 0, 0))),
    ("10: x/a.txt=1 y/a.txt=2 embedded:tinyshakespeare=3", (10, (0, 0, 3.0, 0, 1.0, 2.0))),
])
def test_a_stage(text, expected):
    assert stages(text) == [expected]


def test_names_with_spaces_and_equals_signs():
    config = DataConfig(("my books=1", "a=b=1"), stages=("5: my books=0.5 a=b=2", "9: a=b=1"))
    assert [stage.shares for stage in config.mixture_stages()] == [(0.5, 2.0), (0, 1.0)]


@pytest.mark.parametrize("texts, error", [
    (("1e9: wikpedia=0.5",), "data.stages: 'wikpedia' is no source of data.sources; did you mean wikipedia?"),
    (("1e9: zzz=1",), "'zzz' is no source of data.sources; known: a, books, code, tinyshakespeare, wikipedia."),
    (("1e9: a=1",), "'a' is the name of 2 sources; write their paths as data.sources does: x/a.txt, y/a.txt."),
    (("1e9: books=-1",), "the share of 'books' must be positive, got -1; a source that a stage does not name is not read in it."),
    (("1e9: books=0",), "the share of 'books' must be positive, got 0"),
    (("1e9: books=nan",), "the share of 'books' must be positive, got nan"),
    (("1e9: books=inf",), "the share of 'books' must be positive, got inf"),
    (("1e9: books=1 books=2",), "'books=1 books=2' names 'books' twice."),
    (("1e9: books=1 data/books.jsonl.zst=2",), "names 'data/books.jsonl.zst' twice."),
    (("2e9: books=1", "2e9: wikipedia=1"), "'2e9: wikipedia=1' begins after 2,000,000,000 tokens, and the stage before it after "
     "2,000,000,000; give stages in ascending order."),
    (("2e9: books=1", "1e9: wikipedia=1"), "give stages in ascending order."),
    (("0: books=1",), "a stage begins after at least 1 token, got 0 in '0: books=1'"),
    (("-5: books=1",), "a stage begins after at least 1 token, got -5"),
    (("inf: books=1",), "a stage begins after at least 1 token, got inf"),
    *[((text,), "should read TOKENS: NAME=SHARE NAME=SHARE, as 2e9: wikipedia=0.5 books=0.5.")
      for text in ("", "books=1", "1e9", "1e9:", "1e9: books", "1e9: books=", "1e9: books=half", "soon: books=1",
                   "1e9: books=1 c4", "1e9 books=1")],
])
def test_mistakes_in_stages_are_named(texts, error):
    with pytest.raises(ConfigError) as caught:
        stages(*texts)
    assert error in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("values, error", [
    ({"sources": ("a=0", "b=1")}, "data.sources: the share of 'a' must be positive, got 0; it may be 0 where data.stages gives"),
    ({"sources": ("a=0", "b=0"), "stages": ("5: a=1 b=1",)}, "data.sources: every share is 0"),
    ({"max_epochs": -1.0}, "data.max_epochs must be at least 0 (no limit), got -1.0."),
    ({"max_epochs": float("inf")}, "data.max_epochs must be at least 0"),
    ({"max_epochs": float("nan")}, "data.max_epochs must be at least 0"),
    ({"source_max_epochs": ("tinyshakespeare",)}, "data.source_max_epochs: 'tinyshakespeare' should read NAME=EPOCHS, as"),
    ({"source_max_epochs": ("tinyshakespeare=often",)}, "should read NAME=EPOCHS"),
    ({"source_max_epochs": ("tinyshakespear=1",)}, "data.source_max_epochs: 'tinyshakespear' is no source of data.sources"),
    ({"source_max_epochs": ("tinyshakespeare=-1",)}, "the epochs of 'tinyshakespeare' must be at least 0 (no limit), got -1."),
    ({"source_max_epochs": ("tinyshakespeare=inf",)}, "must be at least 0 (no limit), got inf."),
    ({"source_max_epochs": ("tinyshakespeare=1", "tinyshakespeare=2")}, "data.source_max_epochs names 'tinyshakespeare' twice."),
    ({"sources": ("a/b", "c/b.txt"), "source_max_epochs": ("b=1",)}, "data.source_max_epochs: 'b' is the name of 2 sources"),
    ({"on_max_epochs": "halt"}, "data.on_max_epochs cannot be 'halt'; known: reweigh, stop, warn."),
    ({"on_max_epochs": "reweight"}, "data.on_max_epochs cannot be 'reweight'; did you mean reweigh?"),
])
def test_other_mistakes_are_named(values, error):
    with pytest.raises(ConfigError) as caught:
        DataConfig(**values)
    assert error in str(caught.value)


def test_a_config_that_came_from_json():
    config = Config(data=DataConfig(("a=1", "b=0"), stages=("1e6: b=1",), max_epochs=2.5, source_max_epochs=("b=0.64",),
                                    on_max_epochs="reweigh"))
    assert [str(limit) for limit in config.data.epoch_limits()] == ["data.max_epochs 2.5", "data.source_max_epochs 0.64"]
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config
    early = to_dict(Config())
    for name in ("stages", "max_epochs", "source_max_epochs", "on_max_epochs"):
        del early["data"][name]
    assert config_from_dict(early) == Config(), "configs of earlier versions have no stages"
    with pytest.raises(ConfigError, match=r"unknown key data.stage; did you mean stages"):
        config_from_dict({"data": {"stage": []}})
    with pytest.raises(ConfigError, match=r"data.stages should be a list, got '1e6: b=1'"):
        config_from_dict({"data": {"stages": "1e6: b=1"}})


def test_stages_of_sources_that_lie_elsewhere():
    """As a study reads what it has prepared."""
    paths = ["data/wikipedia", "data/books.jsonl", "c"]
    moved = rename_stages(("1e6: books=0.3 c=0.1", "2e6: data/wikipedia=1"), paths,
                          renamed=["/s t/w", "/s t/data/books/train", "/c"])
    config = DataConfig(("/s t/w=1", "/s t/data/books/train=1", "/c=1"), stages=moved)
    assert config.mixture_stages() == [(1_000_000, (0, 0.3, 0.1)), (2_000_000, (1.0, 0, 0))]
