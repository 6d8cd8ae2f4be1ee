"""Columns of Arrow tables as texts: the types that hold text, and what is an error in them."""

from collections.abc import Iterator

import pyarrow

from llama_jax.errors import DataError


def check_text_column(schema: pyarrow.Schema, name: str, *, where: str) -> None:
    """Raise DataError, which begins with `where`, unless a schema has one column `name` and it holds strings or bytes."""
    if name not in schema.names:
        raise DataError(f"{where}: no column {name!r} (found {', '.join(schema.names)}); name another with --text_key.")
    if schema.names.count(name) > 1:
        raise DataError(f"{where}: {schema.names.count(name)} columns are called {name!r}; rename all but one.")
    kind = schema.field(name).type
    if not _holds_text(kind):
        raise DataError(f"{where}: column {name!r} holds {kind}, not strings; name another with --text_key.")


def _holds_text(kind: pyarrow.DataType) -> bool:
    """Whether values of a type are strings, or bytes, which writers without a string type store text as."""
    types = pyarrow.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    strings = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return strings or types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def texts_of_column(column: pyarrow.Array | pyarrow.ChunkedArray, *, where: str, first: int = 0) -> Iterator[str | None]:
    """The values of a column that `check_text_column` passed, as text; None where a row has none.

    Bytes are text if they are UTF-8. The rows are counted from `first`; DataError names `where` and the row that is not.
    """
    for row, value in enumerate(column.to_pylist(), first + 1):
        if isinstance(value, bytes):
            try:
                value = value.decode()
            except UnicodeDecodeError as error:
                raise DataError(f"{where}, row {row}: the bytes are not UTF-8 (0x{value[error.start]:02x} at offset "
                                f"{error.start}); name a column of text with --text_key, or convert it.") from None
        yield value
