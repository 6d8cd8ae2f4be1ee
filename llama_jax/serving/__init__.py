"""Serving a model over HTTP: continuous batching behind OpenAI's completions protocol (docs/SERVER.md).

`Engine` decodes jobs in a thread of its own, and `Server` is the HTTP application in front of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
