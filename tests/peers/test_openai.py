"""The official client, and curl, against the server as a user starts it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import jax
import pytest

from llama_jax.config import CheckpointConfig
from llama_jax.config.file import load_config
from llama_jax.formats.checkpoints import Checkpoints
from llama_jax.parallel.mesh import make_mesh
from llama_jax.serving.protocol import FIELD_CHECKS
from llama_jax.training.compiled import build
from llama_jax.training.run_dir import write_run_config

pytestmark = pytest.mark.peers
openai = pytest.importorskip("openai")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def url(folder, tokenizer):
    """`python -m llama_jax serve` on a run directory with random weights, stderr in a file; SIGTERM must end it with 0."""
    run = folder / "small"
    config = load_config(ROOT / "configs/tiny.py")
    config = replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
    run.mkdir()
    write_run_config(config, run)
    tokenizer.save(run)
    checkpoints = Checkpoints(run / "checkpoints", CheckpointConfig())
    checkpoints.save(1, build(config, make_mesh(config.mesh, jax.devices()[:1])).init(), config=config)
    checkpoints.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_jax", "serve", "--checkpoint", str(run), "--port", str(port), "--slots", "4"]
    with (folder / "stderr").open("w") as stderr:
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stderr=stderr)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/v1"
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url, api_key="none")


ASKED = {"model": "small", "prompt": "ROMEO:", "max_tokens": 24, "temperature": 0.9, "seed": 5}


def test_plain_streamed_and_stopped(client):
    whole = client.completions.create(**ASKED)
    text = whole.choices[0].text
    assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 24
    assert "".join(piece.choices[0].text for piece in client.completions.create(**ASKED, stream=True)) == text
    stopped = client.completions.create(**ASKED, stop=text[4:6])
    assert stopped.choices[0].text == text[: text.index(text[4:6])] and stopped.choices[0].finish_reason == "stop"
    assert [model.id for model in client.models.list()] == ["small"]


def test_samples_and_logprobs(client):
    answer = client.completions.create(**ASKED, n=4, logprobs=3)
    assert len({choice.text for choice in answer.choices}) == 4
    for choice in answer.choices:
        count = len(choice.logprobs.tokens)
        assert count == len(choice.logprobs.token_logprobs) == len(choice.logprobs.top_logprobs) and 0 < count <= 24
        for name, top in zip(choice.logprobs.tokens, choice.logprobs.top_logprobs, strict=True):
            assert name in top and len(top) in (3, 4)  # three and, where it is not among them, the drawn one


def test_every_field_of_the_reference_is_known():
    from openai.types import completion_create_params as params
    from openai.types.chat.chat_completion_stream_options_param import ChatCompletionStreamOptionsParam

    fields = set(get_type_hints(params.CompletionCreateParamsNonStreaming))
    assert fields | set(get_type_hints(params.CompletionCreateParamsStreaming)) <= set(FIELD_CHECKS) and len(fields) > 15
    for name in get_type_hints(ChatCompletionStreamOptionsParam):
        assert FIELD_CHECKS["stream_options"]("stream_options", {name: False}) is False


def test_answers_have_the_fields_of_the_reference_and_no_others(client):
    from openai.types import Completion

    def check(answer: Completion) -> None:
        raw = answer.to_dict(mode="json")
        for choice in raw["choices"]:  # OpenAI's own streams say null before the end, which its type does not know
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        Completion.model_validate(raw, strict=True)
        assert set(raw) <= set(Completion.model_fields) and not answer.model_extra
        for choice in answer.choices:
            assert not choice.model_extra and not (choice.logprobs and choice.logprobs.model_extra)
            assert choice.finish_reason in ("stop", "length", None)

    options = {"include_usage": True}
    for more in ({}, {"logprobs": 2}, {"n": 2, "echo": True}):
        check(client.completions.create(**ASKED, **more))
        for piece in client.completions.create(**ASKED, **more, stream=True, stream_options=options):
            check(piece)


def test_streamed_logprobs_of_many_clients(client):
    """Each event's tokens begin in the text of that event, and together they are the table of the whole answer."""
    def streamed(seed: int) -> dict[str, list]:
        told, columns = "", {"tokens": [], "text_offset": [], "token_logprobs": []}
        for piece in client.completions.create(**ASKED | {"seed": seed}, stream=True, logprobs=3, echo=seed % 2 == 0):
            [choice] = piece.choices
            begin, told = len(told), told + choice.text
            assert all(begin <= offset < len(told) or choice.finish_reason for offset in choice.logprobs.text_offset)
            for name, column in columns.items():
                column += getattr(choice.logprobs, name)
        return columns | {"text": told}

    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(streamed, range(64)))
    for seed, got in enumerate(together):
        [whole] = client.completions.create(**ASKED | {"seed": seed}, logprobs=3, echo=seed % 2 == 0).choices
        assert (got["text"], got["tokens"], got["text_offset"]) == (whole.text, whole.logprobs.tokens, whole.logprobs.text_offset)
        assert got["token_logprobs"] == pytest.approx(whole.logprobs.token_logprobs, abs=1e-4, nan_ok=True)


def test_the_log_is_readable_without_a_terminal(client, folder):
    client.completions.create(**ASKED)
    deadline = time.monotonic() + 10
    wanted = re.compile(r"\S+ 127\.0\.0\.1:\d+ POST /v1/completions 200 prompt_tokens=\d+ completion_tokens=24 seconds=\d+\.\d+")
    while not any(wanted.fullmatch(line) for line in (folder / "stderr").read_text().splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_errors_reach_the_client(client):
    with pytest.raises(openai.BadRequestError, match="temperature should be"):
        client.completions.create(**ASKED | {"temperature": -1})
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(**ASKED | {"model": "gpt"})
    assert (missing.value.param, missing.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(**ASKED | {"max_tokens": 10_000})
    assert (long.value.param, long.value.code) == ("max_tokens", "context_length_exceeded")


def test_many_at_once(client):
    alone = [client.completions.create(**ASKED | {"seed": n}).choices[0].text for n in range(8)]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda n: client.completions.create(**ASKED | {"seed": n % 8}).choices[0].text, range(64)))
    assert together == alone * 8


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl(url, client):
    def curl(*arguments: str) -> str:
        return subprocess.run(["curl", "-sN", *arguments], capture_output=True, text=True, check=True).stdout

    wanted = client.completions.create(**ASKED).choices[0].text
    assert json.loads(curl(f"{url}/completions", "-d", json.dumps(ASKED)))["choices"][0]["text"] == wanted
    lines = curl(f"{url}/completions", "-d", json.dumps(ASKED | {"stream": True})).split("\n\n")
    assert lines[-2] == "data: [DONE]"
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == wanted
