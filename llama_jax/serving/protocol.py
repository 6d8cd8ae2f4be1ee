"""OpenAI's completions protocol (docs/SERVER.md): what a request may say, how it is answered, and how it is refused."""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from llama_jax.inference.sampling import Sampling
from llama_jax.tokenizer.base import Tokenizer

DEFAULT_TOKENS = 16
"""max_tokens of a request that does not say it."""
MOST_STOPS, MOST_LOGPROBS = 4, 5
DEEPEST = 8
"""Arrays and objects inside each other in a body; no field needs more than three."""


class RequestError(Exception):
    """A request that is not served: the HTTP status, and the fields of the protocol's error object.

    `param` names the field that is at fault, `code` is a word for programs. Both, and the message, can always be sent:
    what is no Unicode text in them is escaped.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        message = escaped(message)
        super().__init__(message)
        self.status, self.code = status, code
        self.param = None if param is None else escaped(param[:100])
        kind = "server_error" if status >= 500 else "invalid_request_error"
        self.body = {"error": {"message": message, "type": kind, "param": self.param, "code": code}}


def escaped(text: str) -> str:
    r"""`text` with halves of surrogate pairs written as \udXXX, so that it can be encoded."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Request:
    """A completions request with everything checked that needs no tokenizer."""

    prompt: tuple[str | tuple[int, ...], ...] = ()
    model: str = ""
    max_tokens: int | None = None
    """None: DEFAULT_TOKENS, or what the context leaves."""
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
    """Of stream_options."""

    def sampling(self, *, max_tokens: int, seed: int) -> Sampling:
        """How each sample is drawn; every value that `parse` lets through is one that Sampling takes."""
        return Sampling(max_new_tokens=max_tokens, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p,
                        min_p=self.min_p, seed=seed % 2**32, stop=self.stop)


def read_json(data: bytes) -> Any:
    """The value that a body holds; raises RequestError where it is not JSON, or an object has two fields of one name."""
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise RequestError(400, f"the field {twice!r:.100} is there more than once.", param=twice)
        return found

    try:
        return json.loads(data.decode(), object_pairs_hook=unique)
    except UnicodeDecodeError:
        raise RequestError(400, "the body is not UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON ({str(error)[:200]}).") from None


def parse(body: Any, *, most_samples: int) -> Request:
    """The request of a JSON body; raises RequestError that names the field. null means that a field is not given."""
    if not isinstance(body, dict):
        raise RequestError(400, "the body should be a JSON object.")
    given = {}
    for key, value in body.items():
        check_text(key, value)
        if key not in CHECKS:
            close = difflib.get_close_matches(key[:100], CHECKS, n=1)
            raise RequestError(400, f"unknown field {key!r:.100}" + (f"; did you mean {close[0]}?" if close else "."), param=key)
        if value is not None:
            given[key] = CHECKS[key](key, value)
    if "prompt" not in given:
        raise RequestError(400, "the field prompt is missing.", param="prompt")
    if "stream_options" in given and not given.get("stream"):
        raise RequestError(400, "stream_options is for stream = true.", param="stream_options")
    given["include_usage"] = given.pop("stream_options", False)
    known = {field.name for field in fields(Request)}
    request = Request(**{key: value for key, value in given.items() if key in known})
    if given.get("best_of", request.n) != request.n:
        raise RequestError(400, f"best_of is supported only where it equals n (here {request.n}): the best are not chosen "
                           f"among more, got {given['best_of']}.", param="best_of")
    if len(request.prompt) * request.n > most_samples:
        raise RequestError(400, f"{len(request.prompt)} prompts with n = {request.n} make {len(request.prompt) * request.n} "
                           f"completions; at most {most_samples} are served at once.", param="n")
    return request


def check_text(key: str, value: Any) -> None:
    """Raise RequestError where a field or what is in it is no Unicode text (half a surrogate pair) or lies too deep."""
    level = [key, value]
    for _ in range(DEEPEST):
        for one in level:
            if isinstance(one, str) and escaped(one) != one:
                raise RequestError(400, f"{key!r:.100} holds half a surrogate pair, which is not Unicode text.", param=key)
        inner = [one for one in level if isinstance(one, list | dict)]
        level = [part for one in inner for part in (one if isinstance(one, list) else [*one.keys(), *one.values()])]
        if not level:
            return
    raise RequestError(400, f"{key!r:.100} is nested more than {DEEPEST} levels deep.", param=key)


Check = Callable[[str, Any], Any]
"""(name of a field, its value) -> the value as a Request holds it; raises RequestError."""


def _number(kind: type, low: float, high: float, *, above: bool = False) -> Check:
    """A number in [low, high], or where `above` in (low, high]."""
    def check(key: str, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        number = whole or (kind is float and isinstance(value, float))
        if not number or not low <= value <= high or (above and value == low):
            what = "a whole number" if kind is int else "a number"
            raise RequestError(400, f"{key} should be {what} in {'(' if above else '['}{low:g}, {high:g}], got {value!r:.100}.",
                               param=key)
        return kind(value)

    return check


def _kind(kind: type, name: str) -> Check:
    def check(key: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise RequestError(400, f"{key} should be {name}, got {value!r:.100}.", param=key)
        return value

    return check


def _only(check_kind: Check, allowed: Any) -> Check:
    """A field that is served only where it asks for nothing."""
    def check(key: str, value: Any) -> Any:
        if check_kind(key, value) != allowed:
            raise RequestError(400, f"{key} is not supported; leave it out or send {allowed!r}, got {value!r:.100}.", param=key)
        return value

    return check


def _stop(key: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MOST_STOPS or not all(isinstance(t, str) and t for t in texts):
        raise RequestError(400, f"stop should be a non-empty text or up to {MOST_STOPS} of them, got {value!r:.100}.", param=key)
    return tuple(texts)


def _prompt(key: str, value: Any) -> tuple:
    """A text, ids, or a list of texts or of ids."""
    def ids(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)

    if isinstance(value, str) or ids(value):
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(one, str) or ids(one) for one in value):
        raise RequestError(400, "prompt should be a text, token ids, or a list of texts or of token ids.", param=key)
    return tuple(one if isinstance(one, str) else tuple(one) for one in value)


def _stream_options(key: str, value: Any) -> bool:
    """Whether the usage is to be told at a stream's end."""
    for name, option in _kind(dict, "an object")(key, value).items():
        if name not in ("include_usage", "include_obfuscation") or not isinstance(option, bool | None):
            raise RequestError(400, f"stream_options holds include_usage, true or false, got {name!r:.100}: {option!r:.100}.",
                               param=key)
    if value.get("include_obfuscation"):
        raise RequestError(400, "stream_options.include_obfuscation is not supported.", param=key)
    return bool(value.get("include_usage"))


TRUTH, TEXT = _kind(bool, "true or false"), _kind(str, "a text")
CHECKS: dict[str, Check] = {
    "prompt": _prompt, "model": TEXT, "max_tokens": _number(int, 0, 2**31 - 1), "n": _number(int, 1, 2**31 - 1),
    "temperature": _number(float, 0, 2), "top_p": _number(float, 0, 1, above=True), "top_k": _number(int, 0, 2**31 - 1),
    "min_p": _number(float, 0, 1), "seed": _number(int, -(2**63), 2**63 - 1), "stop": _stop,
    "logprobs": _number(int, 0, MOST_LOGPROBS), "echo": TRUTH, "stream": TRUTH, "stream_options": _stream_options,
    # served only where they ask for nothing
    "best_of": _number(int, 1, 2**31 - 1), "suffix": _only(TEXT, ""), "logit_bias": _only(_kind(dict, "an object"), {}),
    "frequency_penalty": _only(_number(float, -2, 2), 0), "presence_penalty": _only(_number(float, -2, 2), 0),
    # accepted, and change nothing
    "user": TEXT, "metadata": _kind(dict, "an object"), "store": TRUTH,
}


def names_of(tokenizer: Tokenizer, vocab_size: int) -> tuple[str, ...]:
    r"""A name for every id of a model's vocabulary, no two alike: what `tokens` and `top_logprobs` call them.

    An id is called by its text, one that stands for bytes which are no character `bytes:\xe2`. Of several ids with one
    text the first that is no byte keeps it; a byte is then called `bytes:\x41`, any other `token_id:17`, and so is an id
    without text or beyond the tokenizer (a vocabulary filled up to a multiple of 64).
    """
    pieces = [tokenizer.piece(i) for i in range(min(vocab_size, tokenizer.vocab_size))]
    is_byte = [tokenizer.is_byte(i) for i in range(len(pieces))]
    names, taken = [f"token_id:{i}" for i in range(vocab_size)], {""}
    for i in sorted(range(len(pieces)), key=is_byte.__getitem__):  # bytes last
        in_bytes = "bytes:" + "".join(f"\\x{byte:02x}" for byte in pieces[i].encode())
        for name in (pieces[i], in_bytes) if is_byte[i] else (pieces[i],):
            if name not in taken:
                names[i] = name
                break
        taken.add(names[i])
    return tuple(names)
