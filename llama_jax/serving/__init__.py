"""Serving a model over HTTP: continuous batching behind OpenAI's completions protocol (docs/SERVER.md)."""

from importlib import import_module
from typing import TYPE_CHECKING

from llama_jax.serving.engine import Engine
from llama_jax.serving.job import CompletionEvent, CompletionJob, QueueFull, SharedPrompt, TokenLogprob

if TYPE_CHECKING:
    from llama_jax.serving.server import RequestLimits, Server, log_to_stderr

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

_OF_SERVER = {"RequestLimits", "Server", "log_to_stderr"}
"""Names of `serving.server`, imported when one is first used: it alone needs the optional packages of the extra `serve`."""


def __getattr__(name: str):
    if name not in _OF_SERVER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.server"), name)
