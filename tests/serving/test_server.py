"""The server over real sockets: the protocol, its refusals, many clients, clients that leave, and noise."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from llama_jax.inference.generate import generate
from llama_jax.inference.sampling import Sampling
from tests.golden.models import small_model
from tests.serving.running_server import events, post, serving


@pytest.fixture(scope="module")
def small_gqa():
    return small_model(2)


@pytest.fixture(scope="module")
def client(small_gqa, tokenizer):
    with serving(*small_gqa, tokenizer) as client:
        yield client


ASKED = {"prompt": "ROMEO:", "max_tokens": 20, "temperature": 1.0, "top_p": 0.9, "seed": 3}
MEANT = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=20, seed=3)


def test_a_completion(client, small_gqa, tokenizer):
    [wanted] = generate(*small_gqa, tokenizer, ["ROMEO:"], MEANT)
    answer = post(client, model="small", **ASKED).json()
    assert answer["object"] == "text_completion" and answer["model"] == "small" and answer["id"].startswith("cmpl-")
    [choice] = answer["choices"]
    assert choice == {"index": 0, "text": wanted.text, "finish_reason": "length", "logprobs": None}
    read = len(tokenizer.encode("ROMEO:")) + 1
    assert answer["usage"] == {"prompt_tokens": read, "completion_tokens": 20, "total_tokens": read + 20}


def test_streamed_is_the_same_text(client):
    whole = post(client, **ASKED, n=3).json()["choices"]
    pieces = events(post(client, **ASKED, n=3, stream=True, stream_options={"include_usage": True}))
    assert pieces[-1]["choices"] == [] and pieces[-1]["usage"]["completion_tokens"] == 60
    texts, reasons = ["", "", ""], {}
    for piece in pieces[:-1]:
        [choice] = piece["choices"]
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == [choice["text"] for choice in whole] and len(set(texts)) == 3
    assert reasons == {0: "length", 1: "length", 2: "length"} and len(pieces) > 6


def test_many_prompts_and_samples(client, small_gqa, tokenizer):
    choices = post(client, **ASKED | {"prompt": ["ROMEO:", "JULIET:"]}, n=2).json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert choices[0]["text"] == post(client, **ASKED).json()["choices"][0]["text"]
    wanted = generate(*small_gqa, tokenizer, ["ROMEO:", "JULIET:"], replace(MEANT, num_samples=2))
    assert [choice["text"] for choice in choices] == [result.text for result in wanted]


def test_noise_of_a_request(client):
    """Equal prompts of one request draw different texts, and with a seed the same when asked again; without one, others."""
    def texts(**fields) -> list[str]:
        return [choice["text"] for choice in post(client, **ASKED | {"prompt": ["A"] * 4} | fields).json()["choices"]]

    assert len(set(texts())) == 4 and texts() == texts()
    assert len({*texts(seed=None), *texts(seed=None), *texts()}) == 12


def test_logprobs_echo_and_ids(client, small_gqa, tokenizer):
    ids = [1, *tokenizer.encode("ROMEO:")]
    [wanted] = generate(*small_gqa, tokenizer, [ids], MEANT)
    [choice] = post(client, **ASKED | {"prompt": ids}, logprobs=2, echo=True).json()["choices"]
    table = choice["logprobs"]
    assert choice["text"] == "ROMEO:" + wanted.text
    assert len(table["tokens"]) == len(table["token_logprobs"]) == len(table["top_logprobs"]) == len(ids) + 20
    assert table["token_logprobs"][0] is None and table["top_logprobs"][0] is None
    assert table["token_logprobs"][len(ids) :] == pytest.approx(wanted.logprobs, abs=1e-4)
    for name, value, top in list(zip(table["tokens"], table["token_logprobs"], table["top_logprobs"], strict=True))[1:]:
        assert top[name] == value <= max(top.values())
        assert len(top) == 2 or (len(top) == 3 and value == min(top.values()))  # the drawn one is not among the two
    [only] = post(client, prompt="ROMEO:", max_tokens=0, echo=True, logprobs=1).json()["choices"]
    assert only["text"] == "ROMEO:" and only["logprobs"]["token_logprobs"] == pytest.approx(
        table["token_logprobs"][: len(ids)], abs=1e-5, nan_ok=True)


def test_stops(client):
    text = post(client, **ASKED).json()["choices"][0]["text"]
    [choice] = post(client, **ASKED, stop=["never", text[5:8]]).json()["choices"]
    assert choice["text"] == text[: text.index(text[5:8])] and choice["finish_reason"] == "stop"


def test_sixty_four_clients_get_what_each_gets_alone(client):
    bodies = [ASKED | {"prompt": f"Speaker {n}:", "seed": n, "max_tokens": 3 + n % 17, "temperature": n % 3 / 2}
              for n in range(64)]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda body: post(client, **body).json()["choices"][0], bodies))
    for n in range(64):
        assert together[n] == post(client, **bodies[n]).json()["choices"][0]
    assert client.get("/health").json() == {"status": "ok", "slots": 4, "running": 0, "waiting": 0}


def test_a_client_that_leaves_frees_its_slot(client):
    for n in range(4):
        with client.stream("POST", "/v1/completions", json=ASKED | {"max_tokens": 55, "n": 16, "stream": True}) as response:
            next(response.iter_lines())
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=ASKED | {"max_tokens": 55, "n": 16}, timeout=0.02 + n / 100)
    deadline = time.monotonic() + 10
    while client.get("/health").json() != {"status": "ok", "slots": 4, "running": 0, "waiting": 0}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert post(client, **ASKED).status_code == 200


def test_models(client):
    assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["small"]
    assert client.get("/v1/models/small").json()["object"] == "model"
    assert client.get("/v1/models/big").status_code == 404


@pytest.mark.parametrize("body, status, param", [
    ({}, 400, "prompt"), ({"prompt": ""}, 400, "prompt"), ({"prompt": []}, 400, "prompt"), ({"prompt": 7}, 400, "prompt"),
    ({"prompt": ["a", 1]}, 400, "prompt"), ({"prompt": [512]}, 400, "prompt"), ({"prompt": [-1]}, 400, "prompt"),
    ({"prompt": "word " * 300}, 400, "prompt"), ({"prompt": "a\ud800"}, 400, "prompt"),
    ({"prompt": "a", "temperature": -1}, 400, "temperature"), ({"prompt": "a", "temperature": "hot"}, 400, "temperature"),
    ({"prompt": "a", "temperature": float("nan")}, 400, "temperature"), ({"prompt": "a", "top_p": 0}, 400, "top_p"),
    ({"prompt": "a", "top_p": 2}, 400, "top_p"), ({"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    ({"prompt": "a", "max_tokens": 1.5}, 400, "max_tokens"), ({"prompt": "a", "n": 0}, 400, "n"),
    ({"prompt": "a", "n": 17}, 400, "n"), ({"prompt": "a", "stop": 5}, 400, "stop"), ({"prompt": "a", "stop": [""]}, 400, "stop"),
    ({"prompt": "a", "stop": list("abcde")}, 400, "stop"), ({"prompt": "a", "logprobs": 6}, 400, "logprobs"),
    ({"prompt": "a", "logprobs": True}, 400, "logprobs"), ({"prompt": "a", "stream": "yes"}, 400, "stream"),
    ({"prompt": "a", "seed": "x"}, 400, "seed"), ({"prompt": "a", "suffix": "b"}, 400, "suffix"),
    ({"prompt": "a", "best_of": 3}, 400, "best_of"), ({"prompt": "a", "presence_penalty": 1}, 400, "presence_penalty"),
    ({"prompt": "a", "temprature": 1}, 400, "temprature"), ({"prompt": "a", "model": "big"}, 404, "model"),
    ([1], 400, None), ("text", 400, None), (None, 400, None),
], ids=str)
def test_refusals_name_the_field(client, body, status, param):
    response = client.post("/v1/completions", content=json.dumps(body))
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["param"] == param and error["type"] == "invalid_request_error" and error["message"][-1] in ".?"


@pytest.mark.parametrize("content, status", [
    (b"{", 400), (b"", 400), (b"\xff\xfe", 400), (b"[" * 10_000, 400), (b"9" * 10_000, 400),
    (b'{"prompt": "' + b"a" * 30_000, 413),
])
def test_bodies_that_are_no_json(client, content, status):
    response = client.post("/v1/completions", content=content)
    assert response.status_code == status and response.json()["error"]["message"]


def test_other_paths_and_methods(client):
    for response in (client.get("/v1/completions"), client.get("/"), client.post("/v1/chat/completions", json={})):
        assert response.status_code in (404, 405) and response.json()["error"]["type"] == "invalid_request_error"


def test_a_thousand_mutations(client):
    """Whatever comes: an answer or a refusal of the protocol, never 500, and the server lives."""
    rng = random.Random(0)
    atoms = [None, True, False, 0, 1, -1, 2, 0.5, 1e308, -1e308, 2**63, 10**40, float("nan"), float("inf"), "", "a", "\x00",
             "\ud800", "日本", [], {}, [[]], ["a"], [1], [1, "a"], [[1], [2]], {"a": 1}, [None], "x" * 50]
    keys = ["prompt", "model", "max_tokens", "temperature", "top_p", "top_k", "min_p", "n", "seed", "stop", "logprobs", "echo",
            "stream", "stream_options", "best_of", "suffix", "user", "logit_bias", "presence_penalty", "nonsense", ""]
    statuses = set()
    for _ in range(1000):
        body = {"prompt": "a", "max_tokens": 1} | {rng.choice(keys): rng.choice(atoms) for _ in range(rng.randint(1, 3))}
        if isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 2:
            body["max_tokens"] = 2
        content = bytearray(json.dumps(body).encode())
        if rng.random() < 0.3:
            for _ in range(rng.randint(1, 4)):
                content[rng.randrange(len(content))] = rng.randrange(256)
        response = client.post("/v1/completions", content=bytes(content))
        statuses.add(response.status_code)
        assert response.status_code in (200, 400, 404), (bytes(content), response.text)
        if response.status_code != 200:
            assert response.json()["error"]["message"]
    assert statuses == {200, 400, 404} and post(client, **ASKED).status_code == 200


def test_keys_queues_and_the_end(small_gqa, tokenizer):
    with serving(*small_gqa, tokenizer, slots=1, queue=3, api_key="secret") as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            assert client.post("/v1/completions", json=ASKED, headers=headers).json()["error"]["code"] == "invalid_api_key"
            assert client.get("/v1/models", headers=headers).status_code == 401
        client.headers["authorization"] = "Bearer secret"
        full = post(client, prompt="a", n=5)
        assert full.status_code == 429 and full.json()["error"]["code"] == "queue_full" and full.headers["retry-after"]
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(post, client, **ASKED | {"max_tokens": 50, "n": 4})
            while not client.get("/health").json()["running"]:
                time.sleep(0.01)
            client.engine.stop()  # as the application's end does: what runs and waits is finished
            assert [len(choice["text"]) > 0 for choice in running.result().json()["choices"]] == [True] * 4
        assert post(client, **ASKED).status_code == 429


def test_an_engine_that_fails_once_serves_on(small_gqa, tokenizer, monkeypatch):
    with serving(*small_gqa, tokenizer) as client:
        with monkeypatch.context() as patch:
            def fail(*args, **kwargs):
                raise FloatingPointError("broken")

            patch.setattr("llama_jax.serving.engine.decode", fail)
            broken = post(client, **ASKED)
        assert broken.status_code == 500 and broken.json()["error"]["type"] == "server_error"
        assert post(client, **ASKED).status_code == 200
