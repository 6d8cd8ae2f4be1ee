"""The folder of a study: what makes a study, what may change of it, and that all its runs read the same tokens."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from llama_jax.ablation.measure import stream_digest
from llama_jax.ablation.study_dir import RunKey, StudyFolder, open_study, read_study, write_study
from llama_jax.config import Arm, Config, Study, from_dict, to_dict
from llama_jax.data.batches import batch_of_rows
from llama_jax.data.corpus import open_corpus
from llama_jax.data.mixture import Mixture
from llama_jax.errors import ConfigError, DataError
from llama_jax.parallel.mesh import make_mesh
from llama_jax.training import loop
from llama_jax.training.compiled import build
from tests.ablation.study import small_study


def with_config(study: Study, arm: str, change: Callable[[Config], Config]) -> Study:
    """`study` with another config of one arm."""
    return replace(study, arms=tuple(replace(one, config=change(one.config)) if one.name == arm else one for one in study.arms))


def prepared(path: Path, study: Study, **options) -> StudyFolder:
    folder = open_study(path, study, **{"seeds": 2, "vary_data": False} | options)
    path.mkdir(exist_ok=True)
    write_study(folder)
    folder.prepare()
    return folder


@pytest.mark.parametrize("change, sentence", [
    (lambda s: replace(s, arms=()), "the study has no arms; name at least one."),
    (lambda s: replace(s, arms=(*s.arms, replace(s.arms[0], name="ROPE"))), r"two arms are called rope \(upper and lower case"),
    (lambda s: replace(s, arms=(*s.arms, replace(s.arms[0], name="a/b"))), "the arm 'a/b' cannot be the name of a folder"),
    (lambda s: replace(s, baseline="rop"), "baseline 'rop' is no arm of the study; did you mean rope?"),
    (lambda s: replace(s, arms=(*s.arms, replace(s.arms[0], name="x", starts_from="y"))),
     "arm x: starts_from 'y' is no arm of the study; known: gqa, learned, rope, wild, x."),
    (lambda s: replace(s, arms=(replace(s.arms[0], starts_from="gqa"), *s.arms[1:])), "leads in a circle: rope -> gqa -> rope."),
    (lambda s: replace(s, arms=(*s.arms, replace(s.arms[1], name="x", starts_from="rope"))),
     "arm x starts from rope, which has another model .model.position rope, not learned.; only kv heads may differ."),
    (lambda s: with_config(s, "learned", lambda c: replace(c, training=replace(c.training, seed=5))),
     "arm learned differs from the baseline rope in training.seed; all arms of a study read the same tokens."),
    (lambda s: with_config(s, "learned", lambda c: replace(c, data=replace(c.data, heldout_fraction=0.1))),
     "arm learned differs from the baseline rope in data; "),
    (lambda s: replace(s, arms=tuple(replace(arm, config=replace(arm.config, data=replace(arm.config.data, heldout_fraction=0.0)))
                                     for arm in s.arms)), "nothing is held out; set data.heldout or data.heldout_fraction."),
    (lambda s: replace(s, arms=tuple(replace(arm, config=replace(arm.config, data=replace(arm.config.data, max_epochs=2.0)))
                                     for arm in s.arms)), "equally many tokens; set data.max_epochs 0, or data.on_max_epochs"),
    (lambda s: replace(s, lengths=(64, 64)), "lengths must be different and at least 2, got"),
])
def test_what_is_no_study_is_one_sentence(tmp_path, change, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        change(small_study(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seeds, vary_data, change, sentence", [
    (0, False, lambda s: s, "--seeds must be at least 1, got 0."),
    (1, False, lambda s: s, r"holds another study \(seeds: 2 -> 1\); name another --workdir, or go back to the old values."),
    (None, True, lambda s: s, "vary_data: False -> True"),
    (None, False, lambda s: replace(s, arms=s.arms[:2]), "arm gqa: is missing; arm wild: is missing"),
    (None, False, lambda s: replace(s, lengths=()), r"lengths: \[64\] -> \[\]"),
    (3, False, lambda s: with_config(s, "learned", lambda c: replace(c, training=replace(c.training, num_steps=30))),
     "arm learned, training.num_steps: 20 -> 30"),
])
def test_a_changed_study_is_refused_and_nothing_is_lost(tmp_path, seeds, vary_data, change, sentence):
    study = small_study(tmp_path)
    prepared(tmp_path / "study", study)
    before = {file: file.read_bytes() for file in (tmp_path / "study").rglob("*") if file.is_file()}
    with pytest.raises(ConfigError, match=sentence) as caught:
        open_study(tmp_path / "study", change(study), seeds=seeds, vary_data=vary_data)
    assert "\n" not in str(caught.value)
    assert {file: file.read_bytes() for file in (tmp_path / "study").rglob("*") if file.is_file()} == before


def test_arms_seeds_and_words_may_be_added(tmp_path):
    study = small_study(tmp_path)
    prepared(tmp_path / "study", study)
    more = replace(study, question="why?", arms=(Arm("new", study.arms[0].config), *study.arms))
    assert open_study(tmp_path / "study", more, seeds=None, vary_data=False).seeds == 2
    folder = prepared(tmp_path / "study", more, seeds=4)
    assert read_study(tmp_path / "study") == folder and len(folder.runs()) == 4 * 5
    assert folder.runs()[:6] == [RunKey(name, 0) for name in ("new", "rope", "learned", "gqa", "wild")] + [RunKey("new", 1)]


def test_a_folder_that_holds_something_else(tmp_path):
    study = small_study(tmp_path)
    with pytest.raises(ConfigError, match=r"is not empty and no study \(study.json is missing\); name another --workdir."):
        open_study(tmp_path, study, seeds=1, vary_data=False)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(DataError, match=r"study.json is no study of this version"):
        open_study(tmp_path, study, seeds=1, vary_data=False)


def test_a_study_survives_json(tmp_path):
    study = small_study(tmp_path)
    assert from_dict(Study, json.loads(json.dumps(to_dict(study)))) == study


def test_data_are_prepared_once_and_found_where_the_folder_is(tmp_path):
    folder = prepared(tmp_path / "study", small_study(tmp_path))
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "study/data").rglob("*")}
    (tmp_path / "colours.jsonl").unlink()  # from now on nobody needs the raw text
    folder.prepare()
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "study/data").rglob("*")} == times
    (tmp_path / "study").rename(tmp_path / "moved=0.5")
    moved = read_study(tmp_path / "moved=0.5")
    corpus = open_corpus(moved.prepared_data(), 288, workdir=moved.run_dir(RunKey("rope", 0)))
    assert [source.name for source in corpus.sources] == ["colours", "numbers"] and corpus.shares == [0.7, 0.3]
    assert [source.name for source in corpus.heldout] == ["colours-heldout", "numbers-heldout"]


def test_a_seed_changes_the_initial_parameters_alone(tmp_path):
    study = small_study(tmp_path)
    folder = prepared(tmp_path / "study", study)
    one, two = (folder.config(RunKey("rope", seed)) for seed in (0, 1))
    assert two == replace(one, name="small/rope/1", training=replace(one.training, init_seed=1))
    assert one.training.seed == study.arms[0].config.training.seed
    varied = prepared(tmp_path / "varied", study, vary_data=True).config(RunKey("rope", 1)).training
    assert (varied.seed, varied.init_seed) == (1, 1)
    params = [jax.device_get(build(config, make_mesh(config.mesh)).init().params["head"]) for config in (one, two)]
    assert not np.array_equal(*params)


def test_every_run_has_one_stream(tmp_path):
    folder = prepared(tmp_path / "study", small_study(tmp_path))

    def digest(key: RunKey) -> str:
        config = folder.config(key)
        corpus = open_corpus(config.data, config.model.vocab_size, workdir=folder.run_dir(key))
        return stream_digest(Mixture(corpus.sources, corpus.shares, seed=config.training.seed), 16)

    assert len({digest(key) for key in folder.runs()}) == 1


@pytest.mark.slow
def test_every_arm_and_seed_reads_the_batches_of_the_hash(tmp_path, monkeypatch):
    """Of what the train loop takes: also after a stop, and with other models."""
    folder = prepared(tmp_path / "study", small_study(tmp_path))
    read: list = []
    load = loop.load_batches

    def watched(*arguments, **options):
        for batch in load(*arguments, **options):
            read.append(jax.device_get(batch))
            yield batch

    monkeypatch.setattr(loop, "load_batches", watched)
    streams = {}
    for key in (RunKey("rope", 0), RunKey("rope", 1), RunKey("learned", 0)):
        config, workdir = folder.config(key), folder.run_dir(key)
        for steps in (3, 5) if key.seed else (5,):  # stopped after 3 of 5
            loop.fit(replace(config, training=replace(config.training, num_steps=steps, heldout_every=0)), workdir)
        streams[key], read = read, []
    corpus = open_corpus(folder.prepared_data(), 288, workdir=tmp_path / "again")
    mixture = Mixture(corpus.sources, corpus.shares, seed=0)
    rows = [batch_of_rows([mixture.row(8 * n + row) for row in range(8)]) for n in range(5)]
    for batches in streams.values():
        jax.tree.map(np.testing.assert_array_equal, batches, rows)
    assert stream_digest(mixture, 40) == stream_digest(Mixture(corpus.sources, corpus.shares, seed=0), 40)
    others = {stream_digest(mixture, 39), stream_digest(Mixture(corpus.sources, corpus.shares, seed=1), 40),
              stream_digest(Mixture(corpus.sources, [0.5, 0.5], seed=0), 40)}
    assert len({*others, stream_digest(mixture, 40)}) == 4
