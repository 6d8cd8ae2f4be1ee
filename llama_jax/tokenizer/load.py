"""Which tokenizer a file or folder holds: its format is told by the file's name and first bytes."""

import logging
import os
import re
from pathlib import Path

from llama_jax.errors import DataError
from llama_jax.files.bounded import MAX_TOKENIZER_BYTES, read_bounded
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.special_tokens import read_special_tokens

LOG = logging.getLogger(__name__)

TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
"""Files that decide the ids of a tokenizer. Where a folder has both, the first is preferred: the tokenizer.json files that are
published for some LLaMA checkpoints give other ids than the model was trained with."""
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\s")
"""The first line of a tokenizer.model in tiktoken's format: a piece in base64, and its rank."""


class NoTokenizer(DataError):
    """Raised where a folder holds no tokenizer at all, as opposed to a damaged one, and where None is given for one."""


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Load the tokenizer at `path`, which is a tokenizer file or a folder with one.

    In a folder with both a tokenizer.model and a tokenizer.json, the tokenizer.model is taken unless the tokenizer.json has
    more tokens; ids that both have but give to different pieces are logged as a warning.

    Raises:
        NoTokenizer: there is none at `path`.
        DataError: the file cannot be read, or is damaged.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    files = [path / name for name in TOKENIZER_FILES] if path.is_dir() else [path]
    found: list[Tokenizer] = []
    for file in filter(Path.is_file, files):
        data = read_bounded(file, MAX_TOKENIZER_BYTES)
        found.append(_class_for(file, data)(data, read_special_tokens(folder), source=str(file)))
    if not found:
        expected = " or ".join(TOKENIZER_FILES)
        raise NoTokenizer(f"no tokenizer at {path}: expected a SentencePiece file or a folder with {expected}.")
    taken = max(found, key=lambda tokenizer: tokenizer.vocab_size)  # the first of equals
    if len(found) == 2:
        _warn_of_differences(*found, taken=taken, folder=path)
    return taken


def require_tokenizer(tokenizer: Tokenizer | None, what: str) -> Tokenizer:
    """The tokenizer, which `what` needs; raises NoTokenizer where it is None, as `llama_jax.load` gives for a folder without."""
    if tokenizer is None:
        raise NoTokenizer(f"{what} needs a tokenizer and got None, as the model's folder holds none; give the one that the model "
                          "was trained with (llama_jax.tokenizer.load_tokenizer), or token ids in place of text.")
    return tokenizer


def holds_tokenizer(folder: Path) -> bool:
    """Whether `folder` holds a tokenizer file."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _class_for(file: Path, data: bytes) -> type[Tokenizer]:
    """The class that reads a tokenizer file. It is imported only now, so that each process loads one tokenizer library."""
    if file.suffix == ".json":
        from llama_jax.tokenizer.bpe import TokenizerJson

        return TokenizerJson
    if _TIKTOKEN_LINE.match(data):
        from llama_jax.tokenizer.bpe import Tiktoken

        return Tiktoken
    from llama_jax.tokenizer.sentencepiece import SentencePiece

    return SentencePiece


def _warn_of_differences(one: Tokenizer, other: Tokenizer, *, taken: Tokenizer, folder: Path) -> None:
    """Log the ids that two tokenizers of one folder give to different pieces."""
    common = range(min(one.vocab_size, other.vocab_size))
    different = [i for i in common if one.piece(i) != other.piece(i)]
    if different:
        first = different[0]
        LOG.warning("%s: %s and %s disagree about %d ids, first %d, which is %r or %r; %s is taken.", folder, one.FILE,
                    other.FILE, len(different), first, one.piece(first), other.piece(first), taken.FILE)
