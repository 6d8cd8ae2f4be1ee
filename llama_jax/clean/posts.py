"""Reading the posts of a site from Posts.xml of Stack Exchange's data dumps, as a file or inside its .7z archive."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import py7zr
from lxml import etree
from py7zr.io import Py7zIO, WriterFactory

from llama_jax.clean.items import MAX_BYTES, DamagedInput, Dropped, RawDocument, open_raw

_BLOCK = 1 << 20
_ROW = re.compile(rb"<row\s[^<]*")
"""A post. XML has no `<` inside of an attribute, so a row ends before the next one; that holds in a damaged file too."""
_KINDS = {"1": "question", "2": "answer"}
"""PostTypeId; the others are descriptions of tags, nominations of moderators and the like."""
_LARGEST_GROWTH = 200
"""An archive that grows by more than this, and to more than a GiB, is no dump: these grow by 4 to 7."""
_SMALL_ARCHIVE = 1 << 30
_OWN_DOMAINS = {"stackoverflow": ".com", "superuser": ".com", "serverfault": ".com", "askubuntu": ".com", "stackapps": ".com",
                "mathoverflow": ".net"}


def site_of(file: Path) -> str:
    """The name of the site of a dump: `coffee` for coffee.stackexchange.com.7z, coffee-Posts.xml or
    coffee.stackexchange.com/Posts.xml.

    Sites with a domain of their own are named by it (`stackoverflow`, `ru.stackoverflow`, `mathoverflow`), discussions about a
    site as their domain begins (`meta.math`, `meta.stackoverflow`); `meta` is the one about the network.
    """
    name = re.sub(r"\.(xml|7z|gz|bz2|xz|zst)\b", "", file.name, flags=re.IGNORECASE)
    name = re.sub(r"-?Posts$", "", name, flags=re.IGNORECASE) or file.absolute().parent.name
    return re.sub(r"(\.stackexchange)?\.(com|net)$", "", name.lower())


def address_of(site: str, post: str) -> str:
    """The web address of a post, for the attribution that its licence asks for."""
    end = _OWN_DOMAINS.get(site.rpartition(".")[2], ".stackexchange.com")
    return f"https://{site}{end}/q/{post}"


def read_posts(file: Path, *, sites: frozenset[str] = frozenset()) -> Iterator[RawDocument | Dropped]:
    """Questions and answers of one site in the dump's order: the HTML of each, and in the metadata its other attributes.

    A row that is no valid XML is dropped alone. `sites`, where given, are the sites to read.

    Raises DamagedInput for a file that is no Posts.xml, or ends early.
    """
    site = site_of(file)
    if sites and site not in sites:
        yield Dropped("a site that is not among --sites")
        return
    with (_open_archive if file.suffix.lower() == ".7z" else open_raw)(file) as stream:
        if stream is None:
            yield Dropped("an archive without Posts.xml")
            return
        for row in _rows(stream):
            yield row if isinstance(row, Dropped) else _post(row, site)


def _rows(stream: BinaryIO) -> Iterator[bytes | Dropped]:
    """The <row ...> elements of a dump, each as bytes, in bounded memory."""
    text = stream.read(_BLOCK)
    if b"<posts" not in text:
        raise DamagedInput("no <posts> in it, as Posts.xml has")
    while block := stream.read(_BLOCK):
        end = text.rfind(b"<")
        yield from _ROW.findall(text, 0, max(end, 0))
        text = text[max(end, 0):] + block
        if len(text) > MAX_BYTES:
            yield Dropped(f"a post of more than {MAX_BYTES >> 20} MiB")
            text = b""
    yield from _ROW.findall(text)
    if b"</posts>" not in text:
        raise DamagedInput("it ends before </posts>")


def _post(row: bytes, site: str) -> RawDocument | Dropped:
    try:
        values = etree.fromstring(row if row.rstrip().endswith(b"/>") else row + b"</row>", _PARSER).attrib
    except etree.XMLSyntaxError:
        return Dropped("invalid XML")
    kind = _KINDS.get(values.get("PostTypeId", ""))
    number = _whole_number(values.get("Id"))
    if not kind:
        return Dropped("neither question nor answer")
    if number is None:
        return Dropped("no Id")
    if "DeletionDate" in values:
        return Dropped("deleted")
    question = number if kind == "question" else _whole_number(values.get("ParentId"))
    if question is None:
        return Dropped("an answer that names no question")
    if not values.get("Body", "").strip():
        return Dropped("no text")
    metadata: dict[str, Any] = {
        "site": site, "kind": kind, "question": question, "post": number, "score": _whole_number(values.get("Score")) or 0,
        "date": values.get("CreationDate", ""), "title": " ".join(values.get("Title", "").split()),
        "tags": re.findall(r"[^<>|]+", values.get("Tags", "")), "license": values.get("ContentLicense", ""),
    }
    return RawDocument(values["Body"], f"{kind}/{number}", metadata)


_PARSER = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True)


def _whole_number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,18}", text) else None


@contextmanager
def _open_archive(file: Path) -> Iterator[BinaryIO | None]:
    """Posts.xml of a .7z as a stream, None where the archive has none.

    A thread decompresses into a pipe, so that the file never lies in memory or on disk as a whole. Raises DamagedInput, in place
    of what the reader says of a stream that ended early, where the archive is damaged.
    """
    failures: list[BaseException] = []
    with file.open("rb") as raw:
        try:
            limit = max(_SMALL_ARCHIVE, _LARGEST_GROWTH * file.stat().st_size)
            archive = py7zr.SevenZipFile(raw, max_extract_size=limit)
            names = [name for name in archive.getnames() if name.rpartition("/")[2].lower() == "posts.xml"]
        except Exception as error:  # whatever a decoder makes of bytes that are no archive
            raise DamagedInput(f"damaged .7z: {error or type(error).__name__}") from None
        if not names:
            yield None
            return
        source, sink = os.pipe()
        thread = threading.Thread(target=_decompress, args=(archive, names[0]), kwargs={"sink": sink, "failures": failures})
        thread.start()
        try:
            with os.fdopen(source, "rb") as stream:
                yield stream
        finally:
            thread.join()
            if failures:
                raise DamagedInput(f"damaged .7z: {failures[0] or type(failures[0]).__name__}") from None


def _decompress(archive: py7zr.SevenZipFile, name: str, *, sink: int, failures: list[BaseException]) -> None:
    with os.fdopen(sink, "wb", buffering=0) as stream:
        try:
            archive.extract(targets=[name], factory=_PipeFactory(stream))
        except BrokenPipeError:
            pass  # the reader has stopped
        except Exception as error:
            failures.append(error)


class _PipeFactory(WriterFactory):
    """Where py7zr writes the one file that is extracted."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def create(self, filename: str) -> Py7zIO:
        return _Pipe(self._stream)


class _Pipe(Py7zIO):
    """The end of a pipe that is written to; py7zr asks for the methods of a file, and calls no other than these two."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def write(self, s: bytes | bytearray) -> int:
        rest = memoryview(s)
        while rest:
            rest = rest[self._stream.write(rest):]
        return len(s)

    def seekable(self) -> bool:
        return False

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return 0
