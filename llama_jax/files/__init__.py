"""Reading and writing files: whole files or none, JSON lines as a stream, and errors that say what is wrong in a file."""

from llama_jax.files.appended import AppendedFile
from llama_jax.files.atomic import atomic_stream, check_writable, make_folder, write_atomic
from llama_jax.files.encoding import check_unicode, is_unicode, is_utf16
from llama_jax.files.jsonl import json_line, parse_json, parse_json_lines, read_jsonl, write_jsonl
from llama_jax.files.lock import only_writer
from llama_jax.files.storage import check_room, flush_stdout, reason_of

__all__ = [
    "AppendedFile",
    "atomic_stream",
    "check_room",
    "check_unicode",
    "check_writable",
    "flush_stdout",
    "is_unicode",
    "is_utf16",
    "json_line",
    "make_folder",
    "only_writer",
    "parse_json",
    "parse_json_lines",
    "read_jsonl",
    "reason_of",
    "write_atomic",
    "write_jsonl",
]
