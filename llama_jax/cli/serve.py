"""`llama_jax serve` at work: a model behind OpenAI's completions protocol until a signal ends it."""

import os
import signal
from pathlib import Path

import jax

from llama_jax.cli.load_model import load_model
from llama_jax.cli.options import ServeOptions
from llama_jax.errors import ConfigError
from llama_jax.inference.params import decoding_params
from llama_jax.interruption import noted_stops


def run_serve(asked: ServeOptions) -> None:
    """Load, compile, and serve until SIGTERM or Ctrl-C; completions that run by then are finished."""
    try:
        import uvicorn

        from llama_jax.serving.engine import Engine
        from llama_jax.serving.server import RequestLimits, Server, log_to_stderr
    except ModuleNotFoundError as error:
        raise ConfigError(f'serving needs {error.name}, which is not installed: pip install "llama_jax[serve]" '
                          '(from a checkout: pip install -e ".[serve]").') from None
    if min(asked.slots, asked.queue, asked.max_body, asked.max_samples) < 1:
        raise ConfigError("slots, queue, max_body and max_samples must be positive.")
    model, params, tokenizer = load_model(asked.checkpoint, asked.tensor)
    mesh = params["embedding"].sharding.mesh
    with jax.set_mesh(mesh):
        decoding = decoding_params(model, params, int8=asked.quantize == "int8")
        del params  # the last reference: the weights in their first form are freed
        engine = Engine(model, decoding, tokenizer=tokenizer, slots=asked.slots, queue=asked.queue, mesh=mesh)
        key = asked.api_key or os.environ.get("LLAMA_JAX_API_KEY", "")
        limits = RequestLimits(body_bytes=asked.max_body, max_completions=asked.max_samples, api_key=key)
        name = asked.model_name or Path(asked.checkpoint).resolve().name
        print(f"{name}: {asked.slots} slots of {model.config.max_length} tokens, http://{asked.host}:{asked.port}/v1", flush=True)
        noted_stops(second_ends=False)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn obeys them, then raises them again
            signal.signal(number, lambda number, frame: None)
        server = Server(engine, tokenizer, name=name, limits=limits, log=None if asked.quiet else log_to_stderr)
        uvicorn.run(server.app(), host=asked.host, port=asked.port, log_level="warning", timeout_keep_alive=30)
