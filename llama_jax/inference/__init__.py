"""Inference: prefill and decoding with a key-value cache, sampling, and text generation from batches or as a stream."""

from llama_jax.inference.continuation import Continuation, Generated
from llama_jax.inference.detokenizer import TextStream
from llama_jax.inference.generate import DecodingBatch, generate, generate_encoded, generate_long_text, stream
from llama_jax.inference.params import DecodingParams, decoding_params
from llama_jax.inference.prompts import EncodedPrompt, PromptTooLong, encode_prompt
from llama_jax.inference.reading import read_for_inference
from llama_jax.inference.sampling import Sampling

__all__ = [
    "Continuation",
    "DecodingBatch",
    "DecodingParams",
    "EncodedPrompt",
    "Generated",
    "PromptTooLong",
    "Sampling",
    "TextStream",
    "decoding_params",
    "encode_prompt",
    "generate",
    "generate_encoded",
    "generate_long_text",
    "read_for_inference",
    "stream",
]
