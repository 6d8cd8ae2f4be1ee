"""Byte-level and other BPE in two formats: Llama 3's tiktoken ranks, and Hugging Face's tokenizer.json."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator

import tiktoken
import tokenizers

from llama_jax.errors import DataError
from llama_jax.tokenizer.base import REPLACE_EACH_BYTE, TokenContent, Tokenizer, show_bytes
from llama_jax.tokenizer.special_tokens import SpecialTokens

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's: where text is cut before any merge."""
NAMED = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 5: "step_id", 6: "start_header_id",
         7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
SPECIAL = 256
"""Special tokens after the ranks: those named, and reserved ones."""
ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
"""They end what Llama 3 writes: a text, a message, a turn."""
LONGEST_RUN = 25_000
"""Characters of one run of spaces, or of none, that are encoded together, as Meta does it: the pattern is quadratic there."""
ESCAPED = re.compile("([\udc80-\udcff]+)")
"""Bytes that are no UTF-8, as Python's `surrogateescape` reads them."""


def llama3_special_tokens() -> list[str]:
    """Llama 3's, in the order of their ids."""
    reserved = iter(range(SPECIAL))
    return [f"<|{NAMED[n]}|>" if n in NAMED else f"<|reserved_special_token_{next(reserved)}|>" for n in range(SPECIAL)]


class Tiktoken(Tokenizer):
    """Llama 3's tokenizer."""

    KIND, FILE = "tiktoken", "tokenizer.model"

    def __init__(self, model: bytes, special_tokens: SpecialTokens | None = None, *, source: str = "tokenizer"):
        super().__init__(model, special_tokens or SpecialTokens())
        self.ranks = _read_ranks(model, source)
        self.special = {name: len(self.ranks) + n for n, name in enumerate(llama3_special_tokens())}
        self._encoding = tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=self.ranks,
                                           special_tokens=self.special)
        self._bytes = {rank: data for data, rank in self.ranks.items()}
        self.vocab_size = len(self.ranks) + SPECIAL
        self.bos_id, self.eos_id = self.special["<|begin_of_text|>"], self.special["<|end_of_text|>"]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The file names none: Llama 3's own, where no other file does."""
        return tuple(sorted({self.eos_id, *(self.special_tokens.eos_ids or (self.special[name] for name in ENDS))}))

    def encode(self, text: str) -> list[int]:
        """As of every tokenizer; bytes that are no UTF-8 may come as Python's surrogate escapes."""
        ids = []
        for number, part in enumerate(ESCAPED.split(text)):
            if number % 2:
                ids += [self.ranks[bytes([byte])] for byte in part.encode("utf-8", "surrogateescape")]
            else:
                for run in split_long_runs(part):
                    ids += self._encoding.encode_ordinary(run)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """What was encoded, byte for byte."""
        return b"".join(self._bytes.get(int(i), b"") for i in ids)

    def _read_content(self, token: int, first: bool) -> bytes | None:
        return self._bytes.get(token)

    def piece(self, token: int) -> str:
        """As of every tokenizer."""
        special = int(token) - len(self.ranks)
        return llama3_special_tokens()[special] if special >= 0 else show_bytes(self._bytes[int(token)])


def _read_ranks(model: bytes, source: str) -> dict[bytes, int]:
    """Pieces and their ranks 0, 1, 2 ..., the 256 bytes among them; raises DataError."""
    try:
        lines = [line.split() for line in model.splitlines() if line]
        ranks = {base64.b64decode(piece, validate=True): int(rank) for piece, rank in lines}
    except (ValueError, binascii.Error):
        raise DataError(f"{source} is not in tiktoken's format: a line is not base64 and a rank; get it again.") from None
    if sorted(ranks.values()) != list(range(len(lines))) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise DataError(f"{source} is damaged: its {len(lines)} ranks do not count from 0, or a byte has none; get it again.")
    return ranks


def split_long_runs(text: str) -> Iterator[str]:
    """`text`, cut inside of runs of spaces or of other characters that are longer than LONGEST_RUN."""
    start = 0
    for run in re.finditer(r"\s+|\S+", text) if len(text) > LONGEST_RUN else ():
        for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
            yield text[start:cut]
            start = cut
    yield text[start:]


BYTE_OF_CHARACTER = {chr(byte if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174 else 0): byte for byte in range(256)}
BYTE_OF_CHARACTER.pop("\0")
BYTE_OF_CHARACTER |= {chr(256 + n): byte for n, byte in enumerate(sorted(set(range(256)) - set(BYTE_OF_CHARACTER.values())))}
"""How byte-level tokenizers write bytes: printable ones as themselves, the others from U+0100 on (GPT-2)."""
BYTE_PIECE = re.compile("<0x([0-9A-Fa-f]{2})>")
"""How tokenizers with byte fallback write bytes of characters that they have no piece for."""
BESIDE = "a"
"""A piece that stands before and after one whose text is sought, which can depend on whether it is the first or the last."""
BOS_NAMES = ("<s>", "<|begin_of_text|>", "<bos>")
EOS_NAMES = ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>")
"""What the control pieces are called where no file beside tokenizer.json says it."""


class TokenizerJson(Tokenizer):
    """Any tokenizer of the `tokenizers` library."""

    KIND, FILE = "tokenizers", "tokenizer.json"

    def __init__(self, model: bytes, special_tokens: SpecialTokens | None = None, *, source: str = "tokenizer"):
        super().__init__(model, special_tokens or SpecialTokens())
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(model)
            decoder = json.dumps(json.loads(model).get("decoder"))
        except Exception as error:  # the library raises bare ones
            raise DataError(f"{source} is not a tokenizer of the tokenizers library ({str(error)[:200]}); get it "
                            "again.") from None
        self._byte_level, self._byte_fallback = "ByteLevel" in decoder, "ByteFallback" in decoder
        self.errors = "replace" if self._byte_level else REPLACE_EACH_BYTE  # as the library does it
        self._special = {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        eos = self._control(self.special_tokens.eos_token, EOS_NAMES, known=next(iter(self.special_tokens.eos_ids), None))
        if eos is None:
            raise DataError(f"{source} has no end-of-text token; name it as eos_token in a tokenizer_config.json beside it.")
        bos = self._control(self.special_tokens.bos_token, BOS_NAMES, known=self.special_tokens.bos_id)
        self.bos_id, self.eos_id = eos if bos is None else bos, eos

    def _control(self, named: str | None, usual: tuple[str, ...], *, known: int | None) -> int | None:
        """Id of the token the files name, or give the id of, or of the first of the `usual` that there is."""
        ids = [self._tokenizer.token_to_id(name) for name in ((named,) if named else ())] + [known]
        ids += [self._tokenizer.token_to_id(name) for name in usual]
        return next((i for i in ids if i is not None), None)

    @property
    def begin(self) -> tuple[int, ...]:
        """BOS where tokenizer_config.json says so, else where the tokenizer's own template sets it."""
        adds = self.special_tokens.adds_bos
        if adds is None:
            adds = self.bos_id in self._tokenizer.encode("", add_special_tokens=True).ids[:1]
        return (self.bos_id,) if adds else ()

    def encode(self, text: str) -> list[int]:
        """As of every tokenizer."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _read_content(self, token: int, first: bool) -> TokenContent:
        piece = self._tokenizer.id_to_token(token)
        if piece is None or piece in self._special:
            return None
        if self._byte_level:
            known = all(character in BYTE_OF_CHARACTER for character in piece)
            return bytes(BYTE_OF_CHARACTER[character] for character in piece) if known else piece.encode()
        if self._byte_fallback and (byte := BYTE_PIECE.fullmatch(piece)):
            dropped = first and self._library_text(piece) == ""  # a space that is taken away
            return b"" if dropped else bytes.fromhex(byte[1])
        before = () if first else (BESIDE,)
        after = self._library_text(BESIDE, BESIDE)[len(self._library_text(BESIDE)) :]
        return self._library_text(*before, piece, BESIDE)[len(self._library_text(*before)) :].removesuffix(after)

    def _library_text(self, *pieces: str) -> str:
        """Text of pieces by the library's decoder, which is right where no bytes are among them."""
        decoder = self._tokenizer.decoder
        return " ".join(pieces) if decoder is None else decoder.decode(list(pieces))

    def piece(self, token: int) -> str:
        """As of every tokenizer."""
        piece = self._tokenizer.id_to_token(int(token)) or ""
        if self._byte_level and all(character in BYTE_OF_CHARACTER for character in piece):
            return show_bytes(bytes(BYTE_OF_CHARACTER[character] for character in piece))
        byte = BYTE_PIECE.fullmatch(piece)
        return show_bytes(bytes.fromhex(byte[1])) if byte else piece.replace("\u2581", " ")

    def is_byte(self, token: int) -> bool:
        """Also of the bytes that are ASCII, where bytes stand in for missing pieces."""
        fallback = self._byte_fallback and BYTE_PIECE.fullmatch(self._tokenizer.id_to_token(int(token)) or "")
        return bool(fallback) or super().is_byte(token)
