"""What the files beside a tokenizer say of it: which ids begin and end a text."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_jax.errors import DataError

TOKENIZER_SIDECARS = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "chat_template.jinja")
"""Hugging Face's files that travel with a tokenizer."""


@dataclass(frozen=True)
class SpecialTokens:
    """Of a folder; what no file says is None or empty."""

    files: dict[str, bytes] = field(default_factory=dict)
    """The sidecars by name."""
    adds_bos: bool | None = None
    """Whether a text begins with BOS."""
    bos_token: str | None = None
    eos_token: str | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    """Ids that end a text."""


def read_special_tokens(folder: Path) -> SpecialTokens:
    """The rules of a folder; raises DataError for files that are no JSON objects or hold no ids where ids belong.

    generation_config.json goes before config.json, tokenizer_config.json before special_tokens_map.json.
    """
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_SIDECARS if (folder / name).is_file()}
    tokens: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        tokens |= {key: value for key, value in _object(files.get(name), folder / name).items() if value is not None}
    ids: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        data = files.get(name) or ((folder / name).read_bytes() if (folder / name).is_file() else None)
        values = _object(data, folder / name)
        ids |= {key: values[key] for key in ("bos_token_id", "eos_token_id") if values.get(key) is not None}
    eos_ids = _ids(ids.get("eos_token_id"), folder)
    if eos_ids and "generation_config.json" not in files:
        files["generation_config.json"] = (json.dumps(ids, indent=2) + "\n").encode()
    adds_bos = tokens.get("add_bos_token")
    return SpecialTokens(files, adds_bos if isinstance(adds_bos, bool) else None, _text(tokens.get("bos_token")),
                 _text(tokens.get("eos_token")), next(iter(_ids(ids.get("bos_token_id"), folder)), None), eos_ids)


def _object(data: bytes | None, file: Path) -> dict[str, Any]:
    try:
        values = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise DataError(f"{file} is not a JSON object; mend or remove it.")
    return values


def _ids(value: Any, folder: Path) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(item) is int and item >= 0 for item in values):
        raise DataError(f"{folder}: bos_token_id and eos_token_id should be ids or lists of ids, got {value!r}.")
    return tuple(values)


def _text(token: Any) -> str | None:
    """A token, which newer files write as an object."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
