"""The answer to a completions request: the engine's jobs that it needs, and the response body or stream made of their events."""

import asyncio
import json
import secrets
import time
import traceback
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from llama_jax.errors import ConfigError
from llama_jax.inference.prompts import PromptTooLong, encode_prompt
from llama_jax.serving.engine import Engine
from llama_jax.serving.job import CompletionEvent, CompletionJob, SharedPrompt
from llama_jax.serving.protocol import DEFAULT_MAX_TOKENS, CompletionRequest, RequestError
from llama_jax.serving.token_table import ChoiceBuilder, token_names
from llama_jax.tokenizer.base import IncrementalDecoder, Tokenizer


class ServedModel:
    """The model that is served: its engine, its tokenizer, and the names that answers give it and its tokens."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, *, name: str):
        self.engine, self.tokenizer, self.name = engine, tokenizer, name
        self.token_names = token_names(tokenizer, engine.config.vocab_size)


class CompletionResponse:
    """The jobs of one request, and what comes of them; used by the event loop's thread alone."""

    def __init__(self, request: CompletionRequest, served: ServedModel):
        """Make the jobs, which the caller gives to the engine; raises RequestError for a prompt that cannot be served."""
        self._request, self._served = request, served
        self._id, self._created = f"cmpl-{uuid.uuid4().hex}", int(time.time())
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, CompletionEvent]] = asyncio.Queue()
        """(index of the choice, event), as the engine reports them."""
        self.jobs: list[CompletionJob] = []
        self._choices: list[ChoiceBuilder] = []
        self._prompt_tokens = 0
        seed = secrets.randbits(32) if request.seed is None else request.seed
        for prompt_index, prompt in enumerate(request.prompt):
            self._add_prompt(prompt_index, prompt, seed=seed)

    def _add_prompt(self, prompt_index: int, prompt: str | tuple[int, ...], *, seed: int) -> None:
        """Make the jobs of one prompt, one per sample; raises RequestError."""
        request, tokenizer = self._request, self._served.tokenizer
        wants_logprobs = request.logprobs is not None
        ids = self._encode(prompt)
        sampling = request.sampling(max_tokens=self._max_tokens(len(ids)), seed=seed)
        shared = SharedPrompt(tuple(ids), wants_logprobs=wants_logprobs and request.echo)
        echo = None
        if request.echo:
            # ids may end inside a character: it is left out here, and comes with the completion that finishes it
            echo = prompt if isinstance(prompt, str) else IncrementalDecoder(tokenizer).push(ids)
        self._prompt_tokens += len(ids)
        for sample_index in range(request.n):
            on_event = partial(self._on_event, len(self.jobs))
            self.jobs.append(CompletionJob(shared, sampling, sample_index, on_event, prompt_index=prompt_index,
                                           wants_tokens=wants_logprobs, streams=request.stream))
            self._choices.append(ChoiceBuilder(tokenizer, ids, names=self._served.token_names, echo=echo,
                                               num_top=request.logprobs))

    def _encode(self, prompt: str | tuple[int, ...]) -> list[int]:
        """Checked ids of a prompt; raises RequestError."""
        try:
            return encode_prompt(self._served.tokenizer, prompt, config=self._served.engine.config)
        except PromptTooLong as error:
            raise RequestError(400, str(error), param="prompt", code="context_length_exceeded") from None
        except ConfigError as error:
            raise RequestError(400, str(error), param="prompt") from None

    def _max_tokens(self, prompt_tokens: int) -> int:
        """Tokens to generate after a prompt of so many; raises RequestError where the context does not hold both."""
        context, wanted = self._served.engine.config.max_length, self._request.max_tokens
        left = context - prompt_tokens
        if wanted is None:
            return min(DEFAULT_MAX_TOKENS, left)
        if wanted > left:
            raise RequestError(400, f"the model's context holds {context} tokens; the prompt has {prompt_tokens} and max_tokens "
                               f"asks for {wanted} more. Ask for at most {left}, or shorten the prompt.", param="max_tokens",
                               code="context_length_exceeded")
        return wanted

    def _on_event(self, index: int, event: CompletionEvent) -> None:
        """Pass an event on to the event loop; called from the engine's thread."""
        with suppress(RuntimeError):  # the loop may be gone when the last token comes
            self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))

    async def _new_choices(self) -> AsyncIterator[dict]:
        """Entries of `choices` as events come, until all completions have ended."""
        running = len(self.jobs)
        while running:
            index, event = await self._events.get()
            if event.error:
                raise RequestError(500, f"the model failed on this request ({type(event.error).__name__}).")
            if event.finish_reason is not None:
                running -= 1
            yield self._choices[index].build(index, event)

    async def whole(self) -> dict:
        """The whole response body, once all completions have ended; raises RequestError where the model failed."""
        choices = [choice async for choice in self._new_choices()]
        return self._body(sorted(choices, key=lambda choice: choice["index"])) | {"usage": self.usage()}

    async def stream(self) -> AsyncIterator[str]:
        """The response as server-sent events; an error after the beginning is the last of them."""
        usage_field = {"usage": None} if self._request.include_usage else {}
        try:
            async for choice in self._new_choices():
                if choice["text"] or choice["finish_reason"] or (choice["logprobs"] or {}).get("tokens"):
                    yield _server_sent_event(self._body([choice]) | usage_field)
            if self._request.include_usage:
                yield _server_sent_event(self._body([]) | {"usage": self.usage()})
            yield "data: [DONE]\n\n"
        except RequestError as error:
            yield _server_sent_event(error.body)
        except Exception as error:  # a bug of the server; it is too late for another status
            traceback.print_exception(error)
            yield _server_sent_event(RequestError(500, f"the server failed on this request ({type(error).__name__}).").body)

    def _body(self, choices: list[dict]) -> dict:
        """The response body, or one part of a streamed one."""
        return {"id": self._id, "object": "text_completion", "created": self._created, "model": self._served.name,
                "system_fingerprint": self._served.engine.fingerprint, "choices": choices}

    def cancel(self) -> None:
        """Free the engine's slots; jobs that are done are not affected."""
        self._served.engine.cancel(self.jobs)

    def usage(self) -> dict[str, int]:
        """Tokens of the prompts, each counted once, and tokens generated so far in all completions."""
        completion_tokens = sum(choice.num_tokens for choice in self._choices)
        return {"prompt_tokens": self._prompt_tokens, "completion_tokens": completion_tokens,
                "total_tokens": self._prompt_tokens + completion_tokens}


def _server_sent_event(body: dict) -> str:
    """A JSON object as one event, in ASCII: clients that split lines at U+2028 or U+0085 too would cut it in two."""
    return f"data: {json.dumps(body, allow_nan=False)}\n\n"
