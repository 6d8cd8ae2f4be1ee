"""Training a SentencePiece tokenizer: the same text gives the same file, and errors say which size would work."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.errors import ConfigError, DataError
from llama_jax.tokenizer.training import cut_line, subsample_sentences, train_sentencepiece


def test_training_again_gives_the_same_file(play, tokenizer):
    assert train_sentencepiece([play], 512).sha256 == tokenizer.sha256


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
