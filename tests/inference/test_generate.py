"""generate and stream: text from prompts, the same whatever the batch."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from llama_jax.errors import ConfigError
from llama_jax.inference.generate import generate, generate_encoded, generate_long_text, stream
from llama_jax.inference.prompts import EncodedPrompt, encode_prompt
from llama_jax.inference.sampling import Sampling
from llama_jax.scoring.likelihood import loglikelihood
from llama_jax.tokenizer.sentencepiece import SentencePiece
from llama_jax.tokenizer.special_tokens import SpecialTokens
from llama_jax.tokenizer.training import train_sentencepiece

PROMPTS = ["ROMEO:", "First Citizen: Before we proceed", "A", "O, speak again", "Enter"]
WARM = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=20, seed=3)


def test_batches_and_order_change_nothing(gqa, tokenizer):
    """A prompt's place decides what it draws, not what is decoded with it or before it."""
    asked = [EncodedPrompt(encode_prompt(tokenizer, prompt, config=gqa[0].config), place) for place, prompt in enumerate(PROMPTS)]
    wanted = generate(*gqa, tokenizer, PROMPTS, WARM)
    alone = [generate_encoded(*gqa, tokenizer=tokenizer, prompts=[one], sampling=WARM)[0] for one in asked]
    assert [r.text for r in wanted] == [r.text for r in alone]
    counts = []
    backwards = generate_encoded(*gqa, tokenizer=tokenizer, prompts=asked[::-1], sampling=WARM, batch_size=2,
                               report=counts.append)[::-1]
    for one, other in zip(wanted, backwards, strict=True):
        assert (one.text, one.tokens, one.finish_reason) == (other.text, other.tokens, other.finish_reason)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    assert counts == [2, 2, 1]


def test_equal_prompts_draw_different_texts_and_repeat(gqa, tokenizer):
    again = [generate(*gqa, tokenizer, ["ROMEO:"] * 8, replace(WARM, num_samples=2), batch_size=size) for size in (16, 3)]
    assert [r.tokens for r in again[0]] == [r.tokens for r in again[1]] and len({r.tokens for r in again[0]}) == 16
    other = generate(*gqa, tokenizer, ["ROMEO:"] * 8, replace(WARM, num_samples=2, seed=4))
    assert not {r.tokens for r in again[0]} & {r.tokens for r in other}
    parts = ["".join(stream(*gqa, tokenizer, "ROMEO:", WARM, prompt_index=place)) for place in range(3)]
    assert parts == [r.text for r in again[0][0:6:2]]


def test_samples_of_prompts_are_independent(gqa, tokenizer):
    """First tokens of 400 pairs of equal prompts agree as often as those of independent draws do."""
    results = generate(*gqa, tokenizer, ["A"] * 800, replace(WARM, max_new_tokens=1), batch_size=800)
    first = np.array([r.tokens[0] if r.tokens else tokenizer.eos_id for r in results])
    share = np.bincount(first, minlength=512) / 800
    agree, chance = (first[:400] == first[400:]).mean(), (share**2).sum()
    assert chance < 0.5 and abs(agree - chance) < 5 * np.sqrt(chance * (1 - chance) / 400) + 0.01


def test_a_bare_prompt_is_one_prompt(gqa, tokenizer):
    wanted = generate(*gqa, tokenizer, ["ROMEO:"], WARM)
    assert generate(*gqa, tokenizer, "ROMEO:", WARM) == wanted
    ids = encode_prompt(tokenizer, "ROMEO:", config=gqa[0].config)
    for bare in (ids, tuple(ids), np.array(ids), jnp.array(ids)):
        assert generate(*gqa, tokenizer, bare, WARM) == generate(*gqa, tokenizer, [ids], WARM) == wanted
    assert generate(*gqa, tokenizer, [], WARM) == []


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
    ends = SentencePiece(tokenizer.model, SpecialTokens(eos_ids=(stories.greedy[5],)))
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
    text = generate_long_text(*gqa, tokenizer, "ROMEO:", Sampling(temperature=1.0, max_new_tokens=150))
    assert text.startswith("ROMEO:") and len(tokenizer.encode(text)) > 90
    assert text == generate_long_text(*gqa, tokenizer, "ROMEO:", Sampling(temperature=1.0, max_new_tokens=150))
    assert text != generate_long_text(*gqa, tokenizer, "ROMEO:", Sampling(temperature=1.0, max_new_tokens=150), prompt_index=1)


@pytest.mark.parametrize("prompt, message", [
    ("", "the prompt is empty"), ("a\ud83d", "not valid Unicode"), ([], "at least one"), ([5, 512], r"each in \[0, 512\)"),
    ([-1], "each in"), ([5, 512, 3], "each in"), ([5, 1.5], "whole numbers"), (7, "whole numbers"), (b"ROMEO", "whole numbers"),
    (["a", "b"], "whole numbers"), (None, "whole numbers"),
    ([True, False], "whole numbers"), ([5] * 64, "the prompt has 64 tokens and the model's context holds 64"),
])
def test_prompts_that_cannot_be_continued(gqa, tokenizer, prompt, message):
    with pytest.raises(ConfigError, match=message):
        generate(*gqa, tokenizer, ["fine", prompt], WARM)


@pytest.mark.parametrize("prompts", [None, 7, np.float32(1)])
def test_what_is_no_prompt_at_all(gqa, tokenizer, prompts):
    with pytest.raises(ConfigError, match="prompts are a text, ids, or a list of either, got"):
        generate(*gqa, tokenizer, prompts, WARM)


def test_a_tokenizer_with_more_ids_than_the_model_is_named(gqa, play):
    with pytest.raises(ConfigError, match=r"the tokenizer gives the id \d+ and the model has ids below 512"):
        generate(*gqa, train_sentencepiece([play], 600), ["First Citizen: O, speak again, good Camillo", "A"], WARM)


def test_a_batch_of_nothing_is_named(gqa, tokenizer):
    with pytest.raises(ConfigError, match="batch_size must be positive, got 0"):
        generate(*gqa, tokenizer, ["A"], WARM, batch_size=0)


def without(params: dict, *names: str) -> dict:
    return {name: value for name, value in params.items() if name not in names}


@pytest.mark.parametrize("damage, name", [
    (lambda params: {"params": params}, "embedding should be"), (lambda params: {}, "embedding"),
    (lambda params: without(params, "final_norm"), "final_norm.scale"),
    (lambda params: params | {"layers": jax.tree.map(lambda x: x[:1], params["layers"])}, r"layers.attention.wk should be \(3,"),
    (lambda params: params | {"layers": jax.tree.map(lambda x: jnp.concatenate([x, x]), params["layers"])}, "layers.attention"),
    (lambda params: params | {"head": params["head"][:, :-1]}, "head should be"),
    (lambda params: params | {"other": params["head"]}, "other should be absent"),
], ids=["wrapped", "none", "no norm", "a layer short", "layers twice", "a narrow head", "one more"])
def test_parameters_of_another_model_are_named(gqa, tokenizer, damage, name):
    """An array that is a layer short was read without an error: jax takes the last one for those that lack."""
    model, params = gqa
    for ask in (lambda params: generate(model, params, tokenizer, "a", WARM),
                lambda params: loglikelihood(model, params, tokenizer, ("a", "b"))):
        with pytest.raises(ConfigError, match=f"these are not the model's parameters: {name}"):
            ask(damage(params))


def test_parameters_as_init_gives_them(gqa, tokenizer):
    """In boxes that name their axes."""
    model, _ = gqa
    boxed = model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]
    assert generate(model, boxed, tokenizer, "a", WARM) == generate(model, nn.meta.unbox(boxed), tokenizer, "a", WARM)
    assert loglikelihood(model, boxed, tokenizer, ("a", "b")) == loglikelihood(model, nn.meta.unbox(boxed), tokenizer, ("a", "b"))
