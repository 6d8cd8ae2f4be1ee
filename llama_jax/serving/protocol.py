"""Requests of OpenAI's completions protocol (docs/SERVER.md): their fields, the checks of each field, and refusals."""

import difflib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from llama_jax.inference.sampling import Sampling
from llama_jax.serving.job import TOP_LOGPROBS

DEFAULT_MAX_TOKENS = 16
"""max_tokens of a request that does not give it, as in the reference."""
MAX_STOPS = 4
"""Most stop strings of a request, as in the reference."""
MAX_NESTING = 8
"""Deepest nesting of arrays and objects in a field; no field needs more than three levels."""


class RequestError(Exception):
    """A request that is refused, with the HTTP status and the fields of the protocol's error object.

    `param` names the field at fault, and `code` is a word that programs can test for. The message and `param` can always be
    encoded: what they quote of the request is escaped where it is not Unicode text.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        message = escape_surrogates(message)
        super().__init__(message)
        self.status, self.code = status, code
        self.param = None if param is None else escape_surrogates(param[:100])
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": self.param, "code": code}}


def escape_surrogates(text: str) -> str:
    r"""`text` with each half of a surrogate pair written as \udXXX, so that it can be encoded as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class CompletionRequest:
    """A completions request, after all checks that need no tokenizer. The fields have the names and meanings of the protocol."""

    prompt: tuple[str | tuple[int, ...], ...] = ()
    model: str = ""
    max_tokens: int | None = None
    """None: `DEFAULT_MAX_TOKENS`, or as many as the context leaves."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    n: int = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    stream: bool = False
    include_usage: bool = False
    """`include_usage` of the field `stream_options`."""

    def sampling(self, *, max_tokens: int, seed: int) -> Sampling:
        """How each sample is drawn; whatever `parse_request` lets through, `Sampling` takes."""
        return Sampling(max_new_tokens=max_tokens, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p,
                        min_p=self.min_p, seed=seed % 2**32, stop=self.stop)


def decode_body(data: bytes) -> Any:
    """The JSON value of a request's body; raises RequestError where it is not JSON, or an object has a field twice."""
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields_by_name = dict(pairs)
        if len(fields_by_name) < len(pairs):
            duplicate = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise RequestError(400, f"the field {duplicate!r:.100} is there more than once.", param=duplicate)
        return fields_by_name

    try:
        return json.loads(data.decode(), object_pairs_hook=without_duplicates)
    except UnicodeDecodeError:
        raise RequestError(400, "the body is not UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON ({str(error)[:200]}).") from None


def parse_request(body: Any, *, max_completions: int) -> CompletionRequest:
    """Check the JSON value of a request's body, in which null stands for a field that is not given.

    Args:
        body: The value, as `decode_body` gives it.
        max_completions: Most completions (prompts times `n`) of one request.

    Raises:
        RequestError: The request cannot be served; the error names the field at fault.
    """
    if not isinstance(body, dict):
        raise RequestError(400, "the body should be a JSON object.")
    given = {}
    for key, value in body.items():
        _check_unicode_and_nesting(key, value)
        if key not in FIELD_CHECKS:
            close = difflib.get_close_matches(key[:100], FIELD_CHECKS, n=1)
            raise RequestError(400, f"unknown field {key!r:.100}" + (f"; did you mean {close[0]}?" if close else "."), param=key)
        if value is not None:
            given[key] = FIELD_CHECKS[key](key, value)
    if "prompt" not in given:
        raise RequestError(400, "the field prompt is missing.", param="prompt")
    if "stream_options" in given and not given.get("stream"):
        raise RequestError(400, "stream_options is for stream = true.", param="stream_options")
    given["include_usage"] = given.pop("stream_options", False)
    kept = {field.name for field in fields(CompletionRequest)}  # the others change nothing, or ask for nothing
    request = CompletionRequest(**{key: value for key, value in given.items() if key in kept})
    if given.get("best_of", request.n) != request.n:
        raise RequestError(400, f"best_of is supported only where it equals n (here {request.n}): the best are not chosen "
                           f"among more, got {given['best_of']}.", param="best_of")
    completions = len(request.prompt) * request.n
    if completions > max_completions:
        raise RequestError(400, f"{len(request.prompt)} prompts with n = {request.n} make {completions} completions; at most "
                           f"{max_completions} are served at once.", param="n")
    return request


def _check_unicode_and_nesting(key: str, value: Any) -> None:
    """Raise RequestError where a field holds text that is not Unicode (half a surrogate pair), or is nested too deeply.

    Level by level instead of by recursion, which a hostile body could exhaust.
    """
    level = [key, value]
    for _ in range(MAX_NESTING):
        next_level = []
        for item in level:
            if isinstance(item, str) and escape_surrogates(item) != item:
                raise RequestError(400, f"{key!r:.100} holds half a surrogate pair, which is not Unicode text.", param=key)
            if isinstance(item, list):
                next_level += item
            elif isinstance(item, dict):
                next_level += [*item.keys(), *item.values()]
        level = next_level
        if not level:
            return
    raise RequestError(400, f"{key!r:.100} is nested more than {MAX_NESTING} levels deep.", param=key)


FieldCheck = Callable[[str, Any], Any]
"""(name of a field, its value) -> the value as a CompletionRequest holds it; raises RequestError."""


def _number(kind: type, *, low: float, high: float, without_low: bool = False) -> FieldCheck:
    """Check of a number in [low, high], or in (low, high] where `without_low` is set."""
    def check(key: str, value: Any) -> Any:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_number = is_whole or (kind is float and isinstance(value, float))
        if not is_number or not low <= value <= high or (without_low and value == low):
            what = "a whole number" if kind is int else "a number"
            bracket = "(" if without_low else "["
            raise RequestError(400, f"{key} should be {what} in {bracket}{low:g}, {high:g}], got {value!r:.100}.", param=key)
        return kind(value)

    return check


def _kind(kind: type, name: str) -> FieldCheck:
    """Check of a value's type; `name` is what an error calls it."""
    def check(key: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise RequestError(400, f"{key} should be {name}, got {value!r:.100}.", param=key)
        return value

    return check


def _only(check_kind: FieldCheck, neutral: Any) -> FieldCheck:
    """Check of a field that is not supported: it may be there with the one value that changes nothing."""
    def check(key: str, value: Any) -> Any:
        if check_kind(key, value) != neutral:
            raise RequestError(400, f"{key} is not supported; leave it out or send {neutral!r}, got {value!r:.100}.", param=key)
        return value

    return check


def _stop(key: str, value: Any) -> tuple[str, ...]:
    """Check of `stop`: a text, or a list of texts."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MAX_STOPS or not all(isinstance(t, str) and t for t in texts):
        raise RequestError(400, f"stop should be a non-empty text or up to {MAX_STOPS} of them, got {value!r:.100}.", param=key)
    return tuple(texts)


def _prompt(key: str, value: Any) -> tuple:
    """Check of `prompt`: a text, token ids, or a list of texts or of ids; the result is always several prompts."""
    def are_ids(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)

    prompts = [value] if isinstance(value, str) or are_ids(value) else value
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) or are_ids(prompt) for prompt in prompts):
        raise RequestError(400, "prompt should be a text, token ids, or a list of texts or of token ids.", param=key)
    return tuple(prompt if isinstance(prompt, str) else tuple(prompt) for prompt in prompts)


def _stream_options(key: str, value: Any) -> bool:
    """Check of `stream_options`; the result is whether the stream ends with the usage."""
    for name, option in _OBJECT(key, value).items():
        if name not in ("include_usage", "include_obfuscation") or not isinstance(option, bool | None):
            raise RequestError(400, f"stream_options holds include_usage, true or false, got {name!r:.100}: {option!r:.100}.",
                               param=key)
    if value.get("include_obfuscation"):
        raise RequestError(400, "stream_options.include_obfuscation is not supported.", param=key)
    return bool(value.get("include_usage"))


_BOOL = _kind(bool, "true or false")
_TEXT = _kind(str, "a text")
_OBJECT = _kind(dict, "an object")
_MAX_INT = 2**31 - 1
FIELD_CHECKS: dict[str, FieldCheck] = {
    "prompt": _prompt,
    "model": _TEXT,
    "max_tokens": _number(int, low=0, high=_MAX_INT),
    "temperature": _number(float, low=0, high=2),
    "top_p": _number(float, low=0, high=1, without_low=True),
    "top_k": _number(int, low=0, high=_MAX_INT),
    "min_p": _number(float, low=0, high=1),
    "n": _number(int, low=1, high=_MAX_INT),
    "seed": _number(int, low=-(2**63), high=2**63 - 1),
    "stop": _stop,
    "logprobs": _number(int, low=0, high=TOP_LOGPROBS),
    "echo": _BOOL,
    "stream": _BOOL,
    "stream_options": _stream_options,
    # not supported, and accepted with the value that changes nothing
    "best_of": _number(int, low=1, high=_MAX_INT),  # compared with n
    "suffix": _only(_TEXT, ""),
    "logit_bias": _only(_OBJECT, {}),
    "frequency_penalty": _only(_number(float, low=-2, high=2), 0),
    "presence_penalty": _only(_number(float, low=-2, high=2), 0),
    # accepted, and change nothing
    "user": _TEXT,
    "metadata": _OBJECT,
    "store": _BOOL,
}
"""The check of every field of the protocol."""
