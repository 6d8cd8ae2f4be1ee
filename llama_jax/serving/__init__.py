"""Serving a model over HTTP: continuous batching behind OpenAI's completions protocol (docs/SERVER.md).

`Engine` decodes jobs in a thread of its own, and `Server` is the HTTP application in front of it.
"""

from typing import TYPE_CHECKING

from llama_jax.lazy import lazy_getattr
from llama_jax.serving.engine import Engine
from llama_jax.serving.job import CompletionEvent, CompletionJob, QueueFull, SharedPrompt, TokenLogprob

if TYPE_CHECKING:
    from llama_jax.serving.server import RequestLimits, Server, log_to_stderr

_MODULES = {"RequestLimits": "server", "Server": "server", "log_to_stderr": "server"}
"""The module of each name that is imported when it is first asked for: `server` needs the packages of the extra `serve`."""

__all__ = [
    "CompletionEvent",
    "CompletionJob",
    "Engine",
    "QueueFull",
    "RequestLimits",
    "Server",
    "SharedPrompt",
    "TokenLogprob",
    "log_to_stderr",
]

if not TYPE_CHECKING:
    __getattr__ = lazy_getattr(__name__, _MODULES)
