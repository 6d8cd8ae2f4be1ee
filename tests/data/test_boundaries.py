"""Where documents begin is known for every tokenizer: their ends are learned, and bits per byte count what the loss counts."""

import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from llama_jax.config import DataConfig
from llama_jax.data.batches import batch_of_rows, batch_of_tokens
from llama_jax.data.corpus import open_corpus
from llama_jax.data.manifest import MANIFEST_FILE, PREPARE_PROGRESS, Manifest, read_manifest
from llama_jax.data.prepare import prepare_data
from llama_jax.data.windows import TokenSource
from llama_jax.errors import DataError
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer

PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
PLAIN = st.lists(st.lists(st.integers(3, 99), max_size=12), min_size=1, max_size=12)
ANY = st.lists(st.lists(st.integers(0, 5), max_size=12), min_size=1, max_size=12)
"""Documents whose text may contain the ids of BOS and EOS."""
ENDS = st.sampled_from([(1, 2), (1, 1), (2, 2)])


def all_rows(source: TokenSource):
    return batch_of_rows([source.row([source.span(n)]) for n in range(len(source))])


def follows_the_documents(source: TokenSource, documents: list[list[int]]) -> None:
    """Weights, segments and positions are those of the documents, whatever ids they hold."""
    m, T = source.manifest, source.sequence_length
    stream = [token for ids in documents for token in (m.bos_id, *ids, m.eos_id)]
    owners = [number for number, ids in enumerate(documents) for _ in range(len(ids) + 2)]
    batch = all_rows(source)
    assert batch.tokens.reshape(-1)[: len(stream)].tolist() == stream[: batch.tokens.size]
    first = [at == 0 or owners[at] != owners[at - 1] for at in range(len(stream))]
    weights, segments, positions = (field.reshape(-1).tolist() for field in (batch.weights, batch.segment_ids, batch.positions))
    for at in range(len(weights)):
        known = at + 1 < len(stream)
        assert weights[at] == (known and not first[at + 1])
        if known and at % T:
            assert segments[at] - segments[at - 1] == first[at]
            assert positions[at] == (0 if first[at] else positions[at - 1] + 1)
        elif known:
            assert (segments[at], positions[at]) == (int(first[at]), 0)
    assert sum(weights) / m.bytes == source.predicted_per_byte


@given(documents=ANY, a_shard=st.integers(1, 5), length=st.integers(2, 20), ends=ENDS)
@PROPERTY
def test_stored_boundaries_hold_whatever_the_texts_hold(folder_of, documents, a_shard, length, ends):
    folder = folder_of("x", documents, a_shard, bos=ends[0], eos=ends[1], starts=True)
    follows_the_documents(TokenSource(folder, length), documents)


@given(documents=PLAIN, a_shard=st.integers(1, 5), length=st.integers(2, 20), ends=ENDS)
@PROPERTY
def test_folders_of_earlier_versions_have_the_same_boundaries(folder_of, documents, a_shard, length, ends):
    folder = folder_of("x", documents, a_shard, bos=ends[0], eos=ends[1])
    follows_the_documents(TokenSource(folder, length), documents)


@given(documents=ANY, a_shard=st.integers(1, 5))
@PROPERTY
def test_an_earlier_folder_whose_texts_hold_the_separator_is_read_right_or_refused(folder_of, documents, a_shard):
    folder = folder_of("x", documents, a_shard, bos=1, eos=1)
    try:
        source = TokenSource(folder, 7)
    except DataError as error:
        assert any(1 in ids for ids in documents)
        assert "does not tell where its documents begin" in str(error) and "prepare it again" in str(error)
    else:
        follows_the_documents(source, documents)


def test_a_separator_inside_a_text_of_an_earlier_folder(folder_of):
    source = TokenSource(folder_of("x", [[5, 1, 6], [7], [1 + 7, 1, 9]], bos=1, eos=1), 40)
    assert all_rows(source).segment_ids[0, :13].tolist() == [1] * 5 + [2] * 3 + [3] * 5
    with pytest.raises(DataError, match=r"shard_00000.bin does not tell where its documents begin \(its BOS and EOS are one "
                                        r"token, 1, which its texts hold too\); remove .* and prepare it again"):
        TokenSource(folder_of("y", [[5, 1, 1, 6], [7]], bos=1, eos=1), 40)


@pytest.mark.parametrize("bos, eos", [(1, 2), (1, 1)])
@pytest.mark.parametrize("starts", [False, True])
def test_two_documents_of_three_tokens_count_eight_predictions(folder_of, bos, eos, starts):
    source = TokenSource(folder_of("x", [[5, 6, 7], [8, 9, 4]], bos=bos, eos=eos, starts=starts), 4)
    batch = all_rows(source)
    assert batch.weights.sum() == source.predicted_per_byte * source.manifest.bytes == 8
    assert batch.targets[batch.weights == 1].tolist() == [5, 6, 7, eos, 8, 9, 4, eos]


def test_empty_documents_are_their_ends(folder_of):
    batch = all_rows(TokenSource(folder_of("x", [[], [], [3]], bos=1, eos=1), 6))
    assert batch.tokens.tolist() == [[1, 1, 1, 1, 1, 3]] and batch.weights.tolist() == [[1, 0, 1, 0, 1, 1]]
    assert batch.segment_ids.tolist() == [[1, 1, 2, 2, 3, 3]] and batch.positions.tolist() == [[0, 1, 0, 1, 0, 1]]


@given(documents=PLAIN, length=st.integers(2, 20))
@PROPERTY
def test_rows_are_what_a_comparison_with_bos_gave(folder_of, documents, length):
    """If the tokens alone tell the boundaries, rows are those of earlier versions."""
    for starts in (False, True):
        source = TokenSource(folder_of("x", documents, starts=starts), length)
        wanted = batch_of_tokens(np.stack([source.window(n) for n in range(len(source))]), 1)
        for one, other in zip(all_rows(source), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


@pytest.mark.parametrize("damage", ["truncated", "removed"])
def test_lost_boundaries_are_named(folder_of, damage):
    folder = folder_of("x", [[3] * 5, [4] * 5], starts=True)
    file = folder / "shard_00000.starts"
    os.truncate(file, 8) if damage == "truncated" else file.unlink()
    size = 8 if damage == "truncated" else 0
    with pytest.raises(DataError, match=rf"shard_00000.starts should hold the beginnings of 2 documents in 16 bytes but has "
                                        rf"{size}: .*prepare it again"):
        TokenSource(folder, 4)


def test_fewer_tokens_than_ends_are_damage(folder_of):
    folder = folder_of("x", [[3]])
    manifest = read_manifest(folder)
    (folder / MANIFEST_FILE).write_text(replace(manifest, shards=(replace(manifest.shards[0], documents=2),)).to_json())
    with pytest.raises(DataError, match=r"damaged \(3 tokens cannot be 2 documents"):
        TokenSource(folder, 4)


def test_a_folder_of_many_shards_needs_few_file_descriptors(folder_of):
    source = TokenSource(folder_of("x", [[3 + n % 90] * 5 for n in range(700)], 1, starts=True), 16)
    before, limits = len(os.listdir("/dev/fd")), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 200, limits[1]))
    try:
        batch = all_rows(source)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert batch.weights.sum() == 700 * 6


@pytest.mark.parametrize("places", [[5, 0], [0, 0], [0, 99], [-3, 0], [0, -(2**62)]])
def test_beginnings_that_do_not_ascend_are_damage(folder_of, places):
    """A flipped bit among them once ended in numpy's IndexError."""
    folder = folder_of("x", [[3] * 5, [4] * 5], starts=True)
    np.array(places, "<i8").tofile(folder / "shard_00000.starts")
    source = TokenSource(folder, 4)
    with pytest.raises(DataError, match=r"shard_00000.starts is damaged: the beginnings of documents do not ascend"):
        source.row([source.span(0)])


@pytest.fixture
def one_token(tmp_path, byte_level) -> Tokenizer:
    """A tokenizer like GPT-2's, whose one token both begins and ends a text, and can also occur in texts."""
    folder = tmp_path / "one"
    folder.mkdir()
    vocabulary = {character: n for n, character in enumerate(pre_tokenizers.ByteLevel.alphabet())} | {"|": 1000, "<|": 1001}
    vocabulary = {piece: n for n, piece in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [("<", "|")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|", "eos_token": "<|"}))
    return load_tokenizer(folder)


TEXTS = ["one", "a <| b <|<| c", "<|", "two words", "x <|", "<| y"]


def write(file: Path, texts: list[str]) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


@pytest.mark.parametrize("workers, shard_tokens", [(1, 1), (1, 12), (2, 10**6)])
def test_prepare_stores_where_documents_begin(tmp_path, one_token, workers, shard_tokens):
    assert one_token.bos_id == one_token.eos_id and one_token.bos_id in one_token.encode("a <| b")
    prepare_data([write(tmp_path / "t.jsonl", TEXTS)], one_token, output=tmp_path / "out", workers=workers,
                 shard_tokens=shard_tokens)
    follows_the_documents(TokenSource(tmp_path / "out", 8), [one_token.encode(text) for text in TEXTS])


def test_work_that_an_earlier_version_began_is_finished_with_boundaries(tmp_path, one_token):
    """The finished shards of an earlier version lack the file of boundaries, and are made again."""
    source = write(tmp_path / "t.jsonl", TEXTS)
    whole = prepare_data([source], one_token, output=tmp_path / "out", workers=1, shard_tokens=1)
    settings_ = whole.settings | {"tokenizer": one_token.sha256}
    old = [{"file": s.file, "tokens": s.tokens, "documents": s.documents, "bytes": s.bytes} for s in whole.shards[:3]]
    for file in [tmp_path / "out" / MANIFEST_FILE, *(tmp_path / "out").glob("*.starts")]:
        file.unlink()
    (tmp_path / "out" / PREPARE_PROGRESS).write_text(json.dumps({"settings": settings_, "shards": old}))
    assert prepare_data([source], one_token, output=tmp_path / "out", workers=1, shard_tokens=1) == whole
    follows_the_documents(TokenSource(tmp_path / "out", 8), [one_token.encode(text) for text in TEXTS])


def test_another_end_of_text_of_the_same_tokenizer_is_other_work(tmp_path, one_token):
    source = write(tmp_path / "t.jsonl", TEXTS)
    prepare_data([source], one_token, output=tmp_path / "out", workers=1)
    (tmp_path / "one/tokenizer_config.json").write_text(json.dumps({"bos_token": "|", "eos_token": "<|"}))
    other = load_tokenizer(tmp_path / "one")
    assert other.sha256 == one_token.sha256 and other.bos_id != one_token.bos_id
    with pytest.raises(DataError, match="already holds data made from other text, settings or tokenizer"):
        prepare_data([source], other, output=tmp_path / "out", workers=1)


def test_a_run_whose_tokenizer_ends_texts_otherwise_says_so(tmp_path, one_token):
    prepare_data([write(tmp_path / "t.jsonl", TEXTS)], one_token, output=tmp_path / "out", workers=1)
    config = DataConfig((str(tmp_path / "out"),), sequence_length=8, heldout=(str(tmp_path / "t.jsonl"),))
    size = one_token.vocab_size
    assert open_corpus(config, size, workdir=tmp_path / "run").notes == ()
    (tmp_path / "one/tokenizer_config.json").write_text(json.dumps({"bos_token": "|", "eos_token": "<|"}))
    (note,) = open_corpus(replace(config, tokenizer=str(tmp_path / "one")), size, workdir=tmp_path / "other").notes
    ends = one_token.eos_id, one_token.encode("|")[0]
    assert f"prepared with BOS {ends[0]} and EOS {ends[0]}, and the run's tokenizer has BOS {ends[1]} and EOS {ends[0]}" in note


def test_manifests_of_earlier_versions_read(folder_of):
    folder = folder_of("x", [[3, 4], [5]])
    values = json.loads((folder / MANIFEST_FILE).read_text())
    del values["sha256"]
    for shard in values["shards"]:
        del shard["starts"]
    (folder / MANIFEST_FILE).write_text(json.dumps(values))
    assert isinstance(read_manifest(folder), Manifest) and read_manifest(folder).shards[0].starts == ""
