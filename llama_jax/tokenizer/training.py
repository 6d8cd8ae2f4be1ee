"""Train a SentencePiece tokenizer with LLaMA's settings (section 2.1, "Tokenizer")."""

import io
import re
from collections.abc import Iterable, Iterator

import sentencepiece

from llama_jax.errors import ConfigError, DataError
from llama_jax.tokenizer.sentencepiece import SentencePiece

_LONGEST_SENTENCE = 4192
"""Bytes of one training sentence. Longer lines are cut, because the trainer would drop them."""
_MOST_TRAINING_TEXT = 100_000_000
"""Characters that the trainer gets at most, drawn evenly from the whole text: it takes 40 bytes of memory per character."""
_THREADS = 16
"""Threads of the trainer. They are a constant because the model file records them: its hash must not depend on the machine."""
_FEWEST_PIECES = 3 + 256
"""Pieces that every model has: unk, bos, eos and the bytes."""


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> SentencePiece:
    """Train a byte-pair encoding that splits numbers into digits, falls back to bytes, and does not normalise text.

    Ids are unk 0, bos 1, eos 2, then the 256 bytes, then the learned pieces.

    Raises:
        ConfigError: `vocab_size` has no room for learned pieces.
        DataError: there is no text, or it needs or gives another number of pieces.
    """
    if vocab_size <= _FEWEST_PIECES:
        raise ConfigError(f"vocab_size must be above {_FEWEST_PIECES} (unk, bos, eos and 256 bytes), got {vocab_size}.")
    sentences = subsample_sentences(_training_sentences(texts), _MOST_TRAINING_TEXT)
    if not sentences:
        raise DataError("the tokenizer got no text to train on; the inputs are empty.")
    output = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(sentences),
            model_writer=output,
            vocab_size=vocab_size,
            model_type="bpe",
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            byte_fallback=True,
            character_coverage=0.99995,
            max_sentence_length=_LONGEST_SENTENCE,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            unk_surface=" \u2047 ",
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(_explain_failure(str(error), vocab_size)) from None
    return SentencePiece(output.getvalue())


def _explain_failure(message: str, vocab_size: int) -> str:
    """The trainer's error as a sentence that says what to do."""
    if high := re.search(r"size too high.*<= (\d+)", message):
        return (f"vocab_size {vocab_size} is too large for the text, which gives {high[1]} pieces at most; set it to "
                f"{high[1]} or less, or give more text.")
    if low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (f"vocab_size {vocab_size} is too small for the text, whose characters and the bytes need {low[1]}; set "
                f"it to {low[1]} or more.")
    return f"SentencePiece could not learn {vocab_size} pieces: {message.strip().splitlines()[-1]}"


def _training_sentences(texts: Iterable[str]) -> Iterator[str]:
    """The lines of `texts`, cut to the length that the trainer takes, where a character is at most 4 bytes."""
    for text in texts:
        for line in text.splitlines():
            yield from cut_line(line, _LONGEST_SENTENCE // 4)


def cut_line(line: str, length: int) -> Iterator[str]:
    """Parts of at most `length` characters that join to `line`, each cut after a space if it has one; none for an empty line."""
    start = 0
    while start < len(line):
        end = start + length
        if end < len(line):
            space = line.rfind(" ", start, end)
            end = space + 1 if space > start else end
        yield line[start:end]
        start = end


def subsample_sentences(sentences: Iterable[str], most: int) -> list[str]:
    """All sentences, or every 2nd, 4th, 8th ... of them so that they have at most `most` characters together."""
    kept, size, stride = [], 0, 1
    for number, sentence in enumerate(sentences):
        if number % stride:
            continue
        kept.append(sentence)
        size += len(sentence)
        while size > most and len(kept) > 1:
            kept, stride = kept[::2], 2 * stride
            size = sum(map(len, kept))
    return kept
