"""A server on a real socket, and what its clients need."""

import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from llama_jax.inference.params import decoding_params
from llama_jax.serving.connections import bounded_protocol
from llama_jax.serving.engine import Engine
from llama_jax.serving.server import RequestLimits, Server


@contextmanager
def serving(model, params, tokenizer, *, slots: int = 4, queue: int = 100, api_key: str = "", body_bytes: int = 20_000,
            log=None, connections: int = 200):
    engine = Engine(model, decoding_params(model, params), tokenizer=tokenizer, slots=slots, queue=queue)
    limits = RequestLimits(body_bytes=body_bytes, max_completions=16, api_key=api_key)
    app = Server(engine, tokenizer, name="small", limits=limits, log=log).app()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=20, ws="none",
                                               http=bounded_protocol(connections)))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        anew = httpx.Limits(max_keepalive_connections=0)  # on a busy machine a kept connection ends just as it is used again
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=120, limits=anew) as client:
            while not server.started:
                time.sleep(0.01)
            client.engine = engine
            try:
                yield client
            finally:
                server.should_exit = True
                thread.join()


def post(client: httpx.Client, **body) -> httpx.Response:
    return client.post("/v1/completions", content=json.dumps(body))


def events(response: httpx.Response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(pieces: list[dict]) -> list[dict]:
    """The choices that the events of a stream add up to, in order."""
    choices: dict[int, dict] = {}
    for piece in pieces:
        for new in piece["choices"]:
            if new["index"] not in choices:
                choices[new["index"]] = new
                continue
            old = choices[new["index"]]
            assert old["finish_reason"] is None, "an event after the end"
            old["text"] += new["text"]
            old["finish_reason"] = new["finish_reason"]
            for name, values in (new["logprobs"] or {}).items():
                old["logprobs"][name] += values
    return [choices[n] for n in sorted(choices)]
