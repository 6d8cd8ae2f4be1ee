"""What generate and score are told; the work, and jax with it, is imported when it begins."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Generate:
    """Continue a prompt, a file of prompts, or what is typed."""

    checkpoint: str
    """A run directory of train.py (its newest step), DIR/checkpoints/STEP, a Hugging Face or a Meta folder."""
    prompt: str | None = None
    """Text to continue; it streams to the terminal."""
    prompt_file: str | None = None
    """JSON lines with a "prompt" each; every line comes back with "text" and "finish_reason"."""
    interactive: bool = False
    """Continue every line that is typed."""
    max_new_tokens: int = 256
    """Tokens at most; the model's context may end the text before."""
    temperature: float = 0.8
    """Divides the logits; 0 takes the likeliest token."""
    top_p: float = 0.95
    """Keep the likeliest tokens until their probabilities sum to this; 1: all."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0: all. Of these, renormalised, top_p then keeps its share; --top_p 1 leaves it to top_k."""
    min_p: float = 0.0
    """Keep tokens whose probability is at least this fraction of the likeliest one's; it comes after top_k and top_p."""
    num_samples: int = 1
    """Continuations of each prompt."""
    seed: int = 0
    """The same seed gives the same texts; prompts and samples draw independently of each other, however they are batched."""
    stop: tuple[str, ...] = ()
    """The text ends before the one of these that is complete first."""
    logprobs: bool = False
    """Tell each token's log-probability in the JSON lines."""
    batch_size: int = 16
    """Prompts of a file that are decoded together."""
    output: str | None = None
    """File for the JSON lines; without it they are printed."""
    quantize: Literal["none", "int8"] = "none"
    """Weights in 8 bits, scaled by output channel: less memory to read a token, slightly other numbers."""
    tensor: int = 1
    """Devices that share the heads and the vocabulary of the model."""

    def run(self) -> None:
        """The one of the three that is asked for."""
        from llama_jax.cli.generate import run_generate

        run_generate(self)


@dataclass(frozen=True)
class Score:
    """Log-probabilities of continuations after their contexts."""

    checkpoint: str
    """A run directory of train.py (its newest step), DIR/checkpoints/STEP, a Hugging Face or a Meta folder."""
    input: str
    """JSON lines with a "context" (may be empty) and a "continuation" each."""
    output: str
    """The same lines with "logprob", "token_logprobs", "is_greedy" and, where a context is too long, "truncated": tokens cut."""
    tensor: int = 1
    """Devices that share the heads and the vocabulary of the model."""

    def run(self) -> None:
        """Score all lines and write them."""
        from llama_jax.cli.generate import run_score

        run_score(self)


@dataclass(frozen=True)
class Serve:
    """Serve the OpenAI completions protocol over HTTP (extra `serve`)."""

    checkpoint: str
    """A run directory of train.py (its newest step), DIR/checkpoints/STEP, a Hugging Face or a Meta folder."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody in: set api_key then."""
    port: int = 8000
    """Port to listen on."""
    model_name: str = ""
    """Name under which clients ask for the model; empty: the checkpoint's folder."""
    slots: int = 16
    """Completions decoded together; each holds a cache of the model's whole context."""
    queue: int = 256
    """Completions that may wait for a slot; more are refused with 429."""
    max_body: int = 1 << 20
    """Bytes of the largest request."""
    max_samples: int = 128
    """Completions (prompts x n) of one request."""
    api_key: str = ""
    """What clients must send as a bearer token; empty: the variable LLAMA_JAX_API_KEY, and without it nothing."""
    quiet: bool = False
    """Do not write one line per request to stderr."""
    quantize: Literal["none", "int8"] = "none"
    """Weights in 8 bits, scaled by output channel."""
    tensor: int = 1
    """Devices that share the heads and the vocabulary of the model."""

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C; what runs then is finished."""
        from llama_jax.cli.generate import run_serve

        run_serve(self)
