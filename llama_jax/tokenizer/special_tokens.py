"""Which tokens begin and end a text, read from the files that Hugging Face puts beside a tokenizer."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError
from llama_jax.files.bounded import read_bounded
from llama_jax.files.json_kinds import show_value
from llama_jax.files.json_object import parse_json_object

_SIDECARS = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja")
"""The files that are copied with a tokenizer."""
_MAX_ID = 2**31
"""Token ids lie below it."""


@dataclass(frozen=True)
class SpecialTokens:
    """What the files beside a tokenizer say of its BOS and EOS tokens; what they do not say is None or empty."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Contents of the _SIDECARS that are there, by file name."""
    adds_bos: bool | None = None
    """Whether a prompt begins with BOS."""
    bos_token: str | None = None
    """BOS as the tokenizer writes it."""
    eos_token: str | None = None
    """EOS as the tokenizer writes it."""
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    """Ids at which generation ends."""


def read_special_tokens(folder: Path) -> SpecialTokens:
    """Read the files beside the tokenizer of `folder`.

    Where two files say it differently, generation_config.json takes precedence over config.json, and tokenizer_config.json over
    special_tokens_map.json.

    Raises:
        DataError: a file is not a JSON object, or holds something other than ids where ids belong.
    """
    files = {name: read_bounded(folder / name) for name in _SIDECARS if (folder / name).is_file()}
    tokens: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = _parse_object(files.get(name), folder / name)
        tokens |= {key: value for key, value in values.items() if value is not None}
    ids: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        data = files.get(name) or (read_bounded(folder / name) if (folder / name).is_file() else None)
        values = _parse_object(data, folder / name)
        ids |= {key: values[key] for key in ("bos_token_id", "eos_token_id") if values.get(key) is not None}
    eos_ids = _as_ids(ids.get("eos_token_id"), folder)
    bos_ids = _as_ids(ids.get("bos_token_id"), folder)
    if eos_ids and "generation_config.json" not in files:
        # config.json is the model's and not copied with a tokenizer, so what it says of the ids is kept in this file
        files["generation_config.json"] = (json.dumps(ids, indent=2) + "\n").encode()
    adds_bos = tokens.get("add_bos_token")
    return SpecialTokens(
        files=files,
        adds_bos=adds_bos if isinstance(adds_bos, bool) else None,
        bos_token=_as_text(tokens.get("bos_token")),
        eos_token=_as_text(tokens.get("eos_token")),
        bos_id=bos_ids[0] if bos_ids else None,
        eos_ids=eos_ids,
    )


def _parse_object(data: bytes | None, file: Path) -> dict[str, Any]:
    """The JSON object in `data`, the content of `file`; an empty one where there is no file."""
    if data is None:
        return {}
    return parse_json_object(data, file)


def _as_ids(value: Any, folder: Path) -> tuple[int, ...]:
    """Token ids from a field that holds one id, a list of ids, or null."""
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(type(item) is int and 0 <= item < _MAX_ID for item in values):
        raise DataError(f"{folder}: bos_token_id and eos_token_id should be ids or lists of ids, got {show_value(value)}.")
    return tuple(values)


def _as_text(token: Any) -> str | None:
    """A token's text; newer files write a token as an object with its text under "content"."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
