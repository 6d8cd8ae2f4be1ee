"""Our tokenizers as the files from which transformers' AutoTokenizer makes the same ids."""

import json
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.bpe import BYTE_OF_CHARACTER, LLAMA3_PATTERN, Tiktoken, TokenizerJson
from llama_jax.tokenizer.sentencepiece import SPACE, SentencePiece


def hf_generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The values of generation_config.json: the ids that begin and end a text."""
    eos = list(tokenizer.eos_ids)
    return {"bos_token_id": tokenizer.bos_id, "eos_token_id": eos[0] if len(eos) == 1 else eos}


def hf_tokenizer_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """The contents of a tokenizer's files by name: its model, the files that lay beside it, and those that it lacks."""
    files = {name: data for name, data in tokenizer.special_tokens.files.items() if name != "generation_config.json"}
    files[tokenizer.FILE] = tokenizer.model
    if isinstance(tokenizer, TokenizerJson):
        return files
    made = None
    if isinstance(tokenizer, SentencePiece):
        made = _from_sentencepiece(tokenizer)
    elif isinstance(tokenizer, Tiktoken):
        made = _from_tiktoken(tokenizer)
    if made is not None:
        _add_bos_template(made, tokenizer)
        files["tokenizer.json"] = made.to_str().encode()
    settings = {"clean_up_tokenization_spaces": False,
                "bos_token": tokenizer.piece(tokenizer.bos_id), "eos_token": tokenizer.piece(tokenizer.eos_id)}
    settings |= json.loads(files.get("tokenizer_config.json", b"{}"))
    settings |= {
        # not LlamaTokenizer where there is a tokenizer.json: in transformers 5 it sets no space before a text that begins with
        # a space, and SentencePiece does
        "tokenizer_class": "LlamaTokenizer" if made is None else "PreTrainedTokenizerFast",
        "add_bos_token": bool(tokenizer.begin),
        "add_eos_token": False,
    }
    files["tokenizer_config.json"] = (json.dumps(settings, indent=2) + "\n").encode()
    return files


def _add_bos_template(made: tokenizers.Tokenizer, tokenizer: Tokenizer) -> None:
    """Make `made` set BOS before a text, where `tokenizer` does."""
    if tokenizer.begin:
        bos = tokenizer.piece(tokenizer.bos_id)
        made.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
                                                            special_tokens=[(bos, tokenizer.bos_id)])


def _merges_of(ranks: dict[Any, int]) -> list[tuple[Any, Any]]:
    """The merges of byte-pair encoding from the ranks of its pieces.

    Two pieces merge wherever what they make is a piece; merges that make a piece of lower rank come first.
    """
    merges = []
    for piece in sorted(ranks, key=ranks.get):
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        merges += sorted((ranks[left], ranks[right], left, right) for left, right in splits if left in ranks and right in ranks)
    return [(left, right) for *_, left, right in merges]


def _from_sentencepiece(tokenizer: SentencePiece) -> tokenizers.Tokenizer | None:
    """A tokenizer.json of a SentencePiece model with LLaMA's settings; None where the settings are others."""
    scores = tokenizer.scores
    # in a trained BPE model the n-th piece has the score -n; pieces that score below all of these come after them
    ranked = all(score == -float(n) or score <= -len(scores) for n, score in enumerate(scores.values()))
    if not tokenizer.keeps_text or not ranked:
        return None
    ids = {tokenizer.name(i): i for i in range(tokenizer.vocab_size)}
    order = sorted(scores, key=lambda piece: (-scores[piece], ids[piece]))
    merges = _merges_of({piece: rank for rank, piece in enumerate(order)})
    result = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token=tokenizer.name(0), fuse_unk=True,
                                             byte_fallback=True))
    result.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    result.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(),
                                        decoders.Strip(" ", 1, 0)])
    control = [0, tokenizer.bos_id, tokenizer.eos_id]
    result.add_special_tokens([AddedToken(tokenizer.name(i), special=True, normalized=False) for i in control])
    return result


def _from_tiktoken(tokenizer: Tiktoken) -> tokenizers.Tokenizer:
    """A tokenizer.json of Llama 3's tiktoken ranks."""
    character = {byte: text for text, byte in BYTE_OF_CHARACTER.items()}

    def name(data: bytes) -> str:
        return "".join(character[byte] for byte in data)

    model = models.BPE(vocab={name(data): rank for data, rank in tokenizer.ranks.items()}, ignore_merges=True,
                       merges=[(name(left), name(right)) for left, right in _merges_of(tokenizer.ranks)])
    result = tokenizers.Tokenizer(model)
    result.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in tokenizer.special])
    return result
