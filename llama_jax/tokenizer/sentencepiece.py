"""SentencePiece with LLaMA's settings: train, encode, decode (section 2.1, Tokenizer)."""

from functools import cached_property
from itertools import pairwise

import numpy as np
import sentencepiece

from llama_jax.errors import DataError
from llama_jax.tokenizer.base import REPLACE_EACH_BYTE, TokenContent, Tokenizer, show_bytes
from llama_jax.tokenizer.special_tokens import SpecialTokens

SPACE = "\u2581"
"""How SentencePiece writes a space inside pieces."""
MARK = "\ue000"
"""A private character: stands before a part of a text, where SentencePiece would set a space."""
LONGEST_PART = 1 << 18
"""Characters encoded at one time: SentencePiece takes 50 bytes for each, and its queue slows down with them."""
CUT_WINDOW = 1 << 12
"""How far before the end of a part a clean cut is looked for."""


class SentencePiece(Tokenizer):
    """LLaMA 1 and 2's tokenizer, or one trained here with its settings."""

    KIND, FILE, errors = "SentencePiece", "tokenizer.model", REPLACE_EACH_BYTE

    def __init__(self, model: bytes, special_tokens: SpecialTokens | None = None, *, source: str = "tokenizer"):
        super().__init__(model, special_tokens or SpecialTokens())
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, TypeError):
            raise DataError(f"{source} is not a SentencePiece model ({len(model)} bytes); name another.") from None
        self.vocab_size = self._processor.vocab_size()
        self.bos_id = self._processor.bos_id()
        self.eos_id = self._processor.eos_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise DataError(f"{source} has no BOS or EOS piece; train it with `python -m llama_jax tokenizer train`.")

    def encode(self, text: str) -> list[int]:
        """As of every tokenizer."""
        return self._processor.EncodeAsIds(text) if len(text) <= LONGEST_PART else self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """int32 ids of `text`, in time and memory that grow no faster than the text.

        A long text is encoded in parts. They are cut between two characters that no piece holds side by side: nothing
        is ever merged across, so the ids are those of the whole. Only where CUT_WINDOW characters offer no such place
        does a cut fall anywhere.
        """
        if len(text) <= LONGEST_PART or not self._can_cut:
            return np.asarray(self._processor.EncodeAsIds(text), np.int32)
        parts, start, marked = [], 0, len(self._processor.EncodeAsIds(MARK))
        while start < len(text):
            end = self._cut(text, start + LONGEST_PART)
            ids = self._processor.EncodeAsIds((MARK if start else "") + text[start:end])
            parts.append(np.asarray(ids[marked if start else 0:], np.int32))
            start = end
        return np.concatenate(parts)

    def _cut(self, text: str, limit: int) -> int:
        """The last clean cut of `text` before `limit`, else `limit`."""
        window = text[limit - CUT_WINDOW : limit + 1].replace(" ", SPACE)
        for at in range(len(window) - 1, 0, -1) if limit < len(text) else ():
            left, right = window[at - 1], window[at]
            if left in self._characters and right in self._characters and left + right not in self._joined:
                return limit - CUT_WINDOW + at
        return limit

    @cached_property
    def _pieces(self) -> list[str]:
        return list(self.scores)

    @cached_property
    def _characters(self) -> set[str]:
        return set().union(*self._pieces)

    @cached_property
    def _joined(self) -> set[str]:
        """Pairs of characters that stand side by side in some piece."""
        return {left + right for piece in self._pieces for left, right in pairwise(piece)}

    @cached_property
    def _can_cut(self) -> bool:
        """Whether the tokenizer reads text as it is: others may squeeze spaces or join accents across a cut."""
        probe = "  a  \n\ufb01 e\u0301 \t "
        return MARK not in self._characters and self._processor.Normalize(probe).endswith(probe.replace(" ", SPACE))

    @property
    def keeps_text(self) -> bool:
        """Whether text is read as it is, behind one space that is set before it."""
        return self._can_cut and self._processor.Normalize("a") == SPACE + "a"

    @property
    def scores(self) -> dict[str, float]:
        """Of the pieces that text is merged into: higher ones first."""
        p = self._processor
        return {p.IdToPiece(i): p.GetScore(i) for i in range(self.vocab_size)
                if not (p.IsByte(i) or p.IsControl(i) or p.IsUnknown(i))}

    def name(self, token: int) -> str:
        """How the model file writes an id."""
        return self._processor.IdToPiece(token)

    def piece(self, token: int) -> str:
        """As of every tokenizer."""
        piece = self._processor.IdToPiece(int(token))
        if not self._processor.IsByte(int(token)):
            return piece.replace(SPACE, " ")
        return show_bytes(bytes([int(piece[3:5], 16)]))

    def is_byte(self, token: int) -> bool:
        """Also of the bytes that are ASCII."""
        return self._processor.IsByte(int(token))

    def _read_content(self, token: int, first: bool) -> TokenContent:
        if self._processor.IsByte(token):
            return bytes([int(self.name(token)[3:5], 16)])
        alone = self._processor.DecodeIds([token])
        if first or self._processor.IsControl(token) or self._processor.IsUnknown(token):
            return alone
        return self.name(token).replace(SPACE, " ")

    def begins(self, token: int) -> bool:
        """A tokenizer that squeezes spaces takes all of them away before a text, others at most the one that they set."""
        return bool(self.content(token, first=self._squeezes))

    @cached_property
    def _squeezes(self) -> bool:
        space = self._processor.PieceToId(SPACE)
        return self.name(space) == SPACE and self._processor.DecodeIds([space, space]) == ""
