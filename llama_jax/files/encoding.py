"""How text is encoded: files are UTF-8, and these functions tell what is not."""

from llama_jax.errors import DataError

BYTE_ORDER_MARK = "\ufeff"
"""What some editors write before a text; it is not part of it."""
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""The byte order mark in UTF-16, little and big endian (UTF-32 begins with the same bytes)."""


def is_utf16(begin: bytes) -> bool:
    """Whether a file that begins with these bytes is UTF-16.

    Told by its byte order mark, or by a zero byte after every letter: such a file would pass for UTF-8.
    """
    head = begin[:1024]
    return head.startswith(_UTF16_MARKS) or 3 * head.count(0) > len(head)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode a text. It cannot where a JSON escape left half of a surrogate pair in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_unicode(text: str, key: str, *, where: str) -> None:
    """Raise DataError, which begins with `where`, unless UTF-8 can encode `text`, the value of `key`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise DataError(f"{where}: {key!r} holds half a surrogate pair, {half!a}, which UTF-8 cannot encode; mend or remove "
                        "the line.") from None
