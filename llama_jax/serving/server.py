"""The ASGI application: HTTP in, engine jobs out, answers as the OpenAI completions protocol has them."""

import asyncio
import hmac
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_jax.serving.answer import Answer, ServedModel
from llama_jax.serving.engine import Engine
from llama_jax.serving.job import Full
from llama_jax.serving.protocol import RequestError, escaped, parse, read_json
from llama_jax.tokenizer.base import Tokenizer

BODY_SECONDS = 60
"""How long a body may take to come: a Content-Length may promise more than is sent."""


@dataclass(frozen=True)
class Limits:
    """What one client may ask for."""

    body_bytes: int
    samples: int
    """Completions of one request."""
    api_key: str = ""
    """Must come as a bearer token where it is not empty."""


class Server:
    """HTTP handlers over one engine; `log` gets one line per request, where it is given."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, name: str, limits: Limits, *,
                 log: Callable[[str], None] | None = None):
        self.engine, self.limits, self.log = engine, limits, log
        self.name = escaped(name)  # a folder's name need not be Unicode
        self.served = ServedModel(engine, tokenizer, self.name)
        self.begun = int(time.time())

    def app(self) -> Starlette:
        """Routes and errors; the engine ends with the application."""
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.engine.stop)

        routes = [Route("/v1/completions", self.completions, methods=["POST"]), Route("/v1/models", self.models),
                  Route("/v1/models/{name:path}", self.model), Route("/health", self.health)]
        handlers = {RequestError: refuse, Exception: broken, 404: missing, 405: missing}
        logged = [Middleware(RequestLog, write=self.log)] if self.log else []
        return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers, middleware=logged)

    async def health(self, request: HTTPRequest) -> Response:
        """Open to all: is it there, and how busy."""
        return JSONResponse({"status": "ok"} | self.engine.load())

    async def models(self, request: HTTPRequest) -> Response:
        """The one model."""
        self.check_key(request)
        return JSONResponse({"object": "list", "data": [self.card()]})

    async def model(self, request: HTTPRequest) -> Response:
        """The one model by its name."""
        self.check_key(request)
        self.check_model(request.path_params["name"])
        return JSONResponse(self.card())

    def card(self) -> dict:
        """The model as /v1/models describes it."""
        return {"id": self.name, "object": "model", "created": self.begun, "owned_by": "llama_jax"}

    def check_key(self, request: HTTPRequest) -> None:
        """Raise RequestError unless the client knows the key."""
        wanted, given = f"Bearer {self.limits.api_key}", request.headers.get("authorization", "")
        if self.limits.api_key and not hmac.compare_digest(wanted.encode(), given.encode("utf-8", "surrogateescape")):
            raise RequestError(401, "wrong or missing API key; send it as a bearer token.", code="invalid_api_key")

    def check_model(self, name: str) -> None:
        """Raise RequestError where another model is asked for."""
        if name and name != self.name:
            raise RequestError(404, f"there is no model {name[:100]!r} here, only {self.name!r}.", param="model",
                               code="model_not_found")

    async def body(self, request: HTTPRequest) -> Any:
        """The JSON of a body that is not too large and comes in time."""
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > self.limits.body_bytes:
                        raise RequestError(413, f"the body is larger than {self.limits.body_bytes} bytes.", code="body_too_large")
        except TimeoutError:
            raise RequestError(408, f"the body did not come within {BODY_SECONDS} seconds.", code="body_timeout") from None
        return read_json(bytes(data))

    async def completions(self, request: HTTPRequest) -> Response:
        """POST /v1/completions."""
        self.check_key(request)
        try:
            asked = parse(await self.body(request), most_samples=self.limits.samples)
        except ClientDisconnect:
            return Response(status_code=499)
        self.check_model(asked.model)
        answer = request.scope["answer"] = Answer(asked, self.served)
        try:
            self.engine.submit(answer.jobs)
        except Full:
            raise RequestError(429, "too many requests are waiting; try again in a moment.", code="queue_full") from None
        if asked.stream:
            return Events(answer)
        whole, gone = asyncio.ensure_future(answer.whole()), asyncio.ensure_future(left(request))
        try:
            await asyncio.wait([whole, gone], return_when=asyncio.FIRST_COMPLETED)
            return JSONResponse(whole.result()) if whole.done() else Response(status_code=499)
        finally:
            answer.cancel()
            for task in (whole, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


class Events(StreamingResponse):
    """An answer as server-sent events; its slots become free when the client has all of them or leaves."""

    def __init__(self, answer: Answer):
        super().__init__(answer.stream(), media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:  # here and not in the generator, which does not even begin where the client left before
            self._answer.cancel()


class RequestLog:
    """ASGI middleware that writes one line per request, when it has been answered or the client has left.

    The time with its offset from UTC, the client's address, method, path, HTTP status, prompt tokens and generated tokens
    ("-" where no completion was begun), seconds; 499 stands for a client that left before the answer, and "client left"
    behind the line for one that left within it.
    """

    def __init__(self, app: ASGIApp, write: Callable[[str], None]):
        self._app, self._write = app, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, then write the line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, whole = time.perf_counter(), 499, False

        async def watched(message: Message) -> None:
            nonlocal status, whole
            status = message.get("status", status)
            await send(message)
            whole = whole or (message["type"] == "http.response.body" and not message.get("more_body", False))

        try:
            await self._app(scope, receive, watched)
        except Exception:  # the application answers it with 500, outside of this
            if status == 499:
                status, whole = 500, True
            raise
        finally:
            answer = scope.get("answer")
            usage = answer.usage() if answer else {"prompt_tokens": "-", "completion_tokens": "-"}
            path = "".join(c if c.isprintable() and c != " " else "?" for c in scope["path"])  # one line, whatever was asked
            self._write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {':'.join(map(str, scope.get('client') or '-'))} "
                        f"{scope['method']} {path} {status} prompt_tokens={usage['prompt_tokens']} "
                        f"completion_tokens={usage['completion_tokens']} seconds={time.perf_counter() - begin:.3f}"
                        + ("" if whole else " client left"))


def to_stderr(line: str) -> None:
    """One line at once, also where stderr is a file or a pipe; a pipe that nobody reads any more stops no request."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


async def left(request: HTTPRequest) -> None:
    """Returns when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def refuse(request: HTTPRequest, error: RequestError) -> Response:
    """A RequestError as the protocol's error object."""
    headers = {429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(error.status)
    return JSONResponse(error.body, error.status, headers)


async def broken(request: HTTPRequest, error: Exception) -> Response:
    """A mistake of ours: the client learns that much."""
    return await refuse(request, RequestError(500, f"the server failed on this request ({type(error).__name__})."))


async def missing(request: HTTPRequest, error: Exception) -> Response:
    """No such path or method."""
    status = getattr(error, "status_code", 404)
    return await refuse(request, RequestError(status, f"there is no {request.method} {request.url.path[:100]} here; see "
                                              "/v1/completions, /v1/models and /health."))
