"""generate and stream: text from prompts, the same whatever the batch."""

from dataclasses import replace

import numpy as np
import pytest

from llama_jax.data.rules import Rules
from llama_jax.data.spm import SentencePiece
from llama_jax.errors import ConfigError
from llama_jax.inference.generate import generate, long_text, stream
from llama_jax.inference.sampling import Sampling

PROMPTS = ["ROMEO:", "First Citizen: Before we proceed", "A", "O, speak again", "Enter"]
WARM = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=20, seed=3)


def test_batches_and_order_change_nothing(gqa, tokenizer):
    wanted = generate(*gqa, tokenizer, PROMPTS, WARM)
    assert [r.text for r in wanted] == [generate(*gqa, tokenizer, [prompt], WARM)[0].text for prompt in PROMPTS]
    counts = []
    backwards = generate(*gqa, tokenizer, PROMPTS[::-1], WARM, batch_size=2, report=counts.append)[::-1]
    for one, other in zip(wanted, backwards, strict=True):
        assert (one.text, one.tokens, one.finish_reason) == (other.text, other.tokens, other.finish_reason)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    assert counts == [2, 2, 1]


def test_samples_share_a_prefill_and_differ(gqa, tokenizer):
    results = generate(*gqa, tokenizer, PROMPTS[:2], replace(WARM, num_samples=4))
    assert len(results) == 8 and len({r.tokens for r in results[:4]}) == 4
    assert [results[0].tokens, results[4].tokens] == [r.tokens for r in generate(*gqa, tokenizer, PROMPTS[:2], WARM)]
    assert [r.tokens for r in results] == [r.tokens for r in generate(*gqa, tokenizer, PROMPTS[:2], replace(WARM, num_samples=4))]


def test_a_stream_is_the_text(gqa, tokenizer):
    [whole] = generate(*gqa, tokenizer, ["ROMEO:"], replace(WARM, max_new_tokens=50))
    parts = list(stream(*gqa, tokenizer, "ROMEO:", replace(WARM, max_new_tokens=50)))
    assert "".join(parts) == whole.text and len(parts) > 3


def test_stop_strings_end_the_text(gqa, tokenizer):
    [whole] = generate(*gqa, tokenizer, ["ROMEO:"], replace(WARM, max_new_tokens=50))
    stop = whole.text[10:13]
    choice = replace(WARM, max_new_tokens=50, stop=(stop,))
    [cut] = generate(*gqa, tokenizer, ["ROMEO:"], choice)
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finish_reason == "stop"
    assert "".join(stream(*gqa, tokenizer, "ROMEO:", choice)) == cut.text
    assert len(cut.tokens) < len(whole.tokens) and whole.finish_reason == "length"


def test_end_of_text_is_not_text(stories, tokenizer):
    """The model of stories ends one with BOS; take the token it says first as the end."""
    ends = SentencePiece(tokenizer.model, Rules(eos_ids=(stories.greedy[5],)))
    [result] = generate(stories.model, stories.params, ends, [stories.greedy[:1]], Sampling(temperature=0.0))
    assert result.tokens == tuple(stories.greedy[1:5]) and result.finish_reason == "stop"
    assert len(result.logprobs) == 4


def test_budgets(gqa, tokenizer):
    for count in (0, 1, 7):
        [result] = generate(*gqa, tokenizer, ["ROMEO:"], replace(WARM, max_new_tokens=count))
        assert len(result.tokens) == count and result.finish_reason == "length"
        assert "".join(stream(*gqa, tokenizer, "ROMEO:", replace(WARM, max_new_tokens=count))) == result.text
    ids = tokenizer.encode("ROMEO: " * 30)[:60]
    [full] = generate(*gqa, tokenizer, [ids], WARM)
    assert len(full.tokens) == 64 - 60 and full.finish_reason == "length"


def test_text_beyond_the_context(gqa, tokenizer):
    text = long_text(*gqa, tokenizer, "ROMEO:", Sampling(temperature=1.0, max_new_tokens=150))
    assert text.startswith("ROMEO:") and len(tokenizer.encode(text)) > 90
    assert text == long_text(*gqa, tokenizer, "ROMEO:", Sampling(temperature=1.0, max_new_tokens=150))


@pytest.mark.parametrize("prompt, message", [
    ("", "the prompt is empty"), ("a\ud83d", "not valid Unicode"), ([], "at least one"), ([5, 512], r"each in \[0, 512\)"),
    ([-1], "each in"), ([5] * 64, "the prompt has 64 tokens and the model's context holds 64"),
])
def test_prompts_that_cannot_be_continued(gqa, tokenizer, prompt, message):
    with pytest.raises(ConfigError, match=message):
        generate(*gqa, tokenizer, ["fine", prompt], WARM)
