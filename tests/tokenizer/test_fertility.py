"""Fertility and its relatives are ratios of counts."""

from llama_jax.tokenizer.fertility import measure_fertility


def test_fertility_counts(tokenizer):
    texts = ["to be or not", "\U0001f600\n"]
    ids = [tokenizer.encode(text) for text in texts]
    assert measure_fertility(tokenizer, texts) == {
        "vocab_size": 512, "bytes": 17, "words": 5, "tokens": len(ids[0]) + len(ids[1]),
        "bytes_per_token": 17 / (len(ids[0]) + len(ids[1])), "tokens_per_word": (len(ids[0]) + len(ids[1])) / 5,
        "byte_fallback_share": 5 / (len(ids[0]) + len(ids[1])),
    }
