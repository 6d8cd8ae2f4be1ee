"""Fertility and its relatives are ratios of counts."""

import pytest
import sentencepiece
import tokenizers

from llama_jax.errors import DataError
from llama_jax.tokenizer.bpe import TokenizerJson
from llama_jax.tokenizer.fertility import TokenCounts, count_tokens, measure_fertility, pieces_with_several_digits
from llama_jax.tokenizer.load import load_tokenizer


def test_fertility_counts(tokenizer):
    texts = ["to be or not", "\U0001f600\n"]
    ids = [tokenizer.encode(text) for text in texts]
    assert measure_fertility(tokenizer, texts) == {
        "vocab_size": 512, "bytes": 17, "words": 5, "tokens": len(ids[0]) + len(ids[1]),
        "bytes_per_token": 17 / (len(ids[0]) + len(ids[1])), "tokens_per_word": (len(ids[0]) + len(ids[1])) / 5,
        "byte_fallback_share": 5 / (len(ids[0]) + len(ids[1])), "non_ascii_byte_share": 4 / (len(ids[0]) + len(ids[1])),
        "unknown_share": 0.0, "merged_digit_share": 0.0,
    }


def test_counts_by_source_add_up(tokenizer, play):
    counts = count_tokens(tokenizer, {"a": [play[:1000], play[1000:3000]], "b": [play[3000:4000]]})
    assert (counts["a"].documents, counts["a"].bytes, counts["b"].bytes) == (2, 3000, 1000)
    assert counts["a"] + counts["b"] == count_tokens(tokenizer, {"": [play[:1000], play[1000:3000], play[3000:4000]]})[""]
    with pytest.raises(DataError, match="b hold no text to report on"):
        count_tokens(tokenizer, {"a": ["x"], "b": []})
    assert set(TokenCounts().ratios().values()) == {0.0}


def test_llama_splits_numbers_into_digits(shared_data, tokenizer):
    """As the paper says (section 2.1): 1234 is four tokens, with the space before it five."""
    llama = load_tokenizer(shared_data / "tokenizer/llama-tokenizer.model")
    counts = count_tokens(llama, {"": ["it was 1234, or 0.5"]})[""]
    assert (counts.digits, counts.merged_digits) == (6, 0)
    assert pieces_with_several_digits(llama) == [] == pieces_with_several_digits(tokenizer)


def of_words(words: list[str], **options) -> TokenizerJson:
    """A tokenizer whose pieces are words."""
    vocabulary = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return TokenizerJson(made.to_str().encode())


def test_digits_that_share_a_token_and_unknown_words():
    tokenizer = of_words(["in", "1984", "7", "x86"])
    counts = count_tokens(tokenizer, {"": ["in 1984 7 x86 nobody knew 42"]})[""]
    assert (counts.tokens, counts.unknown_tokens) == (7, 3)
    assert (counts.digits, counts.merged_digits) == (4 + 1 + 2, 4 + 2)
    assert pieces_with_several_digits(tokenizer) == ["1984", "x86"]


def test_unknown_ids(tokenizer, byte_level):
    assert tokenizer.unknown_id == 0 == of_words(["a"]).unknown_id
    assert TokenizerJson(byte_level.to_str().encode()).unknown_id is None
    assert isinstance(tokenizer._processor, sentencepiece.SentencePieceProcessor) and tokenizer._processor.IsUnknown(0)
