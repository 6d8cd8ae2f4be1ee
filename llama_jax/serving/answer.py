"""From a completions request to the engine's jobs, and from their events to the protocol's answer, whole or streamed."""

import asyncio
import json
import secrets
import time
import traceback
import uuid
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

from llama_jax.errors import ConfigError
from llama_jax.inference.prompts import PromptTooLong, encode_prompt
from llama_jax.serving.engine import Engine
from llama_jax.serving.job import Event, Job, Prompt, Scored
from llama_jax.serving.protocol import DEFAULT_TOKENS, Request, RequestError, names_of
from llama_jax.tokenizer.base import IncrementalDecoder, Tokenizer


class ServedModel:
    """The one model that is served, as answers need it."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, name: str):
        self.engine, self.tokenizer, self.name = engine, tokenizer, name
        self.names = names_of(tokenizer, engine.config.vocab_size)
        """Of every id, for `tokens` and `top_logprobs`."""


class Offsets:
    """Where tokens begin in a text: the number of its characters that the tokens before them settle.

    A token that goes on with a character of several bytes begins where that character does, and one without text where
    the next begins. An offset is known once the token's first character is, which may take later tokens.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()):
        """`before` are the ids that the text goes on from."""
        self._decoder = IncrementalDecoder(tokenizer)
        self._decoder.push(before)
        self.length = 0
        """Characters of the text so far."""
        self._open: list[str] = []
        """What was pending before each token whose first character is not known yet."""

    def push(self, ids: Sequence[int], last: bool = False) -> list[int]:
        """Offsets that are known now, in the order of the tokens; `last` says that no more tokens will come."""
        known = []
        for token in ids:
            self._open.append(self._decoder.pending)
            known += self._settle(self._decoder.push([token]), last=not self._decoder.pending)
        return known + self._settle(self._decoder.push([], last=True), last=True) if last else known

    def _settle(self, new: str, last: bool) -> list[int]:
        """The offsets of the open tokens, where `new` text has come or no character is unfinished."""
        if not (new or last):
            return []
        known = [self.length + common(pending, new) for pending in self._open]
        self._open, self.length = [], self.length + len(new)
        return known


def common(one: str, other: str) -> int:
    """Length of the longest common beginning of two texts."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class Told:
    """One completion as its client hears of it: each token is told together with the text in which it begins."""

    def __init__(self, served: ServedModel, prompt: Sequence[int], echo: str | None, most: int | None):
        self._names, self._most, self._echo = served.names, most, echo or ""
        self._offsets = Offsets(served.tokenizer, () if most is None or echo is not None else prompt)
        self._shift = 0
        """Between characters that were decoded and characters of the answer."""
        self._length = 0
        """Characters told."""
        self._tokens: deque[Scored] = deque()
        self._known: deque[int] = deque()
        """Offsets of the first of the tokens."""
        self.made = 0
        """Tokens generated so far."""

    def choice(self, index: int, event: Event) -> dict:
        """An entry of `choices`: what the event says, behind the echoed prompt where it is the first."""
        echo, self._echo = self._echo, ""
        self._length += len(echo) + len(event.text)
        self.made = event.made
        table = None if self._most is None else self._table(event, len(echo))
        return {"index": index, "text": echo + event.text, "logprobs": table, "finish_reason": event.end}

    def _table(self, event: Event, echoed: int) -> dict[str, list]:
        """The tokens that begin in the text told so far, and at its end all: those of a stop string stand behind the text."""
        if event.prompt:
            self._note(event.prompt)
            # a tokenizer may have changed the prompt's characters; the echo is the prompt as it came
            self._known = deque(min(offset, echoed) for offset in self._known)
            self._shift = echoed - self._offsets.length
        self._note(event.tokens, last=event.end is not None)
        rows = []
        while self._known and (event.end or self._known[0] < self._length):
            rows.append((self._tokens.popleft(), min(self._known.popleft(), self._length)))
        return {"tokens": [self._names[token.id] for token, _ in rows], "token_logprobs": [token.logprob for token, _ in rows],
                "top_logprobs": [self._top(token) for token, _ in rows], "text_offset": [offset for _, offset in rows]}

    def _note(self, tokens: Sequence[Scored], last: bool = False) -> None:
        """More tokens, and what is known of where they begin."""
        self._tokens += tokens
        self._known += (offset + self._shift for offset in self._offsets.push([token.id for token in tokens], last))

    def _top(self, token: Scored) -> dict[str, float] | None:
        """The most likely tokens, and the token itself where it is not among them."""
        if token.top is None:
            return None
        return {self._names[i]: value for i, value in token.top[: self._most]} | {self._names[token.id]: token.logprob}


class Answer:
    """The jobs of one request and what comes of them; belongs to the event loop's thread."""

    def __init__(self, asked: Request, served: ServedModel):
        self._asked, self._served = asked, served
        self._number, self._created = f"cmpl-{uuid.uuid4().hex}", int(time.time())
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self.jobs: list[Job] = []
        self._told: list[Told] = []
        self._prompt_tokens = 0
        seed = secrets.randbits(32) if asked.seed is None else asked.seed
        for place, prompt in enumerate(asked.prompt):
            self._add(place, prompt, seed)

    def _add(self, place: int, prompt: str | tuple[int, ...], seed: int) -> None:
        """The jobs of one prompt; raises RequestError."""
        asked, tokenizer, wants = self._asked, self._served.tokenizer, self._asked.logprobs is not None
        ids = self._ids(prompt)
        sampling = asked.sampling(max_tokens=self._budget(len(ids)), seed=seed)
        shared = Prompt(tuple(ids), wants_scores=wants and asked.echo)
        echo = None
        if asked.echo:  # the text of ids without a character that they begin and the completion ends
            echo = prompt if isinstance(prompt, str) else IncrementalDecoder(tokenizer).push(ids)
        self._prompt_tokens += len(ids)
        for sample in range(asked.n):
            hear = partial(self._hear, len(self.jobs))
            self.jobs.append(Job(shared, sampling, sample, hear, place=place, wants_top=wants, streams=asked.stream))
            self._told.append(Told(self._served, ids, echo, asked.logprobs))

    def _ids(self, prompt: str | tuple[int, ...]) -> list[int]:
        """Checked ids of a prompt; raises RequestError."""
        try:
            return encode_prompt(self._served.tokenizer, prompt, config=self._served.engine.config)
        except PromptTooLong as error:
            raise RequestError(400, str(error), param="prompt", code="context_length_exceeded") from None
        except ConfigError as error:
            raise RequestError(400, str(error), param="prompt") from None

    def _budget(self, read: int) -> int:
        """Tokens to generate after a prompt of `read` tokens; raises RequestError where the context does not hold them."""
        context, wanted = self._served.engine.config.max_length, self._asked.max_tokens
        if wanted is None:
            return min(DEFAULT_TOKENS, context - read)
        if read + wanted > context:
            raise RequestError(400, f"the model's context holds {context} tokens; the prompt has {read} and max_tokens asks for "
                               f"{wanted} more. Ask for at most {context - read}, or shorten the prompt.", param="max_tokens",
                               code="context_length_exceeded")
        return wanted

    def _hear(self, index: int, event: Event) -> None:
        """Called from the engine's thread: pass the event on."""
        with suppress(RuntimeError):  # the loop may be gone when the last token comes
            self._loop.call_soon_threadsafe(self._heard.put_nowait, (index, event))

    async def _choices(self) -> AsyncIterator[dict]:
        """What is new about one of the completions, until all have ended."""
        left = len(self.jobs)
        while left:
            index, event = await self._heard.get()
            if event.error:
                raise RequestError(500, f"the model failed on this request ({type(event.error).__name__}).")
            left -= event.end is not None
            yield self._told[index].choice(index, event)

    async def whole(self) -> dict:
        """The answer when all is there."""
        choices = [choice async for choice in self._choices()]
        return self._body(sorted(choices, key=lambda choice: choice["index"])) | {"usage": self.usage()}

    async def stream(self) -> AsyncIterator[str]:
        """The answer as server-sent events; an error, once it has begun, is the last of them."""
        def event(body: dict) -> str:
            # ASCII: clients that split lines as Unicode has them would cut an event at U+2028 or U+0085
            return f"data: {json.dumps(body, allow_nan=False)}\n\n"

        more = {"usage": None} if self._asked.include_usage else {}
        try:
            async for choice in self._choices():
                if choice["text"] or choice["finish_reason"] or (choice["logprobs"] or {}).get("tokens"):
                    yield event(self._body([choice]) | more)
            if self._asked.include_usage:
                yield event(self._body([]) | {"usage": self.usage()})
            yield "data: [DONE]\n\n"
        except RequestError as error:
            yield event(error.body)
        except Exception as error:  # a mistake of ours; the status is sent already
            traceback.print_exception(error)
            yield event(RequestError(500, f"the server failed on this request ({type(error).__name__}).").body)

    def _body(self, choices: list[dict]) -> dict:
        """The answer, or one part of a streamed one."""
        return {"id": self._number, "object": "text_completion", "created": self._created, "model": self._served.name,
                "system_fingerprint": self._served.engine.fingerprint, "choices": choices}

    def cancel(self) -> None:
        """Free the slots; nothing happens to jobs that are done."""
        self._served.engine.cancel(self.jobs)

    def usage(self) -> dict[str, int]:
        """Tokens read, each prompt once, and tokens generated so far in all completions."""
        made = sum(told.made for told in self._told)
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": made, "total_tokens": self._prompt_tokens + made}
