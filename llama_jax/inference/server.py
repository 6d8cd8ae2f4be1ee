"""The ASGI application: HTTP in, engine jobs out, answers as the OpenAI completions protocol has them."""

import asyncio
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llama_jax.data.tokenizer import Tokenizer
from llama_jax.errors import ConfigError
from llama_jax.inference.engine import Engine, Full, Job, Prompt
from llama_jax.inference.generate import prompt_ids
from llama_jax.inference.protocol import Refusal, Request, choice, completion, logprob_table, parse


@dataclass(frozen=True)
class Limits:
    """What one client may ask for."""

    body_bytes: int
    samples: int
    """Completions of one request."""
    api_key: str = ""
    """Must come as a bearer token where it is not empty."""


class Server:
    """Handlers over one engine."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, name: str, limits: Limits):
        self.engine, self.tokenizer, self.name, self.limits = engine, tokenizer, name, limits
        self.begun = int(time.time())

    def app(self) -> Starlette:
        """Routes and errors; the engine ends with the application."""
        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await asyncio.to_thread(self.engine.stop)

        routes = [Route("/v1/completions", self.completions, methods=["POST"]), Route("/v1/models", self.models),
                  Route("/v1/models/{name:path}", self.model), Route("/health", self.health)]
        handlers = {Refusal: refuse, Exception: broken, 404: missing, 405: missing}
        return Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)

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
        return {"id": self.name, "object": "model", "created": self.begun, "owned_by": "llama_jax"}

    def check_key(self, request: HTTPRequest) -> None:
        """Raise Refusal unless the client knows the key."""
        wanted, given = f"Bearer {self.limits.api_key}", request.headers.get("authorization", "")
        if self.limits.api_key and not hmac.compare_digest(wanted.encode(), given.encode("utf-8", "surrogateescape")):
            raise Refusal(401, "wrong or missing API key; send it as a bearer token.", code="invalid_api_key")

    def check_model(self, name: str) -> None:
        """Raise Refusal where another model is asked for."""
        if name and name != self.name:
            raise Refusal(404, f"there is no model {name[:100]!r} here, only {self.name!r}.", param="model",
                          code="model_not_found")

    async def body(self, request: HTTPRequest) -> Any:
        """The JSON of a body that is not too large."""
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > self.limits.body_bytes:
                raise Refusal(413, f"the body is larger than {self.limits.body_bytes} bytes.", code="body_too_large")
        try:
            return json.loads(data.decode())
        except UnicodeDecodeError:
            raise Refusal(400, "the body is not UTF-8.") from None
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"the body is not JSON ({str(error)[:200]}).") from None

    async def completions(self, request: HTTPRequest) -> Response:
        """POST /v1/completions."""
        self.check_key(request)
        try:
            asked = parse(await self.body(request), most_samples=self.limits.samples)
        except ClientDisconnect:
            return Response(status_code=499)
        self.check_model(asked.model)
        answer = Answer(asked, self)
        try:
            self.engine.submit(answer.jobs)
        except Full:
            raise Refusal(429, "too many requests are waiting; try again in a moment.", code="queue_full") from None
        if asked.stream:
            return StreamingResponse(answer.events(), media_type="text/event-stream", headers={"cache-control": "no-cache"})
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


async def left(request: HTTPRequest) -> None:
    """Returns when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Answer:
    """The jobs of one request and what comes of them."""

    def __init__(self, asked: Request, server: Server):
        self.asked, self.server = asked, server
        self.number = f"cmpl-{uuid.uuid4().hex}"
        self.heard: asyncio.Queue[tuple[Job, str, Any]] = asyncio.Queue()
        loop, sampling = asyncio.get_running_loop(), asked.sampling()

        def hear(job: Job, text: str, reason: Any) -> None:
            if not (asked.stream or reason):  # who waits for the whole is not woken for pieces
                return
            with suppress(RuntimeError):  # the loop may be gone when the last token comes
                loop.call_soon_threadsafe(self.heard.put_nowait, (job, text, reason))

        self.jobs, self.texts = [], []
        wants = asked.logprobs is not None
        for place, prompt in enumerate(asked.prompt):
            shared = Prompt(self.ids(prompt), wants_scores=wants and asked.echo)
            self.texts.append(prompt if isinstance(prompt, str) else server.tokenizer.decode(prompt))
            self.jobs += [Job(shared, sampling, n, hear, place=place, wants_top=wants) for n in range(asked.n)]
        self.told = [0] * len(self.jobs)

    def ids(self, prompt: str | tuple[int, ...]) -> list[int]:
        """Checked ids of a prompt; raises Refusal."""
        try:
            return prompt_ids(self.server.tokenizer, prompt, self.server.engine.config)
        except ConfigError as error:
            raise Refusal(400, str(error), param="prompt", code="context_length_exceeded" if "context" in str(error) else None
                          ) from None

    async def pieces(self) -> AsyncIterator[tuple[int, str, str | None]]:
        """(number of the completion, new text, reason for its end or None) until all have ended."""
        left = set(range(len(self.jobs)))
        while left:
            job, text, reason = await self.heard.get()
            if isinstance(reason, Exception):
                raise Refusal(500, f"the model failed on this request ({type(reason).__name__}).")
            index = self.jobs.index(job)
            if reason:
                left.discard(index)
            yield index, text, reason

    async def whole(self) -> dict:
        """The answer when all is there."""
        async for _ in self.pieces():
            pass
        results = [job.row.result() for job in self.jobs]
        choices = [choice(n, self.before(n) + result.text, result.finish_reason, self.logprobs(n))
                   for n, result in enumerate(results)]
        return completion(self.number, self.server.name, choices, self.usage())

    async def events(self) -> AsyncIterator[str]:
        """The answer as server-sent events."""
        def event(body: dict) -> str:
            return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"

        try:
            async for index, text, reason in self.pieces():
                text = (self.before(index) if self.told[index] == 0 else "") + text
                piece = choice(index, text, reason, self.logprobs(index))
                yield event(completion(self.number, self.server.name, [piece]))
            if (self.asked.stream_options or {}).get("include_usage"):
                yield event(completion(self.number, self.server.name, [], self.usage()))
            yield "data: [DONE]\n\n"
        except Refusal as refusal:
            yield event(refusal.body)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Free the slots; nothing happens to jobs that are done."""
        self.server.engine.cancel(self.jobs)

    def before(self, index: int) -> str:
        """The prompt, where it is to be echoed."""
        return self.texts[index // self.asked.n] if self.asked.echo else ""

    def logprobs(self, index: int) -> dict | None:
        """The table of the tokens that were not told yet."""
        begin, job = self.told[index], self.jobs[index]
        ids = job.row.tokens if job.row else []
        self.told[index] = max(len(ids), 1)
        if self.asked.logprobs is None or job.row is None:
            return None
        tokens, values, top = ids[begin:], job.row.logprobs[begin : len(ids)], job.top[begin : len(ids)]
        if begin == 0 and self.asked.echo:
            tokens, values, top = job.prompt.ids + tokens, job.prompt.logprobs + values, job.prompt.top + top
        piece, most = self.server.tokenizer.piece, self.asked.logprobs
        best = [None if one is None else {piece(i): v for i, v in list(one.items())[:most]} for one in top]
        offset = sum(len(piece(i)) for i in ids[:begin]) + (0 if begin == 0 and self.asked.echo
                                                             else len(self.texts[index // self.asked.n]))
        return logprob_table([piece(i) for i in tokens], values, best, offset)

    def usage(self) -> dict:
        """Tokens read and written."""
        read = sum(len(self.jobs[n].prompt.ids) for n in range(0, len(self.jobs), self.asked.n))
        made = sum(len(job.row.tokens) for job in self.jobs if job.row)
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


async def refuse(request: HTTPRequest, refusal: Refusal) -> Response:
    """A Refusal as the protocol's error."""
    headers = {429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}.get(refusal.status)
    return JSONResponse(refusal.body, refusal.status, headers)


async def broken(request: HTTPRequest, error: Exception) -> Response:
    """A mistake of ours: the client learns that much."""
    return await refuse(request, Refusal(500, f"the server failed on this request ({type(error).__name__})."))


async def missing(request: HTTPRequest, error: Exception) -> Response:
    """No such path or method."""
    status = getattr(error, "status_code", 404)
    return await refuse(request, Refusal(status, f"there is no {request.method} {request.url.path[:100]} here; see "
                                         "/v1/completions, /v1/models and /health."))
