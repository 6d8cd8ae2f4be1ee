"""Connections to the server: lengths that are wrong, bytes that are not HTTP, clients that leave, and the request log."""

import json
import re
import socket
import time
from contextlib import ExitStack

import pytest

from llama_jax.serving import connections, server
from llama_jax.serving.protocol import RequestError, decode_body
from tests.golden.models import small_model
from tests.serving.running_server import events, post, serving

ASKED = {"prompt": "ROMEO:", "max_tokens": 12, "temperature": 0}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def logged(tokenizer, lines):
    """A client whose requests are all asked by `line_of`."""
    with serving(*small_model(2), tokenizer, log=lines.append) as client:
        yield client


@pytest.fixture(scope="module")
def client(tokenizer):
    with serving(*small_model(2), tokenizer) as client:
        yield client


def line_of(lines: list[str], ask) -> list[str]:
    """Fields of the one line that a request makes."""
    lines.clear()
    ask()
    deadline = time.monotonic() + 30
    while not lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.02)
    [line] = lines
    time_, client, method, path, status, read, made, seconds, *more = line.split(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", time_) and client.startswith("127.0.0.1:")
    assert re.fullmatch(r"seconds=\d+\.\d{3}", seconds)
    return [method, path, status, read, made, *more]


def test_one_line_per_request(logged, lines, tokenizer):
    read = f"prompt_tokens={len(tokenizer.encode('ROMEO:')) + 1}"
    done = ["POST", "/v1/completions", "200", read, "completion_tokens=24"]
    nothing = ["prompt_tokens=-", "completion_tokens=-"]
    assert line_of(lines, lambda: post(logged, **ASKED, n=2)) == done
    assert line_of(lines, lambda: events(post(logged, **ASKED, n=2, stream=True, echo=True))) == done
    assert line_of(lines, lambda: post(logged, prompt=5)) == ["POST", "/v1/completions", "400", *nothing]
    assert line_of(lines, lambda: logged.post("/v1/completions", content="x" * 30_000))[2:] == ["413", *nothing]
    assert line_of(lines, lambda: logged.get("/health")) == ["GET", "/health", "200", *nothing]
    assert line_of(lines, lambda: logged.get("/a%0Ab%1b%20c?key=1")) == ["GET", "/a?b??c", "404", *nothing]
    assert line_of(lines, lambda: post(logged, **ASKED | {"model": "large"}))[2] == "404"


def test_a_mistake_of_ours_is_500_in_answer_and_log(logged, lines, monkeypatch):
    def broken(request, served):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(server, "CompletionResponse", broken)
    answers = []
    assert line_of(lines, lambda: answers.append(post(logged, **ASKED)))[2:] == ["500", "prompt_tokens=-", "completion_tokens=-"]
    assert answers[0].status_code == 500 and answers[0].json()["error"]["type"] == "server_error"


def test_a_mistake_within_a_stream_is_its_last_event(logged, lines, monkeypatch):
    def broken(builder, index, event):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("llama_jax.serving.token_table.ChoiceBuilder.build", broken)
    answers = []
    assert line_of(lines, lambda: answers.append(post(logged, **ASKED, stream=True)))[2] == "200"
    last = answers[0].text.split("\n\n")[-2]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["type"] == "server_error" and "ZeroDivisionError" in error["message"]


def test_events_are_one_line_for_whoever_splits_lines(client):
    prompt = "a\u2028b\u2029c\x85d\x0be\x1cf"
    with client.stream("POST", "/v1/completions", json=ASKED | {"prompt": prompt, "echo": True, "stream": True}) as response:
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["choices"][0]["text"].startswith(prompt)


def test_the_line_of_a_client_that_leaves(logged, lines):
    def leave() -> None:
        with logged.stream("POST", "/v1/completions", json=ASKED | {"max_tokens": 55, "n": 16, "stream": True}) as response:
            next(response.iter_lines())

    for _ in range(20):  # a fast machine may have finished before the server sees that nobody is there
        _, _, status, _, made, *more = line_of(lines, leave)
        if more:
            break
    assert status == "200" and more == ["client", "left"] and int(made.split("=")[1]) < 55 * 16


def address(client) -> tuple[str, int]:
    return client.base_url.host, client.base_url.port


def raw(client, data: bytes, *, more: bool = False, seconds: float = 10) -> bytes:
    """What comes back for these bytes; `more`: the connection stays open for writing."""
    with socket.create_connection(address(client), timeout=seconds) as connection:
        connection.sendall(data)
        if not more:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while new := connection.recv(65536):
            answer += new
        return answer


def request(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["POST /v1/completions HTTP/1.1", "host: x", "connection: close", *headers, "", ""]).encode() + body


BODY = json.dumps(ASKED).encode()


@pytest.mark.parametrize("headers", [
    [f"content-length: {len(BODY) + 5}"], ["content-length: 1000000000"], ["content-length: -1"], ["content-length: many"],
    ["content-length: 5", "content-length: 6"], [f"content-length: {len(BODY) - 5}"], ["content-length: 0"], [],
    ["transfer-encoding: chunked"], ["transfer-encoding: gzip"], ["content-length: 5", "transfer-encoding: chunked"],
    [f"content-length: {len(BODY)}", "content-encoding: gzip", "content-type: image/png"],
])
def test_lengths_that_lie(client, headers):
    answer = raw(client, request(BODY, *headers))
    assert answer == b"" or re.match(rb"HTTP/1.1 [24]\d\d ", answer), answer  # never 500
    assert post(client, **ASKED).status_code == 200


def test_a_body_that_never_comes(client, monkeypatch):
    monkeypatch.setattr(server, "BODY_SECONDS", 0.2)
    answer = raw(client, request(BODY[:-1], f"content-length: {len(BODY)}"), more=True)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"body_timeout" in answer


def test_bytes_that_are_no_http(client):
    for data in (b"", b"\0" * 100, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", BODY, b"POST /v1/completions HTTP/9.9\r\n\r\n"):
        raw(client, data)
    assert post(client, **ASKED).status_code == 200


def test_clients_that_leave_at_any_moment_leave_nothing_behind(client):
    for stream in (False, True):
        body = json.dumps(ASKED | {"stream": stream, "n": 8, "max_tokens": 50, "logprobs": 3, "echo": True}).encode()
        for wait in (0, 0.001, 0.003, 0.01, 0.03):
            for _ in range(4):
                with socket.create_connection(address(client), timeout=10) as connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, without a FIN
                    connection.sendall(request(body, f"content-length: {len(body)}"))
                    time.sleep(wait)
    deadline = time.monotonic() + 20
    while client.get("/health").json() != {"status": "ok", "slots": 4, "running": 0, "waiting": 0}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert post(client, **ASKED).status_code == 200


def test_a_log_that_nobody_reads_any_more_stops_no_request(monkeypatch):
    import io

    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(server.sys, "stderr", closed)
    server.log_to_stderr("a line")


def closed_after(connection: socket.socket) -> bytes:
    """What the server sends until it closes."""
    answer = b""
    while new := connection.recv(65536):
        answer += new
    return answer


@pytest.mark.parametrize("begin", [b"", b"P", b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n",
                                   b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET"])
def test_half_sent_requests_do_not_stay_open(client, monkeypatch, begin):
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(address(client), timeout=10)) for _ in range(20)]
        for connection in opened:
            connection.sendall(begin)
        for connection in opened:
            answer = closed_after(connection)
            # what comes together with a whole request ends with uvicorn's timeout of kept connections
            assert answer.startswith(b"HTTP/1.1 200 " if begin.startswith(b"GET") else b"HTTP/1.1 408 Request Timeout")
    assert post(client, **ASKED).status_code == 200


def test_what_trickles_in_after_an_answer_does_not_keep_a_connection(client, monkeypatch):
    """The body is refused by its length, and the client goes on sending it."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    with socket.create_connection(address(client), timeout=10) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
        deadline = time.monotonic() + 10
        with pytest.raises(OSError):
            while time.monotonic() < deadline:
                connection.sendall(b"x" * 100)
                time.sleep(0.05)


def test_connections_are_counted(tokenizer):
    with serving(*small_model(2), tokenizer, connections=5) as few:
        opened = [socket.create_connection(address(few), timeout=10) for _ in range(5)]
        time.sleep(0.2)
        with socket.create_connection(address(few), timeout=10) as refused:
            answer = closed_after(refused)
        assert answer.startswith(b"HTTP/1.1 503 ") and json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
        for connection in opened:
            connection.close()
        deadline = time.monotonic() + 10
        while few.get("/health").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_field_that_is_there_twice_among_very_many_is_found_at_once(client):
    body = "{" + ", ".join(f'"{n}": 1' for n in range(1500)) + ', "1499": 1}'
    assert client.post("/v1/completions", content=body).status_code == 400
    many = ("{" + ", ".join(f'"{n}": 1' for n in range(50_000)) + ', "49999": 1}').encode()
    begin = time.monotonic()
    with pytest.raises(RequestError, match="'49999' is there more than once"):
        decode_body(many)
    assert time.monotonic() - begin < 5  # 50,000^2 comparisons would take minutes
