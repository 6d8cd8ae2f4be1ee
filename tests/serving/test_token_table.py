"""Tables of tokens that the server returns, streamed under load or whole: the offset of each token, and its name."""

import random
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import pytest
import tokenizers
from tokenizers import decoders, models

from llama_jax.inference.generate import generate
from llama_jax.inference.sampling import Sampling
from llama_jax.serving.token_table import TokenOffsets, token_names
from llama_jax.tokenizer.base import IncrementalDecoder
from llama_jax.tokenizer.bpe import TokenizerJson
from llama_jax.tokenizer.special_tokens import SpecialTokens
from tests.golden.models import small_model
from tests.serving.running_server import events, joined, post, serving


@pytest.fixture(scope="module")
def model():
    return small_model(2)


@pytest.fixture(scope="module")
def client(model, tokenizer):
    with serving(*model, tokenizer, slots=16, queue=300) as client:
        yield client


def check_table(choice: dict) -> None:
    """What holds for every table of a whole choice."""
    text, table = choice["text"], choice["logprobs"]
    offsets = table["text_offset"]
    assert len({len(column) for column in table.values()}) == 1
    assert offsets == sorted(offsets) and all(0 <= offset <= len(text) for offset in offsets)
    for place, (name, offset) in enumerate(zip(table["tokens"], offsets, strict=True)):
        if not name.startswith(("bytes:", "<s>", "<unk>", "token_id:")) and offset < len(text) and place > 1:
            assert text.startswith(name, offset) or name.startswith(text[offset:])  # a stop string cuts the last
    for name, value, top in zip(table["tokens"], table["token_logprobs"], table["top_logprobs"], strict=True):
        assert (value is None) == (top is None)
        assert top is None or top[name] == value


def check_events(pieces: list[dict]) -> None:
    """Every event's tokens begin in the text of that event; only the last may bring tokens behind the text."""
    told: dict[int, int] = {}
    for piece in pieces:
        for choice in piece["choices"]:
            begin = told.get(choice["index"], 0)
            end = told[choice["index"]] = begin + len(choice["text"])
            for offset in choice["logprobs"]["text_offset"]:
                assert begin <= offset and (offset < end or choice["finish_reason"])


def same(streamed: dict, whole: dict) -> None:
    """Equal in all but the last bits of a float32: rows of other batches are summed in another order."""
    values = [choice["logprobs"].pop("token_logprobs") for choice in (streamed, whole)]
    assert values[0] == pytest.approx(values[1], abs=2e-5, nan_ok=True)
    tops = [choice["logprobs"].pop("top_logprobs") for choice in (streamed, whole)]
    for one, other in zip(*tops, strict=True):
        assert (one is None and other is None) or one == pytest.approx(other, abs=2e-5)
    assert streamed == whole


def test_sixty_four_streams_tell_what_each_request_gets_alone_and_whole(client):
    rng = random.Random(0)
    bodies = [{"prompt": rng.choice(["Speaker {}:", "é{}日本", " {}\n\n"]).format(n), "seed": n, "max_tokens": rng.randint(0, 30),
               "temperature": rng.choice([0, 0.7, 1.5]), "logprobs": rng.randint(0, 5), "echo": n % 2 == 0,
               "n": rng.choice([1, 1, 2, 3]), "stop": rng.choice([None, "e", ["th", "qu", " a"]])} for n in range(64)]
    with ThreadPoolExecutor(64) as pool:
        streams = list(pool.map(lambda body: events(post(client, **body, stream=True)), bodies))
    tokens = 0
    for body, pieces in zip(bodies, streams, strict=True):
        check_events(pieces)
        whole = post(client, **body).json()
        for streamed, alone in zip(joined(pieces), whole["choices"], strict=True):
            check_table(alone)
            tokens += len(alone["logprobs"]["tokens"])
            same(streamed, alone)
    assert tokens > 1000
    assert any(len(pieces) > 5 for pieces in streams)


def test_prompts_of_ids_that_end_inside_a_character(client, model, tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("日本")]
    for cut in range(2, len(ids) + 1):
        body = {"prompt": ids[:cut], "max_tokens": 12, "seed": cut, "logprobs": 2}
        [echoed] = post(client, **body, echo=True).json()["choices"]
        [bare] = post(client, **body).json()["choices"]
        [streamed] = joined(events(post(client, **body, echo=True, stream=True)))
        check_table(echoed)
        settled = IncrementalDecoder(tokenizer).push(ids[:cut])
        assert echoed["text"] == settled + bare["text"] == streamed["text"]
        assert echoed["logprobs"]["text_offset"] == streamed["logprobs"]["text_offset"]
        assert echoed["logprobs"]["text_offset"][cut:] == [len(settled) + n for n in bare["logprobs"]["text_offset"]]
        assert tokenizer.decode(ids[:cut]).startswith(settled)


def byte_id(tokenizer, byte: int) -> int:
    return next(i for i in range(tokenizer.vocab_size) if tokenizer.is_byte(i) and tokenizer.name(i) == f"<0x{byte:02X}>")


def test_where_tokens_begin(tokenizer):
    e2, x82, ac = (byte_id(tokenizer, byte) for byte in "€".encode())
    [a] = [i for i in tokenizer.encode("xa")[-1:]]
    bos, half = tokenizer.bos_id, "\ufffd"
    for ids, text, offsets in [
        ([bos, a, e2, x82, ac, a], "a€a", [0, 0, 1, 1, 1, 2]),
        ([a, e2, x82, a], f"a{half}{half}a", [0, 1, 2, 3]),  # never finished: each byte is a character
        ([a, e2, bos, x82, bos], f"a{half}{half}", [0, 1, 2, 2, 3]),  # a control piece ends a character
        ([a, e2, x82], f"a{half}{half}", [0, 1, 2]),
        ([x82, x82, a], f"{half}{half}a", [0, 1, 2]),
    ]:
        assert tokenizer.decode(ids) == text
        assert TokenOffsets(tokenizer).push(ids, last=True) == offsets
        one_by_one = TokenOffsets(tokenizer)
        assert [offset for n in ids for offset in one_by_one.push([n])] + one_by_one.push([], last=True) == offsets


def test_random_ids_begin_where_the_text_before_them_ends(tokenizer):
    """Against one decode of every beginning: its longest common beginning with the whole text."""
    rng = random.Random(0)
    for _ in range(300):
        ids = [rng.randrange(tokenizer.vocab_size) for _ in range(rng.randint(1, 30))]
        text = tokenizer.decode(ids)
        settled = [IncrementalDecoder(tokenizer).push(ids[:n], last=True) for n in range(len(ids))]
        wanted = [next((k for k, (x, y) in enumerate(zip(one, text, strict=False)) if x != y), min(len(one), len(text)))
                  for one in settled]
        assert TokenOffsets(tokenizer).push(ids, last=True) == wanted


def alike(model, params, *ids: int):
    """Parameters under which these ids are the most likely ones, all equally."""
    head = params["head"]
    return model, params | {"head": head.at[:, jnp.array(ids)].set(20 * head[:, ids[0]][:, None])}


def test_two_ids_of_one_text_are_told_apart(model, tokenizer):
    letter, byte = tokenizer.encode("xE")[-1], byte_id(tokenizer, ord("E"))
    assert tokenizer.piece(letter) == tokenizer.piece(byte) == "E"
    drawn = set()
    with serving(*alike(*model, letter, byte), tokenizer) as client:
        for seed in range(20):
            for choice in post(client, prompt="x:", max_tokens=3, logprobs=5, n=2, seed=seed).json()["choices"]:
                check_table(choice)
                for name, top in zip(choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"], strict=True):
                    assert len(top) == 5 + (name not in list(top)[:5])
                    assert ("E" in top) == ("bytes:\\x45" in top)
                    drawn.add(name)
    assert {"E", "bytes:\\x45"} <= drawn


@pytest.mark.parametrize("kind", ["sentencepiece", "json with byte fallback", "byte level"])
def test_every_id_has_a_name_of_its_own(kind, tokenizer, byte_level):
    if kind == "json with byte fallback":
        vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{n:02X}>": 3 + n for n in range(256)}, "A": 259, "\u2581A": 260}
        made = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
        made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
        tokenizer = TokenizerJson(made.to_str().encode(), SpecialTokens())
    elif kind == "byte level":
        tokenizer = TokenizerJson(byte_level.to_str().encode(), SpecialTokens())
    names = token_names(tokenizer, tokenizer.vocab_size + 7)
    assert len(set(names)) == len(names) == tokenizer.vocab_size + 7 and "" not in names
    assert names[-7:] == tuple(f"token_id:{tokenizer.vocab_size + n}" for n in range(7))
    kept = [i for i in range(tokenizer.vocab_size) if names[i] == tokenizer.piece(i)]
    texts = {tokenizer.piece(i) for i in range(tokenizer.vocab_size)} - {""}
    assert {names[i] for i in kept} == texts  # every text is somebody's name
    if kind == "json with byte fallback":
        assert (names[259], names[3 + 0x41], names[3 + 0x42], names[3 + 0xE2]) == ("A", "bytes:\\x41", "B", "bytes:\\xe2")


@pytest.mark.parametrize("stream", [False, True])
def test_a_vocabulary_that_is_larger_than_the_tokenizer(stream, tokenizer):
    """Filled up to 576: ids without a piece are not drawn, however likely; in lists of the likeliest they have a name."""
    model, params = small_model(2, vocab_size=576)
    likely = alike(model, params, *range(512, 576))
    with serving(*likely, tokenizer) as client:
        for temperature in (0, 1):
            body = {"prompt": "x:", "max_tokens": 20, "logprobs": 5, "echo": True, "n": 3, "temperature": temperature,
                    "seed": 0}
            answer = post(client, **body, stream=stream)
            assert answer.status_code == 200
            choices = joined(events(answer)) if stream else answer.json()["choices"]
            assert len(choices) == 3
            for choice in choices:
                check_table(choice)
                assert len(choice["text"]) > 2 and not any(name.startswith("token_id") for name in choice["logprobs"]["tokens"])


def test_generate_does_not_draw_them_either(tokenizer):
    likely = alike(*small_model(2, vocab_size=576), *range(512, 576))
    for sampling in (Sampling(temperature=0, max_new_tokens=20), Sampling(top_p=1.0, max_new_tokens=20, num_samples=4)):
        results = generate(*likely, tokenizer, ["x:"], sampling)
        assert all(len(result.tokens) > 5 and max(result.tokens) < 512 for result in results)
        assert all(sum(result.logprobs) < 0 for result in results)
        with serving(*likely, tokenizer) as client:
            body = {"prompt": "x:", "max_tokens": 20, "temperature": sampling.temperature, "seed": 0, "n": sampling.num_samples}
            assert [choice["text"] for choice in post(client, **body).json()["choices"]] == [r.text for r in results]


def test_ids_beyond_the_tokenizer_in_a_prompt_have_no_text_and_a_name(tokenizer):
    model, params = small_model(2, vocab_size=576)
    with serving(model, params, tokenizer) as client:
        ids = [1, *tokenizer.encode("ROMEO"), 575]
        [choice] = post(client, prompt=ids, max_tokens=2, logprobs=0, echo=True, temperature=0).json()["choices"]
        assert choice["text"].startswith("ROMEO")
        assert choice["logprobs"]["tokens"][len(ids) - 1] == "token_id:575"
        assert choice["logprobs"]["text_offset"][len(ids) - 1 : len(ids) + 1] == [5, 5]
        assert post(client, prompt=[576]).json()["error"]["param"] == "prompt"
