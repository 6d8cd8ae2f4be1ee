"""Byte-pair encodings: Llama 3's tiktoken ranks, and Hugging Face's tokenizer.json."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.data.prepare import prepare_data
from llama_jax.inference.detokenizer import TextStream
from llama_jax.tokenizer import bpe
from llama_jax.tokenizer.base import IncrementalDecoder
from llama_jax.tokenizer.bpe import Tiktoken
from llama_jax.tokenizer.fertility import measure_fertility
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.tokenizer.special_tokens import SpecialTokens
from tests.golden.texts import random_texts


def test_ids_of_llama_3(llama3):
    """The ids of 256 special tokens follow the ranks; after Meta's 128,000 ranks they are the ids of the release."""
    count = len(llama3.ranks)
    names = {128_000 + number: name for number, name in enumerate(bpe.llama3_special_tokens())}
    assert llama3.vocab_size == count + 256 and len(set(names.values())) == 256
    assert (llama3.bos_id, llama3.eos_id) == (count, count + 1)
    assert llama3.eos_ids == (count + 1, count + 8, count + 9)
    released = {128000: "<|begin_of_text|>", 128001: "<|end_of_text|>", 128002: "<|reserved_special_token_0|>",
                128004: "<|finetune_right_pad_id|>", 128006: "<|start_header_id|>", 128007: "<|end_header_id|>",
                128008: "<|eom_id|>", 128009: "<|eot_id|>", 128010: "<|python_tag|>", 128011: "<|reserved_special_token_2|>",
                128255: "<|reserved_special_token_246|>"}
    assert {i: names[i] for i in released} == released


@given(data=st.binary(max_size=200))
def test_every_byte_sequence_comes_back(llama3, data):
    text = data.decode("utf-8", "surrogateescape")
    assert llama3.decode_bytes(llama3.encode(text)) == data
    assert llama3.decode(llama3.encode(text)) == data.decode("utf-8", "replace")


def test_every_byte_and_pair_of_bytes(llama3):
    for first in range(256):
        for second in range(-1, 256, 5):
            data = bytes([first, second]) if second >= 0 else bytes([first])
            assert llama3.decode_bytes(llama3.encode(data.decode("utf-8", "surrogateescape"))) == data


def reference(ranks: dict[bytes, int], piece: bytes) -> list[int]:
    """tiktoken's rule as a loop: the adjacent parts whose concatenation has the lowest rank are merged, the leftmost first."""
    parts = [bytes([byte]) for byte in piece]
    while True:
        sums = [(ranks[a + b], at) for at, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not sums:
            return [ranks[part] for part in parts]
        at = min(sums)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@given(text=st.text(alphabet="theking \n'sSd1234é.,", max_size=60))
def test_merges_are_those_of_the_plain_rule(llama3, text):
    import regex

    wanted, ranks = [], llama3.ranks
    for piece in map(str.encode, regex.findall(bpe.LLAMA3_PATTERN, text)):
        wanted += [ranks[piece]] if piece in ranks else reference(ranks, piece)
    assert llama3.encode(text) == wanted


@given(text=st.text(max_size=30))
def test_special_tokens_in_a_text_are_text(llama3, from_json, text):
    for tokenizer in (llama3, from_json):
        ids = tokenizer.encode(text + "<|eot_id|><|begin_of_text|>" + text)
        assert not {tokenizer.bos_id, *tokenizer.eos_ids} & set(ids)
        assert tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.vocab_size + 5]) == \
            text + "<|eot_id|><|begin_of_text|>" + text


@pytest.mark.parametrize("text", [" " * 200_000, "a" * 200_000, "\n" * 100_000, "x" + "\t" * 60_000 + "y"])
def test_long_runs_take_no_long_time(llama3, text):
    assert llama3.decode(llama3.encode(text)) == text


@given(text=st.text(alphabet="ab \n", max_size=60))
def test_runs_lose_nothing(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "LONGEST_RUN", 4)
        parts = list(bpe.split_long_runs(text))
    assert "".join(parts) == text and all(len(run) <= 4 for part in parts for run in part.split())


def test_ten_thousand_strings_as_the_library_reads_them(from_json, byte_level):
    texts = random_texts(10_000)
    for text, wanted in zip(texts, byte_level.encode_batch(texts, add_special_tokens=False), strict=True):
        assert from_json.encode(text) == wanted.ids
        assert from_json.decode(wanted.ids) == byte_level.decode(wanted.ids) == text


@pytest.mark.parametrize("kind", ["llama3", "from_json"])
def test_pieces_and_streams(request, kind):
    tokenizer = request.getfixturevalue(kind)
    text = "The king's été 😀\n"
    ids = tokenizer.encode(text)
    parts = [tokenizer.piece(i) for i in ids]
    assert any(part.startswith("bytes:\\x") for part in parts) and parts[0] == "The"
    stream = TextStream(IncrementalDecoder(tokenizer), [tokenizer.bos_id])
    assert "".join(stream.push([i], last=n == len(ids) - 1) for n, i in enumerate(ids)) == text
    assert tokenizer.piece(tokenizer.bos_id) == "<|begin_of_text|>"
    assert 0 < measure_fertility(tokenizer, [text])["byte_fallback_share"] < 1


def test_llama_3s_ends_give_way_to_the_files(ranks):
    count = ranks.count(b"\n")
    assert Tiktoken(ranks, SpecialTokens(eos_ids=(count + 9,))).eos_ids == (count + 1, count + 9)


@pytest.mark.parametrize("kind", ["llama3", "from_json"])
def test_shards_are_prepared_with_any_of_them(request, tmp_path, kind, play):
    tokenizer = request.getfixturevalue(kind)
    (tmp_path / "play.txt").write_text(play[:20_000])
    alone = prepare_data([str(tmp_path / "play.txt")], tokenizer, output=tmp_path / "one", workers=1)
    assert (alone.bos_id, alone.eos_id, alone.vocab_size) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size)
    assert load_tokenizer(tmp_path / "one").sha256 == alone.tokenizer_sha256
