"""A model learns to end a document, whether its tokenizer has one token for BOS and EOS or two."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import llama_jax
from llama_jax.config.file import load_config
from llama_jax.training.loop import fit

ROOT = Path(__file__).parents[2]
TEXTS = [f"train {n % 7} stops at noon." for n in range(1500)]


@pytest.fixture(params=["one", "two"])
def run(request, tmp_path) -> Path:
    """150 steps on short documents."""
    special = ["<|endoftext|>", "<|begin|>"][: 1 + (request.param == "two")]
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    (tmp_path / "tok").mkdir()
    tokenizer.save(str(tmp_path / "tok/tokenizer.json"))
    names = {"bos_token": special[-1], "eos_token": special[0]}
    (tmp_path / "tok/tokenizer_config.json").write_text(json.dumps(names))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    c = load_config(ROOT / "configs/tiny.py")
    config = replace(
        c,
        model=replace(c.model, num_layers=2, dim=32, num_heads=2, num_kv_heads=2, ffn_dim=64,
                      vocab_size=tokenizer.get_vocab_size()),
        optimizer=replace(c.optimizer, warmup_steps=10, peak_lr=1e-2),
        data=replace(c.data, sources=(str(tmp_path / "texts.jsonl"),), sequence_length=64, tokenizer=str(tmp_path / "tok")),
        training=replace(c.training, num_steps=150, heldout_every=0, sample_tokens=0),
    )
    fit(config, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_the_end_of_a_document_is_learned(run):
    model, params, tokenizer = llama_jax.load(run)
    sampling = llama_jax.Sampling(max_new_tokens=20, temperature=0.0)
    (result,) = llama_jax.generate(model, params, tokenizer, ["train 3 stops"], sampling)
    assert (result.text, result.finish_reason) == (" at noon.", "stop")
