"""The interface of every tokenizer: text to token ids and back, all at once or a few ids at a time."""

import codecs
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from llama_jax.files.atomic import make_folder, write_atomic
from llama_jax.tokenizer.special_tokens import SpecialTokens

REPLACE_EACH_BYTE = "llama_jax.replace_each"
"""A codecs error handler that gives one U+FFFD per byte that is not UTF-8; "replace" gives one per truncated character."""
codecs.register_error(REPLACE_EACH_BYTE, lambda error: ("\ufffd" * (error.end - error.start), error.end))

TokenContent = str | bytes | None
"""What a token id stands for: text; bytes, which can be a part of a character; or None, for control tokens and unknown ids."""


class Tokenizer(ABC):
    """A tokenizer of one of the supported formats.

    `encode` never adds BOS or EOS: whoever builds a sequence of ids does.
    """

    KIND: str
    """Name of the format in messages."""
    FILE: str
    """Name of the model file, one of `llama_jax.tokenizer.load.TOKENIZER_FILES`."""
    vocab_size: int
    bos_id: int
    """Begins a document. Where a tokenizer has no BOS token, this is `eos_id`."""
    eos_id: int
    """Ends a document."""
    unknown_id: int | None = None
    """Stands for what the tokenizer has no piece for; None where there is no such token."""
    errors = "replace"
    """How bytes that are not UTF-8 are decoded: the name of a codecs error handler."""

    def __init__(self, model: bytes, special_tokens: SpecialTokens):
        self.model, self.special_tokens = model, special_tokens
        self._contents: dict[tuple[int, bool], TokenContent] = {}

    def __reduce__(self):
        return type(self), (self.model, self.special_tokens)

    def save(self, folder: str | os.PathLike) -> None:
        """Write the model file, and the files that came beside it, into `folder`, which is made if missing."""
        make_folder(Path(folder))
        for name, data in (self.special_tokens.files | {self.FILE: self.model}).items():
            write_atomic(Path(folder) / name, data)

    def __str__(self) -> str:
        return f"{self.KIND} ({self.FILE}), {self.vocab_size:,} pieces"

    @property
    def sha256(self) -> str:
        """Hash of the model file. Token shards record it, and are refused with any other tokenizer."""
        return hashlib.sha256(self.model).hexdigest()

    @property
    def begin(self) -> tuple[int, ...]:
        """The ids to set before a prompt: BOS, or nothing where the files beside the tokenizer say so."""
        return () if self.special_tokens.adds_bos is False else (self.bos_id,)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """All ids at which generation ends, ascending; `eos_id` is one of them."""
        return tuple(sorted({self.eos_id, *self.special_tokens.eos_ids}))

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of `text`. Control tokens written out in the text, such as "</s>", are encoded as ordinary text."""

    def encode_array(self, text: str) -> np.ndarray:
        """Token ids of `text` as an int32 array of shape (tokens,)."""
        return np.asarray(self.encode(text), np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`. Control tokens, and ids outside the vocabulary, add nothing.

        Bytes that are not UTF-8 become U+FFFD and leave the characters before and after them intact.
        """
        return IncrementalDecoder(self).push(ids, last=True)

    def content(self, token: int, *, first: bool = False) -> TokenContent:
        """What a token adds to a text.

        `first` says that the text is still empty: there, tokenizers that set a space before every text take it away again.
        """
        if not 0 <= token < self.vocab_size:
            return None
        if (token, first) not in self._contents:
            self._contents[token, first] = self._read_content(token, first=first)
        return self._contents[token, first]

    def begins(self, token: int) -> bool:
        """Whether a text is no longer empty after this token, so that the next one is not the first."""
        return bool(self.content(token))

    @abstractmethod
    def _read_content(self, token: int, *, first: bool) -> TokenContent:
        """Compute `content` for an id inside the vocabulary."""

    @abstractmethod
    def piece(self, token: int) -> str:
        """A token in print: its text, or `bytes:\\xNN` where its bytes alone are not UTF-8."""

    def is_byte(self, token: int) -> bool:
        """Whether a token stands for bytes rather than for characters."""
        return self.piece(token).startswith("bytes:")


class IncrementalDecoder:
    """Turns ids into text a few at a time: what successive calls of `push` return, joined, is the text of all ids.

    The bytes of an unfinished character are held back until more ids come. Decoding a token therefore costs the same however
    many came before it.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._begun = False
        self._bytes = codecs.getincrementaldecoder("utf-8")(tokenizer.errors)

    def push(self, ids: Iterable[int], last: bool = False) -> str:
        """The text that `ids` complete. With `last`, no more ids come, and held-back bytes are decoded as they are."""
        parts = []
        for token in ids:
            token = int(token)
            content = self._tokenizer.content(token, first=not self._begun)
            self._begun = self._begun or self._tokenizer.begins(token)
            if isinstance(content, bytes):
                parts.append(self._bytes.decode(content))
            elif content is not None:
                parts.append(self._bytes.decode(b"", final=True))  # text ends a character whose other bytes did not come
                parts.append(content)
        parts.append(self._bytes.decode(b"", final=last))
        return "".join(parts)

    @property
    def pending(self) -> str:
        """The held-back bytes as text, in case no more ids come."""
        return self._bytes.getstate()[0].decode("utf-8", self._tokenizer.errors)


def show_bytes(data: bytes) -> str:
    """The bytes of a token in the form of `Tokenizer.piece`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
