"""What goes in comes out, ids are LLaMA's, and a text of any length has the ids of the whole."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.tokenizer import sentencepiece as module
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.tokenizer.training import train_sentencepiece


def test_metas_tokenizer_gives_the_listed_ids(shared_data):
    tokenizer = load_tokenizer(shared_data / "tokenizer" / "llama-tokenizer.model")
    texts = (shared_data / "tokenizer/llama-spm-cases.inp").read_text().split("\n__ggml_vocab_test__\n")
    ids = (shared_data / "tokenizer/llama-spm-cases.out").read_text().split("\n")
    assert len(texts) == len(ids) == 47
    for text, line in zip(texts, ids, strict=True):
        assert tokenizer.encode(text) == [int(i) for i in line.split()], text


@given(text=st.text())
@settings(max_examples=500)
def test_every_text_comes_back(tokenizer, text):
    text = text.replace("\u2581", "")  # SentencePiece writes a space so: see below
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_is_written_with_sentencepieces_own_space_comes_back_as_a_space(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\u2581b")) == "a b"


@pytest.mark.parametrize("text", [
    "", "\n", "\r\n", "a\n\nb\n", "\tx", "  two  spaces  ", "\0", "\ufeffx", "e\u0301", "\ufb01",
])
def test_nothing_is_normalised(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_control_pieces_and_bytes_have_llamas_ids(tokenizer):
    pieces = [tokenizer._processor.IdToPiece(i) for i in range(259)]
    assert pieces == ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 512)


@given(text=st.text(max_size=40))
def test_no_text_makes_a_control_piece(tokenizer, text):
    assert not {0, 1, 2} & set(tokenizer.encode(text + "<s></s><unk>" + text))


def test_digits_stand_alone():
    trained = train_sentencepiece([f"in 20{n % 50} there were {n * n} of 1234567890\n" for n in range(400)], 300)
    with_digits = {piece for piece in trained._pieces if re.search(r"\d", piece)}
    assert with_digits == set("0123456789")
    assert len(trained.encode("2023")) == 5  # the leading space and four digits


def test_a_letter_outside_the_vocabulary_becomes_its_bytes(tokenizer):
    assert tokenizer.encode("\U0001f600")[-4:] == [3 + byte for byte in "\U0001f600".encode()]


WORDS = st.sampled_from([
    "king", "the", " ", "  ", "\n", "Lord,", "\u00e9t\u00e9", "\U0001f600", "zzz", "\ue000", "\u2581",
])


@given(words=st.lists(WORDS, min_size=30, max_size=120))
def test_a_long_text_has_the_ids_of_the_whole(tokenizer, words):
    text = " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LONGEST_PART", 60)
        patch.setattr(module, "CUT_WINDOW", 40)
        assert tokenizer.encode(text) == tokenizer._processor.EncodeAsIds(text)
        assert tokenizer.encode_array(text).dtype == np.int32


def test_a_long_text_without_a_place_to_cut_still_comes_back(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_PART", 50)
    monkeypatch.setattr(module, "CUT_WINDOW", 20)
    for text in ("the" * 100, "\u4e00" * 333, "\ue000" * 120):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_tokenizer_that_normalises_is_never_cut(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_PART", 50)
    tokenizer = train_sentencepiece(["some words and some more words\n" * 50], 290)
    monkeypatch.setattr(tokenizer._processor, "Normalize", lambda text: text.strip())
    text = "some words " * 30
    assert tokenizer.encode(text) == tokenizer._processor.EncodeAsIds(text)
