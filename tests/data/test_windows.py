"""Each token of a prepared folder is a target once per epoch, and rows say where their documents begin."""

import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_jax.data.batches import batch_of_tokens
from llama_jax.data.manifest import MANIFEST_FILE
from llama_jax.data.windows import TokenSource
from llama_jax.errors import DataError

DOCUMENTS = st.lists(st.lists(st.integers(3, 99), max_size=12), min_size=1, max_size=12)


def test_a_row_drawn_out():
    rows = np.array([
        [1, 5, 6, 2, 1, 7, 2, 1],
        [8, 9, 2, 1, 4, 4, 2, 1],  # continues a document that began in the row before
    ])
    batch = batch_of_tokens(rows, bos_id=1)
    assert batch.tokens.tolist() == [[1, 5, 6, 2, 1, 7, 2], [8, 9, 2, 1, 4, 4, 2]]
    assert batch.targets.tolist() == [[5, 6, 2, 1, 7, 2, 1], [9, 2, 1, 4, 4, 2, 1]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1, 1]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 0, 1, 2, 3]]
    assert batch.weights.tolist() == [[1, 1, 1, 0, 1, 1, 0], [1, 1, 0, 1, 1, 1, 0]]
    assert [field.dtype for field in batch] == [np.int32] * 4 + [np.float32]
    assert all(field.flags.c_contiguous for field in batch)


@given(documents=DOCUMENTS, a_shard=st.integers(1, 5), length=st.integers(2, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_token_is_a_target_once(folder_of, documents, a_shard, length):
    source = TokenSource(folder_of("x", documents, a_shard), length)
    stream = [token for ids in documents for token in (1, *ids, 2)]
    rows = np.stack([source.window(n) for n in range(len(source))])
    batch = batch_of_tokens(rows, 1)
    assert batch.targets[batch.weights == 1].tolist() == [token for token in stream if token != 1]
    assert batch.tokens.reshape(-1)[: len(stream)].tolist() == stream[: batch.tokens.size]
    np.testing.assert_array_equal(rows[:-1, -1], rows[1:, 0])  # neighbours share one token
    assert (len(source) - 1) * length < len(stream) - 1 <= len(source) * length


@given(documents=DOCUMENTS, length=st.integers(2, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tokens_see_their_own_document_only(folder_of, documents, length):
    """Equal segment <=> no BOS between; positions count from the BOS, or from the start of the row."""
    source = TokenSource(folder_of("x", documents), length)
    batch = batch_of_tokens(np.stack([source.window(n) for n in range(len(source))]), 1)
    for tokens, segments, positions in zip(batch.tokens, batch.segment_ids, batch.positions, strict=True):
        segment = position = 0
        for at, token in enumerate(tokens):
            segment, position = (segment + 1, 0) if token == 1 else (segment, position + 1 if at else 0)
            assert (segments[at], positions[at]) == (segment, position)


def test_windows_do_not_depend_on_the_shards(folder_of):
    documents = [[n + 3] * n for n in range(20)]
    one, many = TokenSource(folder_of("one", documents), 7), TokenSource(folder_of("many", documents, 1), 7)
    assert len(many._shards) == 20 and len(one) == len(many)
    for n in range(len(one)):
        np.testing.assert_array_equal(one.window(n), many.window(n))


def test_the_smallest_folder_is_one_window(folder_of):
    source = TokenSource(folder_of("x", [[]]), 4)
    assert len(source) == 1 and source.window(0).tolist() == [1, 2, 1, 1, 1]


def test_predicted_tokens_a_byte(folder_of):
    source = TokenSource(folder_of("x", [[3, 4, 5], [6]]), 4)  # 8 tokens, 24 bytes
    weights = batch_of_tokens(np.stack([source.window(n) for n in range(len(source))]), 1).weights
    assert source.predicted_per_byte == weights.sum() / 24


def test_a_truncated_or_lost_shard_is_refused(folder_of):
    folder = folder_of("x", [[3] * 10, [4] * 10], a_shard=1)
    os.truncate(folder / "shard_00001.bin", 6)
    with pytest.raises(DataError, match=r"shard_00001.bin should hold 12 tokens in 24 bytes but has 6: .*again"):
        TokenSource(folder, 4)
    (folder / "shard_00001.bin").unlink()
    with pytest.raises(DataError, match="but has 0"):
        TokenSource(folder, 4)


@pytest.mark.parametrize("change, reason", [
    (lambda m: "", "Expecting value"),
    (lambda m: "[1]", "expected an object with"),
    (lambda m: json.dumps(m | {"dtype": "<f4"}), "dtype '<f4' is none of <u2, <u4"),
    (lambda m: json.dumps(m | {"shards": []}), "totals are not those of its shards"),
    (lambda m: json.dumps(m | {"tokens": 3}), "totals are not those of its shards"),
    (lambda m: json.dumps(m | {"shards": [{"file": "a"}]}), "'tokens' is missing"),
    (lambda m: json.dumps(m | {"shards": [m["shards"][0] | {"file": "../x/shard_00000.bin"}]}), "no name of a file in this"),
    (lambda m: json.dumps(m | {"shards": [m["shards"][0] | {"tokens": "4"}]}), "should be a whole number, got '4'"),
    (lambda m: json.dumps(m | {"shards": [m["shards"][0] | {"more": 1}]}), "unknown field 'more'"),
    (lambda m: json.dumps(m | {"eos_id": 3}), "does not have its hash: it was changed after it was written"),
    (lambda m: json.dumps(m | {"settings": {"text_key": "other"}}), "does not have its hash"),
    (lambda m: json.dumps(m | {"bos_id": 10**6}), "cannot be <u2"),
    (lambda m: "[" * 100_000, "recursion"),
    (lambda m: json.dumps({k: v for k, v in m.items() if k != "bos_id"}), "'bos_id' is missing"),
    (lambda m: json.dumps(m)[:-30], "Expecting|Unterminated"),
])
def test_a_damaged_manifest_is_refused(folder_of, change, reason):
    folder = folder_of("x", [[3, 4]])
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    (folder / MANIFEST_FILE).write_text(change(manifest))
    with pytest.raises(DataError, match=f"manifest.json is damaged .*({reason}).*prepare it again") as caught:
        TokenSource(folder, 4)
    assert "\n" not in str(caught.value)


def test_another_tokenizer_is_refused(folder_of):
    source = TokenSource(folder_of("x", [[3, 4]]), 4)
    source.check_fits("some tokenizer", 100)
    with pytest.raises(DataError, match=r"made with another tokenizer .*prepare it again or set --data.tokenizer"):
        source.check_fits("other", 100)
    with pytest.raises(DataError, match=r"with 100 pieces but model.vocab_size is 99; set --model.vocab_size 100"):
        source.check_fits("some tokenizer", 99)
