"""The files that make transformers' AutoTokenizer read our tokenizers."""

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.bpe import BYTE_OF_CHARACTER, LLAMA3_PATTERN, Tiktoken, TokenizerJson
from llama_jax.tokenizer.sentencepiece import SPACE, SentencePiece


def generation(tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json: which ids begin and end a text."""
    eos = list(tokenizer.eos_ids)
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos[0] if len(eos) == 1 else eos}


def hf_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Contents by file name: the model, what lay beside it, and what AutoTokenizer needs more."""
    files = {name: data for name, data in tokenizer.special_tokens.files.items() if name != "generation_config.json"}
    files |= {tokenizer.FILE: tokenizer.model}
    made = None
    if isinstance(tokenizer, SentencePiece):
        made = pieces(tokenizer)
    elif isinstance(tokenizer, Tiktoken):
        made = byte_level(tokenizer)
    if made is not None:
        add_bos(made, tokenizer)
        files["tokenizer.json"] = made.to_str().encode()
    if not isinstance(tokenizer, TokenizerJson):
        kept = json.loads(files.get("tokenizer_config.json", b"{}"))
        names = {"bos_token": tokenizer.piece(tokenizer.bos_id), "eos_token": tokenizer.piece(tokenizer.eos_id)}
        files["tokenizer_config.json"] = (json.dumps({"clean_up_tokenization_spaces": False, **names, **kept} | {
            # LlamaTokenizer of transformers 5 sets no space before a text that begins with one: SentencePiece does
            "tokenizer_class": "LlamaTokenizer" if made is None else "PreTrainedTokenizerFast",
            "add_bos_token": bool(tokenizer.begin), "add_eos_token": False}, indent=2) + "\n").encode()
    return files


def add_bos(made: tokenizers.Tokenizer, tokenizer: Tokenizer) -> None:
    """The template that sets BOS before a text, where the rules say so."""
    if tokenizer.begin:
        bos = tokenizer.piece(tokenizer.bos_id)
        made.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                                            special_tokens=[(bos, tokenizer.bos_id)])


def merges_of(ranks: dict[Any, int]) -> list[tuple[Any, Any]]:
    """Which two pieces become which third: wherever the sum is a piece, the sum of lowest rank first."""
    merges = []
    for piece in sorted(ranks, key=ranks.get):
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        merges += sorted((ranks[left], ranks[right], left, right) for left, right in splits if left in ranks and right in ranks)
    return [(left, right) for *_, left, right in merges]


def pieces(tokenizer: SentencePiece) -> tokenizers.Tokenizer | None:
    """A SentencePiece model with LLaMA's settings as a tokenizer.json; None for one with others."""
    scores = tokenizer.scores
    if not tokenizer.keeps_text or any(score != -float(n) and score > -len(scores) for n, score in enumerate(scores.values())):
        return None
    ids = {tokenizer.name(i): i for i in range(tokenizer.vocab_size)}
    order = sorted(scores, key=lambda piece: (-scores[piece], ids[piece]))
    merges = merges_of({piece: rank for rank, piece in enumerate(order)})
    result = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token=tokenizer.name(0), fuse_unk=True,
                                             byte_fallback=True))
    result.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    result.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                        decoders.Strip(" ", 1, 0)])
    control = [0, tokenizer.bos_id, tokenizer.eos_id]
    result.add_special_tokens([AddedToken(tokenizer.name(i), special=True, normalized=False) for i in control])
    return result


def byte_level(tokenizer: Tiktoken) -> tokenizers.Tokenizer:
    """Llama 3's ranks as a tokenizer.json."""
    character = {byte: text for text, byte in BYTE_OF_CHARACTER.items()}

    def name(data: bytes) -> str:
        return "".join(character[byte] for byte in data)

    model = models.BPE(vocab={name(data): rank for data, rank in tokenizer.ranks.items()}, ignore_merges=True,
                       merges=[(name(left), name(right)) for left, right in merges_of(tokenizer.ranks)])
    result = tokenizers.Tokenizer(model)
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in tokenizer.special])
    return result
