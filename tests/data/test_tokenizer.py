"""What goes in comes out, ids are LLaMA's, and a text of any length has the ids of the whole."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_jax.errors import ConfigError, DataError
from llama_jax.tokenizer import sentencepiece as module
from llama_jax.tokenizer.fertility import measure_fertility
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.tokenizer.training import cut_line, subsample_sentences, train_sentencepiece


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


def test_training_again_gives_the_same_file(play, tokenizer):
    assert train_sentencepiece([play], 512).sha256 == tokenizer.sha256


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


@pytest.mark.parametrize("vocab_size, error, sentence", [
    (100, ConfigError, r"must be above 259 .*got 100"),
    (270, DataError, r"vocab_size 270 is too small for the text.* need \d+; set it to \d+ or more"),
    (4000, DataError, r"vocab_size 4000 is too large for the text.* \d+ pieces at most; set it to \d+ or less"),
])
def test_a_vocabulary_the_text_cannot_fill_is_refused(vocab_size, error, sentence):
    with pytest.raises(error, match=sentence) as caught:
        train_sentencepiece(["the quick brown fox jumps over the lazy dog\n"], vocab_size)
    assert "\n" not in str(caught.value)


def test_the_size_it_asks_for_is_the_size_that_works():
    with pytest.raises(DataError) as caught:
        train_sentencepiece(["the quick brown fox jumps over the lazy dog\n"], 4000)
    most = int(re.search(r"set it to (\d+)", str(caught.value))[1])
    assert train_sentencepiece(["the quick brown fox jumps over the lazy dog\n"], most).vocab_size == most


def test_no_text_is_refused():
    with pytest.raises(DataError, match="no text to train on"):
        train_sentencepiece(["", "\n\n"], 300)


def test_a_mistake_in_the_text_surfaces_as_itself():
    def texts():
        yield "some words\n"
        raise DataError("line 7 is broken")

    with pytest.raises(DataError, match=r"^line 7 is broken$"):
        train_sentencepiece(texts(), 300)


@given(line=st.text(alphabet="ab \u00e9", max_size=200), length=st.integers(1, 30))
def test_cut_loses_nothing(line, length):
    pieces = list(cut_line(line, length))
    assert "".join(pieces) == line and all(0 < len(piece) <= length for piece in pieces)


@given(lengths=st.lists(st.integers(1, 9), max_size=200), most=st.integers(20, 100))
def test_sample_is_even_and_bounded(lengths, most):
    sentences = [f"{number:03d}" + "x" * length for number, length in enumerate(lengths)]
    kept = subsample_sentences(sentences, most)
    strides = [2**k for k in range(9) if kept == sentences[:: 2**k]]
    assert strides or not sentences
    assert sum(map(len, kept)) <= most
    assert kept == sentences or sum(map(len, sentences)) > most


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 1000])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match=rf"tokenizer.model is not a SentencePiece model \({len(content)} bytes\)"):
        load_tokenizer(tmp_path)


def test_save_and_load(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "new")
    assert load_tokenizer(tmp_path / "new").sha256 == tokenizer.sha256
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["tokenizer.model"]
    with pytest.raises(DataError, match=r"no tokenizer at .*missing: expected"):
        load_tokenizer(tmp_path / "missing")


def test_fertility_counts(tokenizer):
    texts = ["to be or not", "\U0001f600\n"]
    ids = [tokenizer.encode(text) for text in texts]
    assert measure_fertility(tokenizer, texts) == {
        "vocab_size": 512, "bytes": 17, "words": 5, "tokens": len(ids[0]) + len(ids[1]),
        "bytes_per_token": 17 / (len(ids[0]) + len(ids[1])), "tokens_per_word": (len(ids[0]) + len(ids[1])) / 5,
        "byte_fallback_share": 5 / (len(ids[0]) + len(ids[1])),
    }
