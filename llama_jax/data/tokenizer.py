"""SentencePiece with LLaMA's settings: load, train, encode, decode (section 2.1, Tokenizer)."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from llama_jax.errors import DataError

LONGEST_SENTENCE = 4192
"""Bytes of one training sentence; longer lines are cut, because the trainer would drop them."""


class Tokenizer:
    """Text to ids and back. BOS and EOS are added by whoever builds a sequence, never by `encode`."""

    FILE = "tokenizer.model"

    def __init__(self, model: bytes, source: str = "tokenizer"):
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, TypeError) as error:
            raise DataError(f"{source} is not a SentencePiece model ({len(model)} bytes): {error}") from None
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise DataError(f"{source} has no BOS or EOS piece; train it with `python -m llama_jax tokenizer train`.")

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Tokenizer":
        """From a file, or from the tokenizer.model inside a folder; raises DataError where there is none."""
        path = Path(path)
        file = path / cls.FILE if path.is_dir() else path
        if not file.is_file():
            raise DataError(f"no tokenizer at {path}: expected a SentencePiece file or a folder with {cls.FILE}.")
        return cls(file.read_bytes(), str(file))

    def save(self, folder: str | os.PathLike) -> Path:
        """Write tokenizer.model into `folder`, atomically."""
        file = Path(folder) / self.FILE
        temporary = file.with_suffix(".tmp")
        temporary.write_bytes(self.model)
        return temporary.replace(file)

    @property
    def sha256(self) -> str:
        """Hash of the model file: shards made by another tokenizer are refused."""
        return hashlib.sha256(self.model).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; control pieces written in the text are text."""
        return self._processor.EncodeAsIds(text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of each text, on this thread."""
        return self._processor.Encode(texts, out_type=int, num_threads=1)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; BOS, EOS and unknown bytes leave no trace of their own."""
        return self._processor.DecodeIds([int(i) for i in ids])


def train(texts: Iterable[str], vocab_size: int, *, num_threads: int | None = None) -> Tokenizer:
    """BPE with digits split, byte fallback and no normalisation; unk 0, bos 1, eos 2, then the 256 bytes.

    Raises DataError where the text is empty or too small for `vocab_size`.
    """
    output = io.BytesIO()
    sentences = Sentences(texts)
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
            num_threads=num_threads or os.cpu_count() or 1,
            minloglevel=2,
        )
    except RuntimeError as error:
        if sentences.count == 0:
            raise DataError("the tokenizer got no text to train on; the inputs are empty.") from None
        raise DataError(f"SentencePiece could not learn {vocab_size} pieces from {sentences.count} lines: "
                        f"{str(error).strip().splitlines()[-1]}") from None
    return Tokenizer(output.getvalue())


class Sentences:
    """Iterable over the non-empty lines of texts, cut to what the trainer takes; counts what it gave."""

    def __init__(self, texts: Iterable[str]):
        self._texts = texts
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            for line in text.splitlines():
                for sentence in cut(line, LONGEST_SENTENCE // 4):
                    self.count += 1
                    yield sentence


def cut(line: str, length: int) -> Iterator[str]:
    """Pieces of at most `length` characters, cut after a space where there is one."""
    start = 0
    while start < len(line):
        end = start + length
        if end < len(line):
            space = line.rfind(" ", start, end)
            end = space + 1 if space > start else end
        yield line[start:end]
        start = end


def fertility(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """How finely a tokenizer cuts `texts`: totals, bytes a token, tokens a word, and the share of byte pieces."""
    tokens = bytes_ = words = fallback = 0
    is_byte = [tokenizer._processor.IsByte(i) for i in range(tokenizer.vocab_size)]
    for text in texts:
        ids = tokenizer.encode(text)
        tokens += len(ids)
        bytes_ += len(text.encode())
        words += len(text.split())
        fallback += sum(is_byte[i] for i in ids)
    if not tokens:
        raise DataError("the inputs hold no text to report on.")
    return {"vocab_size": tokenizer.vocab_size, "bytes": bytes_, "words": words, "tokens": tokens,
            "bytes_per_token": bytes_ / tokens, "tokens_per_word": tokens / max(words, 1),
            "byte_fallback_share": fallback / tokens}
