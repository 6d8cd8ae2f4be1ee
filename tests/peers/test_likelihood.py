"""Likelihoods of real multiple-choice requests equal those of transformers, one request at a time without padding."""

import itertools
import json

import jax
import jax.numpy as jnp
import pytest

from llama_jax.config import ModelConfig
from llama_jax.model.decoder import Transformer
from llama_jax.scoring.likelihood import encode_pair, loglikelihood
from llama_jax.tokenizer.load import load_tokenizer
from tests.golden.small import FLOAT32, random_params

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.golden.make_transformers import hf_model  # noqa: E402


def rows(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def real_requests(folder) -> list[tuple[str, str]]:
    """400 of HellaSwag, PIQA and ARC."""
    hellaswag = [(row["ctx"], " " + ending)
                 for row in rows(folder / "hellaswag/hellaswag_val.jsonl") for ending in row["endings"]]
    piqa = [(f"Question: {row['goal']}\nAnswer:", " " + row[name])
            for row in rows(folder / "piqa/valid.jsonl") for name in ("sol1", "sol2")]
    arc = [(f"Question: {row['question']['stem']}\nAnswer:", " " + choice["text"])
           for row in rows(folder / "arc/ARC-Easy-Dev.jsonl") for choice in row["question"]["choices"]]
    return list(itertools.islice([*hellaswag, *piqa, *arc], 400))


def test_four_hundred_real_requests(shared_data):
    tokenizer = load_tokenizer(shared_data / "tokenizer/llama-tokenizer.model")
    config = ModelConfig(vocab_size=32_000, dim=64, num_layers=3, num_heads=8, num_kv_heads=4, ffn_dim=160, max_length=512)
    params = random_params(config, 0)
    requests = real_requests(shared_data / "eval")
    assert len(requests) == 400
    ours = loglikelihood(Transformer(config, FLOAT32), jax.tree.map(jnp.asarray, params), tokenizer, requests)
    theirs = hf_model(config, params)
    for request, got in zip(requests, ours, strict=True):
        context, continuation = encode_pair(tokenizer, context=request[0], continuation=request[1])
        with torch.no_grad():
            logits = theirs(torch.tensor([[*context, *continuation][:-1]])).logits[0, len(context) - 1 :]
        logprobs = torch.log_softmax(logits.double(), -1)
        wanted = logprobs[torch.arange(len(continuation)), torch.tensor(continuation)].sum().item()
        assert got.logprob == pytest.approx(wanted, abs=1e-4)
        assert got.is_greedy == bool((logits.argmax(-1) == torch.tensor(continuation)).all())
