"""Books (paper, section 2.1): texts of Project Gutenberg without its header and footer, each book once."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.clean.items import MAX_BYTES, DamagedInput, Dropped, RawDocument, decode_text, open_raw
from llama_jax.clean.overlap import overlap_stages
from llama_jax.clean.stages import Stage, Workplace

_MOST_COMPRESSED = 100
"""A file in an archive that is more times smaller than its text is no book: deflate makes books three times smaller."""
_LONGEST_HEADER = 40_000
"""Characters at the begin of a file in which its header ends; the longest, with the old "small print", have 15,000."""
_LONGEST_NOTE = 5_000
"""Characters at the end of a book in which a transcriber's note without brackets begins."""


def recipe(place: Workplace, options: Any) -> list[Stage]:
    """The stages that clean books."""
    return overlap_stages(place, place.read(read_book), place.edit("gutenberg", strip_gutenberg))


def read_book(file: Path) -> Iterator[RawDocument | Dropped]:
    """A text file is one book, and so is each text in a .zip, as mirrors of Project Gutenberg hold them.

    Raises DamagedInput for an archive or compressed text that cannot be read.
    """
    if file.suffix.lower() == ".zip":
        yield from _read_zip(file)
        return
    with open_raw(file) as stream:
        data = stream.read(MAX_BYTES + 1)
    yield _as_book(data, "")


def _read_zip(file: Path) -> Iterator[RawDocument | Dropped]:
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.lower().endswith(".txt"):
                    yield _member(archive, member)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DamagedInput(f"damaged .zip: {error}") from None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> RawDocument | Dropped:
    """One text of an archive; what its directory says of sizes is not believed, so no more than MAX_BYTES are decompressed."""
    if member.file_size > _MOST_COMPRESSED * max(member.compress_size, 1):
        return Dropped(f"compressed more than {_MOST_COMPRESSED} times")
    try:
        with archive.open(member) as stream:
            return _as_book(stream.read(MAX_BYTES + 1), member.filename)
    except (zlib.error, EOFError, zipfile.BadZipFile):
        return Dropped("damaged in its .zip")
    except (RuntimeError, NotImplementedError):  # a password, and a compression that Python lacks
        return Dropped("encrypted or compressed in an unknown way")


def _as_book(data: bytes, name: str) -> RawDocument | Dropped:
    if len(data) > MAX_BYTES:
        return Dropped(f"a book of more than {MAX_BYTES >> 20} MiB")
    try:
        return RawDocument(decode_book(data), name)
    except Dropped as dropped:
        return dropped


def decode_book(data: bytes) -> str:
    """Decode a book by the encoding that its header declares where UTF-8 and Windows-1252 (thus Latin-1, too) are not it.

    Raises Dropped for what is no text.
    """
    declared = re.search(rb"^Character set encoding:[ \t]*([\w-]+)", data[:_LONGEST_HEADER], re.MULTILINE)
    encoding = declared[1].decode(errors="replace").lower() if declared else ""
    if encoding and not re.match("utf|iso-?8859-1$|iso-?latin-?1$|iso-?646|(us-)?ascii|windows-1252", encoding):
        try:
            return data.decode(encoding)
        except (LookupError, UnicodeDecodeError):  # a name that is no encoding ("MP3", "Unknown"), or a wrong one
            pass
    return decode_text(data)


_START = re.compile(
    r"^\*{2,3} ?START OF (?:THIS |THE )?(?:COPYRIGHTED )?PROJECT GUTENBERG(?:[^*\n]*(?:\n[^*\n]+){0,3}\*{2,3}|[^\n]*)[^\n]*"
    r"|^\*+ ?END ?\** ?THE SMALL PRINT[^\n]*", re.MULTILINE | re.IGNORECASE)
"""Last line of a header: since 2003, and the "small print" of the nineties."""
_END = re.compile(r"^\*{2,3} ?END OF (?:THIS |THE )?(?:COPYRIGHTED )?PROJECT GUTENBERG", re.MULTILINE | re.IGNORECASE)
_OLD_END = re.compile(
    r"^[^\w\n]*(?:(?:This is )?(?:the )?End of (?:the |this )?(?:Project )?Gutenberg|Ende dieses Proje[kc]t Gutenberg"
    r"|Fin de (?:ce )?Projec?t Gutenberg|Fine del? Proge?[cj]?t?to? Gutenberg)[^\n]*(?:\n[^\n]+)*", re.MULTILINE | re.IGNORECASE)
"""The paragraph that ends a book, before the newer marker or alone."""
_FIELD = re.compile(r"^(Title|Author|Language):[ \t]*(\S[^\n]*(?:\n[ \t]+\S[^\n]*)*)", re.MULTILINE)

_CREDIT = re.compile(
    r"[\[(]?(?:(?:this|the) )?(?:(?:Project Gutenberg )?(?:e-?text|e-?book|electronic text|HTML version|file|book) )?"
    r"(?:was |is )?(?:produced|prepared|transcribed|scanned|digiti[sz]ed|converted|proofed|proofread|typed|created)"
    r"(?:,? (?:and )?[\w-]+){0,3} (?:by|from)\b|credits:|note: project gutenberg also has", re.IGNORECASE)
_NOTE = re.compile(r"[^\w\n]*transcriber['’]?s?['’]? notes?\b", re.IGNORECASE)
_NOTE_IN_BRACKETS = re.compile(r"\[transcriber['’]?s?['’]? notes?\b[^\[\]]{0,2000}\]", re.IGNORECASE)
_NOTE_AT_END = re.compile(r"(?:^[^\w\n]{5,}\n+)?^" + _NOTE.pattern, re.IGNORECASE | re.MULTILINE)
_NO_CAPTION = re.compile(r"^[ \t]*\[Illustration\]\n*", re.MULTILINE)


def strip_gutenberg(text: str, metadata: dict[str, Any]) -> str:
    """The book alone: no header, footer, credits and notes of those who transcribed it; the lines stay as published.

    The header's title, author and language become metadata. A text with neither header nor footer stays as it is, apart from its
    line ends, which become those of Unix.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    old_ends = [match.start() for match in _OLD_END.finditer(text)]
    ends = [match.start() for match in _END.finditer(text)] or old_ends
    starts = list(_START.finditer(text, 0, min(old_ends + ends + [_LONGEST_HEADER])))
    if not starts and not ends:
        return text
    start = starts[-1].end() if starts else 0
    for name, value in _FIELD.findall(text[:start]):
        metadata.setdefault(name.lower(), " ".join(value.split()))
    book = _OLD_END.sub("", text[start:ends[-1] if ends else None])
    book = _NO_CAPTION.sub("", _NOTE_IN_BRACKETS.sub("", book)).strip("\n")
    return _without_note_at_end(_without_credits(book))


def _without_credits(book: str) -> str:
    """Remove the paragraphs before the title that say who made the file, and the one note of a transcriber."""
    noted = False
    while True:
        paragraph, _, rest = book.partition("\n\n")
        noted = bool(_NOTE.match(paragraph)) and len(paragraph) < 30  # a heading; the note is the next paragraph
        if noted:
            rest = rest.lstrip("\n").partition("\n\n")[2]
        elif not (_CREDIT.match(paragraph.lstrip()) or _NOTE.match(paragraph)):
            return book
        book = rest.lstrip("\n")


def _without_note_at_end(book: str) -> str:
    notes = list(_NOTE_AT_END.finditer(book, max(0, len(book) - _LONGEST_NOTE)))
    book = book[:notes[0].start()] if notes else book
    *before, last = book.rstrip().rsplit("\n\n", 1)
    return before[0].rstrip() if before and _CREDIT.match(last.lstrip()) else book.rstrip()
