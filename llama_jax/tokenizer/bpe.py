"""Byte-pair encodings in two file formats: Llama 3's tiktoken ranks, and Hugging Face's tokenizer.json."""

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
"""The regular expression by which Llama 3 splits a text into parts that are merged separately."""
_NUM_SPECIAL_TOKENS = 256
"""Special tokens of Llama 3, whose ids follow the ranks."""
_NAMED_SPECIAL_TOKENS = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 5: "step_id", 6: "start_header_id",
                         7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
"""The special tokens that are not reserved, by number."""
_LLAMA3_EOS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
"""Tokens at which Llama 3 ends a text, a message and a turn."""
LONGEST_RUN = 25_000
"""Longest run of spaces, or of other characters, that is encoded in one part, as in Meta's code: the time that the pattern takes
on such a run grows with the square of its length."""
_ESCAPED_BYTES = re.compile("([\udc80-\udcff]+)")
"""Bytes that are not UTF-8, as Python's `surrogateescape` error handler decodes them."""


def llama3_special_tokens() -> list[str]:
    """Llama 3's 256 special tokens in the order of their ids."""
    tokens, reserved = [], 0
    for number in range(_NUM_SPECIAL_TOKENS):
        if number in _NAMED_SPECIAL_TOKENS:
            tokens.append(f"<|{_NAMED_SPECIAL_TOKENS[number]}|>")
        else:
            tokens.append(f"<|reserved_special_token_{reserved}|>")
            reserved += 1
    return tokens


class Tiktoken(Tokenizer):
    """Llama 3's tokenizer: a tokenizer.model whose lines are a piece in base64 and its rank."""

    KIND, FILE = "tiktoken", "tokenizer.model"

    def __init__(self, model: bytes, special_tokens: SpecialTokens | None = None, *, source: str = "tokenizer"):
        """Read the ranks; `source` names the file in errors. Raises DataError where it is damaged."""
        super().__init__(model, special_tokens or SpecialTokens())
        self.ranks = _read_ranks(model, source)
        self.special = {name: len(self.ranks) + n for n, name in enumerate(llama3_special_tokens())}
        self._encoding = tiktoken.Encoding("llama3", pat_str=LLAMA3_PATTERN, mergeable_ranks=self.ranks,
                                           special_tokens=self.special)
        self._bytes = {rank: data for data, rank in self.ranks.items()}
        self.vocab_size = len(self.ranks) + _NUM_SPECIAL_TOKENS
        self.bos_id, self.eos_id = self.special["<|begin_of_text|>"], self.special["<|end_of_text|>"]

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """All ids at which generation ends: those of the files beside the tokenizer, or else Llama 3's own."""
        ends = self.special_tokens.eos_ids or tuple(self.special[name] for name in _LLAMA3_EOS)
        return tuple(sorted({self.eos_id, *ends}))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, in which bytes that are not UTF-8 can be given as Python's surrogate escapes."""
        ids = []
        for number, part in enumerate(_ESCAPED_BYTES.split(text)):
            if number % 2:  # `re.split` returns what the group matched at the odd places
                ids += [self.ranks[bytes([byte])] for byte in part.encode("utf-8", "surrogateescape")]
            else:
                for run in split_long_runs(part):
                    ids += self._encoding.encode_ordinary(run)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The encoded bytes, exactly; control tokens and unknown ids add nothing."""
        return b"".join(self._bytes.get(int(i), b"") for i in ids)

    def _read_content(self, token: int, *, first: bool) -> bytes | None:
        return self._bytes.get(token)

    def piece(self, token: int) -> str:
        """A token in print, as `Tokenizer.piece` has it."""
        special = int(token) - len(self.ranks)
        return llama3_special_tokens()[special] if special >= 0 else show_bytes(self._bytes[int(token)])


def _read_ranks(model: bytes, source: str) -> dict[bytes, int]:
    """Each piece and its rank, which is its id. Raises DataError unless they count from 0 and every byte is a piece."""
    try:
        lines = [line.split() for line in model.splitlines() if line]
        ranks = {base64.b64decode(piece, validate=True): int(rank) for piece, rank in lines}
    except (ValueError, binascii.Error):
        raise DataError(f"{source} is not in tiktoken's format: a line is not base64 and a rank; get it again.") from None
    if sorted(ranks.values()) != list(range(len(lines))) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise DataError(f"{source} is damaged: its {len(lines)} ranks do not count from 0, or a byte has none; get it again.")
    return ranks


def split_long_runs(text: str) -> Iterator[str]:
    """Parts that join to `text`: it is cut inside every run of spaces, or of other characters, longer than LONGEST_RUN."""
    start = 0
    for run in re.finditer(r"\s+|\S+", text) if len(text) > LONGEST_RUN else ():
        for cut in range(run.start() + LONGEST_RUN, run.end(), LONGEST_RUN):
            yield text[start:cut]
            start = cut
    yield text[start:]


def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable bytes are their own Latin-1 characters, the other bytes take characters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
"""The character that stands for each byte in the pieces of byte-level tokenizers."""
_BYTE_PIECE = re.compile("<0x([0-9A-Fa-f]{2})>")
"""How tokenizers with byte fallback write the bytes of characters for which they have no piece."""
_MAX_VOCABULARY = 1 << 24
"""Most ids of a vocabulary; the largest known has 262,144."""
_NEIGHBOR = "a"
"""A piece set before and after another whose text is sought, because that text can depend on being first or last."""
_BOS_NAMES = ("<s>", "<|begin_of_text|>", "<bos>")
_EOS_NAMES = ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>")
"""What BOS and EOS are usually called, tried in order where no file beside tokenizer.json names them."""


class TokenizerJson(Tokenizer):
    """A tokenizer.json: any tokenizer of the `tokenizers` library."""

    KIND, FILE = "tokenizers", "tokenizer.json"

    def __init__(self, model: bytes, special_tokens: SpecialTokens | None = None, *, source: str = "tokenizer"):
        """Read the file's content; `source` names it in errors. Raises DataError where it is damaged or has no EOS token."""
        super().__init__(model, special_tokens or SpecialTokens())
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(model)
            content = json.loads(model)
            decoder = json.dumps(content.get("decoder"))
        except Exception as error:  # the library raises `Exception` itself
            raise DataError(f"{source} is not a tokenizer of the tokenizers library ({str(error)[:200]}); get it "
                            "again.") from None
        self._byte_level, self._byte_fallback = "ByteLevel" in decoder, "ByteFallback" in decoder
        self.errors = "replace" if self._byte_level else REPLACE_EACH_BYTE  # the two decoders of the library differ in this
        self._special = {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        self.vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if self.vocab_size > _MAX_VOCABULARY:
            raise DataError(f"{source} gives the id {self.vocab_size - 1:,} to a token; no vocabulary is so large, get it again.")
        beside = self.special_tokens
        eos = self._find_control_token(beside.eos_token, _EOS_NAMES, known=next(iter(beside.eos_ids), None))
        if eos is None:
            raise DataError(f"{source} has no end-of-text token; name it as eos_token in a tokenizer_config.json beside it.")
        bos = self._find_control_token(beside.bos_token, _BOS_NAMES, known=beside.bos_id)
        self.bos_id, self.eos_id = eos if bos is None else bos, eos
        if max(self.bos_id, self.eos_id) >= self.vocab_size:
            raise DataError(f"the files beside {source} give BOS or EOS the id {max(self.bos_id, self.eos_id):,}, and it has "
                            f"{self.vocab_size:,} ids; mend bos_token_id or eos_token_id in generation_config.json.")
        unknown = content["model"].get("unk_token")
        self.unknown_id = content["model"].get("unk_id") if unknown is None else self._tokenizer.token_to_id(unknown)

    def _find_control_token(self, named: str | None, usual: tuple[str, ...], *, known: int | None) -> int | None:
        """Id of the token that a file names, else the id that a file gives, else the id of the first `usual` name there is."""
        ids = [self._tokenizer.token_to_id(named)] if named else []
        ids.append(known)
        ids += [self._tokenizer.token_to_id(name) for name in usual]
        return next((i for i in ids if i is not None), None)

    @property
    def begin(self) -> tuple[int, ...]:
        """The ids to set before a prompt: BOS if tokenizer_config.json says so, else if the tokenizer's own template sets it."""
        adds = self.special_tokens.adds_bos
        if adds is None:
            adds = self.bos_id in self._tokenizer.encode("", add_special_tokens=True).ids[:1]
        return (self.bos_id,) if adds else ()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, as `Tokenizer.encode` has it."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _read_content(self, token: int, *, first: bool) -> TokenContent:
        piece = self._tokenizer.id_to_token(token)
        if piece is None or piece in self._special:
            return None
        if self._byte_level:
            data = _bytes_of_characters(piece)
            return piece.encode() if data is None else data
        if self._byte_fallback and (byte := _BYTE_PIECE.fullmatch(piece)):
            dropped = first and self._library_text(piece) == ""  # a space that is taken away at the begin of a text
            return b"" if dropped else bytes.fromhex(byte[1])
        before = () if first else (_NEIGHBOR,)
        after = self._library_text(_NEIGHBOR, _NEIGHBOR)[len(self._library_text(_NEIGHBOR)) :]
        return self._library_text(*before, piece, _NEIGHBOR)[len(self._library_text(*before)) :].removesuffix(after)

    def _library_text(self, *pieces: str) -> str:
        """Text of pieces by the library's decoder, which is right where none of them stands for bytes."""
        decoder = self._tokenizer.decoder
        return " ".join(pieces) if decoder is None else decoder.decode(list(pieces))

    def piece(self, token: int) -> str:
        """A token in print, as `Tokenizer.piece` has it."""
        piece = self._tokenizer.id_to_token(int(token)) or ""
        if self._byte_level and (data := _bytes_of_characters(piece)) is not None:
            return show_bytes(data)
        byte = _BYTE_PIECE.fullmatch(piece)
        return show_bytes(bytes.fromhex(byte[1])) if byte else piece.replace("\u2581", " ")

    def is_byte(self, token: int) -> bool:
        """Whether a token stands for bytes; with byte fallback, the bytes that are ASCII count too."""
        fallback = self._byte_fallback and _BYTE_PIECE.fullmatch(self._tokenizer.id_to_token(int(token)) or "")
        return bool(fallback) or super().is_byte(token)


def _bytes_of_characters(piece: str) -> bytes | None:
    """The bytes of a byte-level piece; None where it has a character that stands for no byte, as added tokens can."""
    if all(character in BYTE_OF_CHARACTER for character in piece):
        return bytes(BYTE_OF_CHARACTER[character] for character in piece)
    return None
