"""SentencePiece tokenizers, as LLaMA 1 and 2 use them (section 2.1, "Tokenizer"): encoding and decoding."""

from functools import cached_property
from itertools import pairwise

import numpy as np
import sentencepiece

from llama_jax.errors import DataError
from llama_jax.tokenizer.base import REPLACE_EACH_BYTE, TokenContent, Tokenizer, show_bytes
from llama_jax.tokenizer.special_tokens import SpecialTokens

SPACE = "\u2581"
"""How SentencePiece writes a space inside pieces."""
_MARK = "\ue000"
"""A private-use character, put before each later part of a long text: the space that SentencePiece sets before a text then goes
before the mark, and both are dropped."""
LONGEST_PART = 1 << 18
"""Characters encoded in one call: SentencePiece takes 50 bytes of memory per character, and slows down on longer texts."""
CUT_WINDOW = 1 << 12
"""How many characters before the end of a part are searched for a place to cut."""


class SentencePiece(Tokenizer):
    """A SentencePiece model: LLaMA 1 and 2's tokenizer, or one trained by `llama_jax.tokenizer.training`."""

    KIND, FILE, errors = "SentencePiece", "tokenizer.model", REPLACE_EACH_BYTE

    def __init__(self, model: bytes, special_tokens: SpecialTokens | None = None, *, source: str = "tokenizer"):
        """Read a serialized model; `source` names it in errors. Raises DataError where it is damaged or lacks BOS or EOS."""
        super().__init__(model, special_tokens or SpecialTokens())
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            for token in range(self._processor.vocab_size()):  # a piece that is not UTF-8 is an error when it is read
                if self._processor.IsByte(token):
                    _byte_of(self._processor.IdToPiece(token))
                self._processor.IdToPiece(token)
        except (RuntimeError, TypeError, ValueError):
            raise DataError(f"{source} is not a SentencePiece model ({len(model)} bytes); name another.") from None
        self.vocab_size = self._processor.vocab_size()
        self.bos_id = self._processor.bos_id()
        self.eos_id = self._processor.eos_id()
        self.unknown_id = self._processor.unk_id()
        if min(self.bos_id, self.eos_id) < 0:
            raise DataError(f"{source} has no BOS or EOS piece; train it with `python -m llama_jax tokenizer train`.")

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, as `Tokenizer.encode` has it."""
        return self._processor.EncodeAsIds(text) if len(text) <= LONGEST_PART else self.encode_array(text).tolist()

    def encode_array(self, text: str) -> np.ndarray:
        """Token ids of `text` as an int32 array of shape (tokens,), in time and memory linear in the length of the text.

        A long text is encoded in parts. Each cut is made between two characters that stand side by side in no piece: no merge
        crosses such a place, so the ids equal those of the whole text. Only where the last CUT_WINDOW characters of a part
        offer no such place is the cut arbitrary.
        """
        if len(text) <= LONGEST_PART or not self._can_cut:
            ids = self._processor.EncodeAsIds(text)
            return np.fromiter(ids, np.int32, len(ids))  # a third quicker than np.asarray
        parts, start, marked = [], 0, len(self._processor.EncodeAsIds(_MARK))
        while start < len(text):
            end = self._cut(text, start + LONGEST_PART)
            if start == 0:
                ids = self._processor.EncodeAsIds(text[:end])
            else:
                ids = self._processor.EncodeAsIds(_MARK + text[start:end])[marked:]
            parts.append(np.asarray(ids, np.int32))
            start = end
        return np.concatenate(parts)

    def _cut(self, text: str, limit: int) -> int:
        """The last place before `limit` at which `text` can be cut without changing its ids, or `limit` if none is near."""
        if limit >= len(text):
            return limit
        window = text[limit - CUT_WINDOW : limit + 1].replace(" ", SPACE)
        for at in range(len(window) - 1, 0, -1):
            left, right = window[at - 1], window[at]
            if left in self._characters and right in self._characters and left + right not in self._adjacent:
                return limit - CUT_WINDOW + at
        return limit

    @cached_property
    def _pieces(self) -> list[str]:
        return list(self.scores)

    @cached_property
    def _characters(self) -> set[str]:
        """All characters that occur in pieces."""
        return set().union(*self._pieces)

    @cached_property
    def _adjacent(self) -> set[str]:
        """All pairs of characters that stand side by side in some piece."""
        return {left + right for piece in self._pieces for left, right in pairwise(piece)}

    @cached_property
    def _can_cut(self) -> bool:
        """Whether text can be encoded in parts: a model that normalises may squeeze spaces or join accents across a cut."""
        probe = "  a  \n\ufb01 e\u0301 \t "
        return _MARK not in self._characters and self._processor.Normalize(probe).endswith(probe.replace(" ", SPACE))

    @property
    def keeps_text(self) -> bool:
        """Whether the model leaves text as it is, but for one space set before it."""
        return self._can_cut and self._processor.Normalize("a") == SPACE + "a"

    @property
    def scores(self) -> dict[str, float]:
        """Score of every piece that merges can make; merges with higher scores are made first."""
        p = self._processor
        return {p.IdToPiece(i): p.GetScore(i) for i in range(self.vocab_size)
                if not (p.IsByte(i) or p.IsControl(i) or p.IsUnknown(i))}

    def name(self, token: int) -> str:
        """A token as the model file writes it, with U+2581 for a space and <0xNN> for a byte."""
        return self._processor.IdToPiece(token)

    def piece(self, token: int) -> str:
        """A token in print, as `Tokenizer.piece` has it."""
        piece = self._processor.IdToPiece(int(token))
        if not self._processor.IsByte(int(token)):
            return piece.replace(SPACE, " ")
        return show_bytes(_byte_of(piece))

    def is_byte(self, token: int) -> bool:
        """Whether a token is one of the 256 bytes, those that are ASCII included."""
        return self._processor.IsByte(int(token))

    def _read_content(self, token: int, *, first: bool) -> TokenContent:
        if self._processor.IsByte(token):
            return _byte_of(self.name(token))
        alone = self._processor.DecodeIds([token])
        if first or self._processor.IsControl(token) or self._processor.IsUnknown(token):
            return alone
        return self.name(token).replace(SPACE, " ")

    def begins(self, token: int) -> bool:
        """Whether a text is no longer empty after this token.

        A model that squeezes spaces drops all of them at the begin of a text; any other drops at most the one that it sets.
        """
        return bool(self.content(token, first=self._squeezes))

    @cached_property
    def _squeezes(self) -> bool:
        space = self._processor.PieceToId(SPACE)
        return self.name(space) == SPACE and self._processor.DecodeIds([space, space]) == ""


def _byte_of(name: str) -> bytes:
    """The byte of a piece that is written as <0xNN>."""
    return bytes([int(name[3:5], 16)])
