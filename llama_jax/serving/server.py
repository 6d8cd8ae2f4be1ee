"""The HTTP server as an ASGI application: routes and errors of OpenAI's completions protocol, in front of one engine."""

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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_jax.serving.engine import Engine
from llama_jax.serving.job import QueueFull
from llama_jax.serving.protocol import RequestError, decode_body, escape_surrogates, parse_request
from llama_jax.serving.response import CompletionResponse, ServedModel
from llama_jax.tokenizer.base import Tokenizer

BODY_SECONDS = 60
"""Seconds that a request's body may take to come: its Content-Length may promise more than is ever sent."""


@dataclass(frozen=True)
class RequestLimits:
    """Limits that a request must keep to."""

    body_bytes: int
    """Size of the largest body."""
    max_completions: int
    """Most completions (prompts times `n`) of one request."""
    api_key: str = ""
    """Key that clients must send as a bearer token; empty for none."""


class Server:
    """The HTTP handlers in front of one engine."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, *, name: str, limits: RequestLimits,
                 log: Callable[[str], None] | None = None):
        """Make the handlers; `app` is the application.

        Args:
            engine: The engine of the model.
            tokenizer: The model's tokenizer.
            name: Name by which clients ask for the model.
            limits: What a request must keep to.
            log: Called with one line per request.
        """
        self.engine, self.limits, self.log = engine, limits, log
        self.name = escape_surrogates(name)  # a folder's name need not be Unicode
        self.served = ServedModel(engine, tokenizer, name=self.name)
        self.started = int(time.time())

    def app(self) -> Starlette:
        """The ASGI application, which stops the engine when it ends."""
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.engine.stop)

        routes = [Route("/v1/completions", self.completions, methods=["POST"]), Route("/v1/models", self.models),
                  Route("/v1/models/{name:path}", self.model), Route("/health", self.health)]
        handlers = {RequestError: _refuse, Exception: _report_bug, 404: _refuse_path, 405: _refuse_path}
        middleware = [Middleware(RequestLogMiddleware, write=self.log)] if self.log else []
        return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers, middleware=middleware)

    async def health(self, request: Request) -> Response:
        """GET /health: how busy the engine is; needs no key."""
        return JSONResponse({"status": "ok"} | self.engine.occupancy())

    async def models(self, request: Request) -> Response:
        """GET /v1/models: a list of the one model."""
        self._check_key(request)
        return JSONResponse({"object": "list", "data": [self._model_card()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME: the one model by its name."""
        self._check_key(request)
        self._check_model(request.path_params["name"])
        return JSONResponse(self._model_card())

    def _model_card(self) -> dict:
        """The model as /v1/models describes it."""
        return {"id": self.name, "object": "model", "created": self.started, "owned_by": "llama_jax"}

    def _check_key(self, request: Request) -> None:
        """Raise RequestError unless the request has the API key."""
        wanted, given = f"Bearer {self.limits.api_key}", request.headers.get("authorization", "")
        if self.limits.api_key and not hmac.compare_digest(wanted.encode(), given.encode("utf-8", "surrogateescape")):
            raise RequestError(401, "wrong or missing API key; send it as a bearer token.", code="invalid_api_key")

    def _check_model(self, name: str) -> None:
        """Raise RequestError where a model other than the served one is asked for."""
        if name and name != self.name:
            raise RequestError(404, f"there is no model {name[:100]!r} here, only {self.name!r}.", param="model",
                               code="model_not_found")

    async def _read_body(self, request: Request) -> Any:
        """The JSON value of the body; raises RequestError where it is too large, too slow or not JSON."""
        too_large = RequestError(413, f"the body is larger than {self.limits.body_bytes} bytes.", code="body_too_large")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 18 or int(length) > self.limits.body_bytes):
            raise too_large
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > self.limits.body_bytes:
                        raise too_large
        except TimeoutError:
            raise RequestError(408, f"the body did not come within {BODY_SECONDS} seconds.", code="body_timeout") from None
        return decode_body(bytes(data))

    async def completions(self, request: Request) -> Response:
        """Answer a POST to /v1/completions: completions of one or several prompts, whole or as a stream of events."""
        self._check_key(request)
        try:
            completion_request = parse_request(await self._read_body(request), max_completions=self.limits.max_completions)
        except ClientDisconnect:
            return Response(status_code=499)
        self._check_model(completion_request.model)
        response = CompletionResponse(completion_request, self.served)
        request.scope["completion"] = response  # the log reads its usage there
        try:
            self.engine.submit(response.jobs)
        except QueueFull:
            raise RequestError(429, "too many requests are waiting; try again in a moment.", code="queue_full") from None
        if completion_request.stream:
            return EventStreamResponse(response)
        whole, gone = asyncio.ensure_future(response.whole()), asyncio.ensure_future(_client_disconnects(request))
        try:
            await asyncio.wait([whole, gone], return_when=asyncio.FIRST_COMPLETED)
            return JSONResponse(whole.result()) if whole.done() else Response(status_code=499)
        finally:
            response.cancel()
            for task in (whole, gone):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


class EventStreamResponse(StreamingResponse):
    """A response as server-sent events; its slots become free when the client has read all of them or leaves."""

    def __init__(self, response: CompletionResponse):
        super().__init__(response.stream(), media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:  # here and not in the generator, which does not even begin where the client left before
            self._response.cancel()


class RequestLogMiddleware:
    """ASGI middleware that writes one line per request, when it has been answered or the client has left.

    The line has the time with its offset from UTC, the client's address, method, path, HTTP status, prompt tokens, generated
    tokens ("-" where no completion was begun) and seconds. Status 499 stands for a client that left before the answer began,
    and "client left" at the end of the line for one that left within it.
    """

    def __init__(self, app: ASGIApp, write: Callable[[str], None]):
        self._app, self._write = app, write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, then write the line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, is_complete = time.perf_counter(), 499, False

        async def watched_send(message: Message) -> None:
            nonlocal status, is_complete
            status = message.get("status", status)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                is_complete = True

        try:
            await self._app(scope, receive, watched_send)
        except Exception:  # starlette answers it with 500, outside of the middleware
            if status == 499:
                status, is_complete = 500, True
            raise
        finally:
            response = scope.get("completion")
            usage = response.usage() if response else {"prompt_tokens": "-", "completion_tokens": "-"}
            # a path may hold line breaks: whatever was asked for, the log has one line and no more fields
            path = "".join(c if c.isprintable() and c != " " else "?" for c in scope["path"])
            self._write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {':'.join(map(str, scope.get('client') or '-'))} "
                        f"{scope['method']} {path} {status} prompt_tokens={usage['prompt_tokens']} "
                        f"completion_tokens={usage['completion_tokens']} seconds={time.perf_counter() - begin:.3f}"
                        + ("" if is_complete else " client left"))


def log_to_stderr(line: str) -> None:
    """Write a line at once, also where stderr is a file or a pipe. A pipe that nobody reads any more must stop no request."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


async def _client_disconnects(request: Request) -> None:
    """Return when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(request: Request, error: RequestError) -> Response:
    """Answer with the protocol's error object."""
    headers = {429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(error.status)
    return JSONResponse(error.body, error.status, headers)


async def _report_bug(request: Request, error: Exception) -> Response:
    """Answer with 500 and the name of an exception that no code expected."""
    return await _refuse(request, RequestError(500, f"the server failed on this request ({type(error).__name__})."))


async def _refuse_path(request: Request, error: Exception) -> Response:
    """Answer a request for an unknown path, or with a method that a path does not have."""
    status = getattr(error, "status_code", 404)
    return await _refuse(request, RequestError(status, f"there is no {request.method} {request.url.path[:100]} here; see "
                                               "/v1/completions, /v1/models and /health."))
