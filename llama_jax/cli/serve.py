"""`llama_jax serve` at work: a model behind OpenAI's completions protocol until a signal ends it."""

import os
import signal
from pathlib import Path

import jax

from llama_jax.cli.load_model import load_model
from llama_jax.cli.options import ServeOptions
from llama_jax.errors import ConfigError, DataError
from llama_jax.files.bounded import read_bounded
from llama_jax.interruption import noted_stops

_MAX_KEY_BYTES = 4096


def run_serve(asked: ServeOptions) -> None:
    """Load, compile, and serve until SIGTERM or Ctrl-C; completions that run by then are finished."""
    try:
        import uvicorn

        from llama_jax.serving.connections import MAX_HEADER_BYTES, bounded_protocol
        from llama_jax.serving.engine import Engine
        from llama_jax.serving.server import RequestLimits, Server, log_to_stderr
    except ModuleNotFoundError as error:
        raise ConfigError(f'serving needs {error.name}, which is not installed: pip install "llama_jax[serve]" '
                          '(from a checkout: pip install -e ".[serve]").') from None
    if min(asked.slots, asked.queue, asked.max_body, asked.max_samples, asked.max_connections) < 1:
        raise ConfigError("slots, queue, max_body, max_samples and max_connections must be positive.")
    if not 0 <= asked.port < 65536:
        raise ConfigError(f"port must lie in [0, 65535], got {asked.port}.")
    key = api_key(asked)
    model, params, tokenizer = load_model(asked.checkpoint, asked.tensor, dtype=asked.dtype, verify=asked.verify)
    with jax.set_mesh(params.mesh):
        engine = Engine(model, params, tokenizer=tokenizer, slots=asked.slots, queue=asked.queue, mesh=params.mesh)
        limits = RequestLimits(body_bytes=asked.max_body, max_completions=asked.max_samples, api_key=key)
        name = asked.model_name or Path(asked.checkpoint).resolve().name
        print(f"{name}: {asked.slots} slots of {model.config.max_length} tokens, http://{asked.host}:{asked.port}/v1", flush=True)
        noted_stops(second_ends=False)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn obeys them, then raises them again
            signal.signal(number, lambda number, frame: None)
        server = Server(engine, tokenizer, name=name, limits=limits, log=None if asked.quiet else log_to_stderr)
        uvicorn.run(server.app(), host=asked.host, port=asked.port, log_level="warning", timeout_keep_alive=30,
                    http=bounded_protocol(asked.max_connections), ws="none", h11_max_incomplete_event_size=MAX_HEADER_BYTES)


def api_key(asked: ServeOptions) -> str:
    """The key that clients must send; empty for none.

    Raises ConfigError where it is given in two ways, or the file that should hold it cannot be read or holds none.
    """
    if asked.api_key and asked.api_key_file:
        raise ConfigError("give one of --api_key and --api_key_file.")
    if not asked.api_key_file:
        return asked.api_key or os.environ.get("LLAMA_JAX_API_KEY", "")
    try:
        key = read_bounded(Path(asked.api_key_file), _MAX_KEY_BYTES).decode().strip()
    except (DataError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api_key_file: {error}") from None
    if not key or "\n" in key:
        raise ConfigError(f"--api_key_file {asked.api_key_file} should hold the key in one line; it is empty or longer.")
    return key
