"""Every field of OpenAI's completions reference: served as it says there, or refused by name."""

import json
import random
import time

import pytest

from llama_jax.inference.generate import generate
from llama_jax.inference.sampling import Sampling
from llama_jax.serving.protocol import FIELD_CHECKS, RequestError, decode_body, parse_request
from tests.golden.models import small_model
from tests.serving.running_server import events, joined, post, serving

ASKED = {"prompt": "ROMEO:", "max_tokens": 8, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return small_model(2)


@pytest.fixture(scope="module")
def client(model, tokenizer):
    with serving(*model, tokenizer, slots=4) as client:
        yield client


def texts(client, **body) -> list[str]:
    answer = post(client, **body)
    assert answer.status_code == 200, answer.text
    return [choice["text"] for choice in answer.json()["choices"]]


def refused(client, field: str, **body) -> dict:
    """The error, which must name the field."""
    answer = post(client, **ASKED | body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert error["param"] == field and field in error["message"]
    return error


def test_prompt_in_all_four_forms(client, tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("ROMEO:")]
    wanted = texts(client, **ASKED)
    for prompt in (ids, ["ROMEO:"], [ids]):
        assert texts(client, **ASKED | {"prompt": prompt}) == wanted
    both = ASKED | {"temperature": 0, "echo": True}
    wanted = texts(client, **both) + texts(client, **both | {"prompt": "JULIET:"})
    assert texts(client, **both | {"prompt": ["ROMEO:", "JULIET:"]}) == wanted
    assert texts(client, **both | {"prompt": [ids, [tokenizer.bos_id, *tokenizer.encode("JULIET:")]]}) == wanted


@pytest.mark.parametrize("prompt", ["", [], [[]], 7, True, {}, [True], [1.0], [None], ["a", 1], [-1], [512], [10**30],
                                    [[[1]]], [""]], ids=str)
def test_prompts_that_are_none(client, prompt):
    refused(client, "prompt", prompt=prompt)


def test_model(client):
    for name in ("small", "", None):
        assert post(client, **ASKED, model=name).json()["model"] == "small"
    answer = post(client, **ASKED, model="large")
    assert answer.status_code == 404
    assert (answer.json()["error"]["param"], answer.json()["error"]["code"]) == ("model", "model_not_found")
    refused(client, "model", model=5)


def test_max_tokens(client, model, tokenizer):
    usage = post(client, prompt="ROMEO:", temperature=0).json()["usage"]
    assert usage["completion_tokens"] == 16
    assert post(client, prompt="ROMEO:", temperature=0, max_tokens=None).json()["usage"] == usage
    left = model[0].config.max_length - usage["prompt_tokens"]
    full = post(client, **ASKED | {"max_tokens": left}).json()
    assert full["usage"]["completion_tokens"] == left and full["choices"][0]["finish_reason"] == "length"
    for stream in (False, True):
        error = refused(client, "max_tokens", max_tokens=left + 1, stream=stream)
        assert error["code"] == "context_length_exceeded" and str(left) in error["message"]
    assert refused(client, "prompt", prompt=[5] * 64)["code"] == "context_length_exceeded"
    assert post(client, prompt=[5] * 60, temperature=0).json()["usage"]["completion_tokens"] == 4  # not asked: what there is
    none = post(client, **ASKED | {"max_tokens": 0}).json()
    assert none["choices"][0]["text"] == "" and none["choices"][0]["finish_reason"] == "length"
    assert none["usage"]["completion_tokens"] == 0


def test_temperature_and_top_p(client, model, tokenizer):
    greedy, hot = Sampling(temperature=0, max_new_tokens=8), Sampling(temperature=2, top_p=0.5, max_new_tokens=8, seed=3)
    for sampling, body in ((greedy, {"temperature": 0}), (hot, {"temperature": 2, "top_p": 0.5})):
        [wanted] = generate(*model, tokenizer, ["ROMEO:"], sampling)
        assert texts(client, **ASKED, **body) == [wanted.text]
    assert texts(client, **ASKED, temperature=None, top_p=None) == texts(client, **ASKED, temperature=1, top_p=1.0)
    for value in (-0.1, 2.1, "1", True, float("nan"), float("inf"), [1]):
        refused(client, "temperature", temperature=value)
    for value in (0, -0.1, 1.1, "1", True, float("nan")):
        refused(client, "top_p", top_p=value)


def test_n_and_seed(client):
    three = texts(client, **ASKED, n=3)
    assert len(set(three)) == 3 and three[:1] == texts(client, **ASKED, n=1) == texts(client, **ASKED, n=None)
    assert three == texts(client, **ASKED, n=3) != texts(client, **ASKED | {"seed": 4}, n=3)
    unseeded = [texts(client, prompt="ROMEO:", seed=None)[0] for _ in range(4)]
    assert len(set(unseeded)) == 4
    for seed in (0, -1, 2**63 - 1, -(2**63)):
        assert texts(client, **ASKED | {"seed": seed}) == texts(client, **ASKED | {"seed": seed})
    for value in (2**63, 1.0, "3", True):
        refused(client, "seed", seed=value)
    for value in (0, -1, 1.0, True, "2", 17):
        refused(client, "n", n=value)


def test_stop(client):
    body = {"prompt": "ROMEO:", "max_tokens": 30, "temperature": 0}
    [text] = texts(client, **body)
    assert [text] == texts(client, **body, stop=None) == texts(client, **body, stop=[]) == texts(client, **body, stop="never")
    for begin in range(len(text) - 2):
        stop = text[begin : begin + 3]
        for answer in (post(client, **body, stop=stop).json()["choices"],
                       joined(events(post(client, **body, stop=["never", stop], stream=True)))):
            assert answer[0]["text"] == text[: text.index(stop)] and answer[0]["finish_reason"] == "stop"
    for value in (5, [5], "", [""], list("abcde"), True, {}):
        refused(client, "stop", stop=value)


def test_a_stop_string_that_the_last_token_completes(client):
    """The budget ends where the stop string does: it is a stop; one token earlier it is the length, and no text is lost."""
    body = {"prompt": "ROMEO:", "temperature": 0, "logprobs": 0}
    [choice] = post(client, **body, max_tokens=12).json()["choices"]
    last = choice["logprobs"]["text_offset"][-1]
    stop = choice["text"][last - 1 :]
    assert choice["text"].index(stop) == last - 1 and len(stop) > 1
    for stream in (False, True):
        ended, cut = (post(client, **body, max_tokens=count, stop=stop, stream=stream) for count in (12, 11))
        [ended], [cut] = (joined(events(one)) if stream else one.json()["choices"] for one in (ended, cut))
        assert (ended["text"], ended["finish_reason"]) == (choice["text"][: last - 1], "stop")
        assert (cut["text"], cut["finish_reason"]) == (choice["text"][:last], "length")
        assert ended["logprobs"]["tokens"] == choice["logprobs"]["tokens"]
        assert max(ended["logprobs"]["text_offset"]) <= len(ended["text"])


def test_echo(client):
    [text] = texts(client, **ASKED)
    assert texts(client, **ASKED, echo=True) == ["ROMEO:" + text] and texts(client, **ASKED, echo=None) == [text]
    assert texts(client, **ASKED | {"max_tokens": 0}, echo=True, n=2) == ["ROMEO:", "ROMEO:"]
    refused(client, "echo", echo=1)


def test_logprobs(client):
    for count in range(6):
        [choice] = post(client, **ASKED, logprobs=count).json()["choices"]
        table = choice["logprobs"]
        for name, value, top in zip(table["tokens"], table["token_logprobs"], table["top_logprobs"], strict=True):
            assert top[name] == value and len(top) in (count, count + 1)
    assert post(client, **ASKED, logprobs=None).json()["choices"][0]["logprobs"] is None
    for value in (6, -1, 1.0, True, "1"):
        refused(client, "logprobs", logprobs=value)


def test_stream_and_its_options(client):
    whole = post(client, **ASKED, n=2).json()
    for options in (None, {}, {"include_usage": False}, {"include_usage": None}, {"include_obfuscation": False}):
        pieces = events(post(client, **ASKED, n=2, stream=True, stream_options=options))
        assert not any("usage" in piece for piece in pieces)
        assert [choice["text"] for choice in joined(pieces)] == [choice["text"] for choice in whole["choices"]]
    pieces = events(post(client, **ASKED, n=2, stream=True, stream_options={"include_usage": True}))
    assert [piece["usage"] for piece in pieces] == [None] * (len(pieces) - 1) + [whole["usage"]]
    assert pieces[-1]["choices"] == [] and len({(piece["id"], piece["created"]) for piece in pieces}) == 1
    for value in (1, "true", []):
        refused(client, "stream", stream=value)
    for value in ([], 1, {"include_usage": 1}, {"include_obfuscation": True}, {"usage": True}):
        refused(client, "stream_options", stream=True, stream_options=value)
    refused(client, "stream_options", stream_options={"include_usage": True})  # without stream


@pytest.mark.parametrize("field, nothing, something", [
    ("best_of", [None, 2], [1, 3, 0, True, 2.0, "2"]),  # beside n = 2
    ("frequency_penalty", [None, 0, 0.0], [0.5, -2, 3, True, False, "0", float("nan")]),
    ("presence_penalty", [None, 0, 0.0], [0.5, -2, 3, True, False, "0"]),
    ("logit_bias", [None, {}], [{"5": 1}, [], 0, ""]),
    ("suffix", [None, ""], ["end", 0, []]),
])
def test_fields_that_are_served_only_where_they_ask_for_nothing(client, field, nothing, something):
    wanted = texts(client, **ASKED, n=2)
    for value in nothing:
        assert texts(client, **ASKED, n=2, **{field: value}) == wanted
    for value in something:
        refused(client, field, n=2, **{field: value})


def test_fields_that_change_nothing_are_checked_too(client):
    wanted = texts(client, **ASKED)
    assert texts(client, **ASKED, user="me", metadata={"a": "b"}, store=False) == wanted
    for field, value in (("user", 5), ("metadata", []), ("store", "no")):
        refused(client, field, **{field: value})


def test_the_answer(client, tokenizer):
    answer = post(client, **ASKED | {"prompt": ["ROMEO:", "JULIET:"]}, n=2, echo=True).json()
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert answer["object"] == "text_completion" and abs(answer["created"] - time.time()) < 60
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert all(set(choice) == {"index", "text", "logprobs", "finish_reason"} for choice in answer["choices"])
    read = sum(len(tokenizer.encode(prompt)) + 1 for prompt in ("ROMEO:", "JULIET:"))  # each prompt once, echoed or not
    assert answer["usage"] == {"prompt_tokens": read, "completion_tokens": 32, "total_tokens": read + 32}
    again = post(client, **ASKED).json()
    assert again["id"] != answer["id"] and again["system_fingerprint"] == answer["system_fingerprint"]


def test_fingerprints_differ_where_the_numbers_may(client, tokenizer):
    with serving(*small_model(2, num_layers=2), tokenizer) as other:
        assert other.engine.fingerprint != client.engine.fingerprint


HALF = "\ud83d"


@pytest.mark.parametrize("field, value", [
    (HALF, 1), (f"x{HALF}y", None), ("prompt", f"a{HALF}"), ("prompt", ["a", HALF]), ("stop", HALF), ("stop", ["a", HALF]),
    ("user", HALF), ("model", HALF), ("suffix", HALF), ("metadata", {HALF: "a"}), ("metadata", {"a": [HALF]}),
    ("stream_options", {HALF: True}), ("logit_bias", {HALF: 1}), ("seed", HALF), ("echo", HALF),
])
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(client, field, value):
    answer = client.post("/v1/completions", content=json.dumps(ASKED | {field: value}))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == field.replace(HALF, "\\ud83d")


@pytest.mark.parametrize("content, param", [
    (b'{"prompt": "a", "n": 1, "n": 2}', "n"), (b'{"prompt": "a", "prompt": "a"}', "prompt"),
    (b'{"prompt": "a", "metadata": {"x": 1, "x": 1}}', "x"), (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
    (b'{"prompt": "a", "temperature": -Infinity}', "temperature"), (b'{"prompt": "a", "seed": NaN}', "seed"),
    (b'{"prompt": "a", "max_tokens": 1' + b"0" * 4000 + b"}", "max_tokens"), (b'{"prompt": [1' + b"0" * 4000 + b"]}", "prompt"),
    (b'{"prompt": "a", "' + b"x" * 10_000 + b'": 1}', "x" * 100), (b'{"prompt": "a", "\\u0000": 1}', "\0"),
    ('\ufeff{"prompt": "a"}'.encode(), None), ('{"prompt": "a"}'.encode("utf-16"), None), (b'{"prompt": "\xe2\x82"}', None),
    (b'{"prompt": "a"} {}', None), (b'{"prompt": "a",}', None), (b"{'prompt': 'a'}", None),
], ids=lambda value: str(value)[:40])
def test_json_that_is_unusual(client, content, param):
    answer = client.post("/v1/completions", content=content)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_nesting_of_every_depth(client):
    for depth in [*range(1, 30), 100, 500, 900, 1000, 5000, 9000]:
        for field in ("prompt", "metadata", "n", "nonsense"):
            for left, right in (("[", "]"), ('{"a":', "}")):
                content = f'{{"prompt": "a", "max_tokens": 1, "{field}": {left * depth}1{right * depth}}}'
                if field == "prompt":
                    content = content.replace('"prompt": "a", ', "")
                status = client.post("/v1/completions", content=content[:20_000]).status_code
                # {"a": ...} is metadata like any other, and [1], [[1]] are prompts
                deepest = {("metadata", "{"): 7, ("prompt", "["): 2}.get((field, left[0]), 0)
                assert status == (200 if depth <= deepest else 400), content[:100]


def test_whatever_parse_takes_sampling_takes():
    """A request that was let through is never refused later by words made for another place."""
    rng = random.Random(0)
    numbers = [0, 1, 2, 5, -1, 0.0, 1e-300, 0.5, 1.0, 2.0, 1e308, 2**31 - 1, 2**31, 2**63 - 1, -(2**63), 2**64, float("nan")]
    keys, taken = sorted(set(FIELD_CHECKS) - {"prompt"}), 0
    for _ in range(20_000):
        body = {"prompt": "a"} | {rng.choice(keys): rng.choice(numbers) for _ in range(rng.randint(1, 2))}
        try:
            asked = parse_request(decode_body(json.dumps(body).encode()), max_completions=10)
        except RequestError as error:
            assert error.status == 400 and (error.param in FIELD_CHECKS)
            continue
        asked.sampling(max_tokens=asked.max_tokens or 0, seed=asked.seed or 0)
        taken += 1
    assert taken > 1000
