"""Train a SentencePiece tokenizer with the settings of LLaMA's (section 2.1, "Tokenizer")."""

import io
import re
from collections.abc import Iterable, Iterator

import sentencepiece

from llama_jax.errors import ConfigError, DataError
from llama_jax.tokenizer.sentencepiece import SentencePiece

LONGEST_SENTENCE = 4192
"""Bytes of one training sentence; longer lines are cut, because the trainer would drop them."""
MOST_TRAINING_TEXT = 100_000_000
"""Characters the trainer gets, evenly drawn from what there is: it takes 40 bytes for each."""
THREADS = 16
"""Of the trainer. A constant, because the model file records it and its hash should not depend on the machine."""
FEWEST_PIECES = 3 + 256
"""unk, bos, eos and the bytes."""


def train_sentencepiece(texts: Iterable[str], vocab_size: int) -> SentencePiece:
    """BPE with digits split, byte fallback and no normalisation; unk 0, bos 1, eos 2, then the 256 bytes.

    Raises ConfigError where `vocab_size` cannot hold those, DataError where the text asks for more pieces or fewer.
    """
    if vocab_size <= FEWEST_PIECES:
        raise ConfigError(f"vocab_size must be above {FEWEST_PIECES} (unk, bos, eos and 256 bytes), got {vocab_size}.")
    sentences = subsample_sentences(training_sentences(texts), MOST_TRAINING_TEXT)
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
            max_sentence_length=LONGEST_SENTENCE,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            unk_surface=" \u2047 ",
            num_threads=THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(_why_not(str(error), vocab_size)) from None
    return SentencePiece(output.getvalue())


def _why_not(message: str, vocab_size: int) -> str:
    """SentencePiece's complaint as a sentence that says what to do."""
    if high := re.search(r"size too high.*<= (\d+)", message):
        return (f"vocab_size {vocab_size} is too large for the text, which gives {high[1]} pieces at most; set it to "
                f"{high[1]} or less, or give more text.")
    if low := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return (f"vocab_size {vocab_size} is too small for the text, whose characters and the bytes need {low[1]}; set "
                f"it to {low[1]} or more.")
    return f"SentencePiece could not learn {vocab_size} pieces: {message.strip().splitlines()[-1]}"


def training_sentences(texts: Iterable[str]) -> Iterator[str]:
    """The non-empty lines of texts, cut to what the trainer takes: 4 bytes a character at most."""
    for text in texts:
        for line in text.splitlines():
            yield from cut_line(line, LONGEST_SENTENCE // 4)


def cut_line(line: str, length: int) -> Iterator[str]:
    """Pieces of at most `length` characters, cut after a space where there is one."""
    start = 0
    while start < len(line):
        end = start + length
        if end < len(line):
            space = line.rfind(" ", start, end)
            end = space + 1 if space > start else end
        yield line[start:end]
        start = end


def subsample_sentences(sentences: Iterable[str], most: int) -> list[str]:
    """All sentences, or where they have more than `most` characters every 2nd, 4th, 8th ... of them."""
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
