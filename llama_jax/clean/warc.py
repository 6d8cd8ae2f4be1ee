"""Reading web archives: the HTML pages of WARC files and the texts of WET files (ISO 28500; Common Crawl's own profile of it)."""

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from warcio.archiveiterator import ArchiveIterator
from warcio.exceptions import ArchiveLoadFailed
from warcio.statusandheaders import StatusAndHeadersParser, StatusAndHeadersParserException

from llama_jax.clean.items import DAMAGE, MAX_BYTES, DamagedInput, Dropped, RawDocument, open_raw

MOST_HTML = 1 << 20
"""Longest page in bytes: Common Crawl cut pages at 1 MiB in the years of the paper, and extraction takes seconds beyond."""
HTML, PLAIN = "text/html", "text/plain"
_HTML_TYPES = (HTML, "application/xhtml+xml")
_BLOCK_OF_DETECTION = 1 << 16

_SUPERSETS = {"ascii": "cp1252", "iso8859-1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932"}
"""What browsers read by each of these names: encodings that hold more characters."""
_NOT_LIKE_ASCII = ("iso2022", "utf-16", "utf-32", "hz")
"""Encodings whose bytes may also be valid UTF-8 of another text."""
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


def read_warc(file: Path) -> Iterator[RawDocument | Dropped]:
    """Yield the HTML pages (`response` records of status 200) and plain texts (`conversion` records of WET) of a web archive.

    Metadata: `url`, `date`, and `content_type`, text/html or text/plain. Other kinds of records are no documents and are passed
    over. A page of more than MOST_HTML bytes, and a record of more than MAX_BYTES, is dropped before it is in memory.

    Raises:
        DamagedInput: the file is cut off, its compression is damaged, or what stands there is no record.
    """
    with open_raw(file) as stream:
        if (begin := stream.read(5)) != b"WARC/":
            raise DamagedInput("no WARC file" if begin else "empty file")
    with open_raw(file) as stream:
        archive = _UntilDamage(stream)
        records = iter(ArchiveIterator(archive, no_record_parse=True))
        number = 0
        while (record := _next_record(records, archive)) is not None:
            number += 1
            archive.left = (record.length or 0) + MAX_BYTES  # its rest, and the head of the next
            if record.rec_type in ("response", "conversion"):
                item = _read_record(record, number)
                if item is None:
                    break
                yield item
        if archive.error:
            raise archive.error
        if record is not None:
            raise DamagedInput("the last record is cut off")


class _UntilDamage:
    """A stream that ends where the one below it is damaged: warcio would take the error for the end of the file, and not tell.

    It also ends after `left` bytes, since warcio looks for the next record in lines of any length.
    """

    def __init__(self, stream: BinaryIO):
        self._stream, self.error, self.left = stream, None, MAX_BYTES

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        try:
            data = self._stream.read1(size)  # not read, which loses the bytes before the damage
        except DAMAGE as error:
            self.error = error
            return b""
        self.left -= len(data)
        if self.left < 0:
            self.error = DamagedInput(f"no record within {MAX_BYTES >> 20} MiB")
            return b""
        return data


def _next_record(records: Iterator[Any], archive: _UntilDamage) -> Any:
    """The next record, or None at the end."""
    try:
        return next(records, None)
    except (ArchiveLoadFailed, StatusAndHeadersParserException, ValueError) as error:
        raise archive.error or DamagedInput(f"damaged WARC: {str(error).strip().splitlines()[0][:80]}") from None


def _read_record(record: Any, number: int) -> RawDocument | Dropped | None:
    """The document of a record, or None for a record that is cut off."""
    if record.length is None:
        raise DamagedInput("a record without Content-Length")
    if record.length > MAX_BYTES:
        return Dropped(f"a record of more than {MAX_BYTES >> 20} MiB")
    data = record.raw_stream.read()
    if len(data) < record.length:
        return None
    header = record.rec_headers.get_header
    metadata = {"url": header("WARC-Target-URI") or "", "date": header("WARC-Date") or ""}
    name = (header("WARC-Record-ID") or "").strip("<>") or str(number)
    try:
        if record.rec_type == "conversion":
            return RawDocument(_decode_plain(data), name, {**metadata, "content_type": PLAIN})
        return RawDocument(_page(record, data), name, {**metadata, "content_type": HTML})
    except Dropped as dropped:
        return dropped


def _decode_plain(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Dropped("not UTF-8") from None


def _page(record: Any, data: bytes) -> str:
    """The HTML of a response: the body of the HTTP message, without its transfer and content encoding, as text."""
    record.raw_stream = io.BytesIO(data)
    try:
        record.http_headers = StatusAndHeadersParser(["HTTP/1.0", "HTTP/1.1"], verify=False).parse(record.raw_stream)
    except (StatusAndHeadersParserException, EOFError, ValueError):
        raise Dropped("no HTTP response") from None
    if record.http_headers.get_statuscode() != "200":
        raise Dropped("HTTP status is not 200")
    declared = record.http_headers.get_header("Content-Type") or ""
    kind = record.rec_headers.get_header("WARC-Identified-Payload-Type") or declared.partition(";")[0]
    if kind.strip().lower() not in _HTML_TYPES:
        raise Dropped("not HTML")
    try:
        body = record.content_stream().read(MOST_HTML + 1)
    except Exception:  # warcio lets zlib's and brotli's own errors through
        raise Dropped("damaged HTTP body") from None
    if len(body) > MOST_HTML:
        raise Dropped(f"page of more than {MOST_HTML >> 20} MiB")
    return decode_html(body, declared)


def decode_html(data: bytes, content_type: str = "") -> str:
    """Decode a page: by its byte order mark, as UTF-8 if it is that, by the HTTP header, by its meta tag, by detection.

    UTF-8 comes before the header, because text in other encodings is hardly ever valid UTF-8 by chance, while headers are often
    wrong. Raises Dropped where no encoding fits.
    """
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return data.decode(name, errors="replace")
    header = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    meta = _META_CHARSET.search(data[:4096])
    declared = [name for label in (header and header[1], meta and meta[1].decode()) if label and (name := _codec(label))]
    first = [name for name in declared if name.startswith(_NOT_LIKE_ASCII)]
    for name in [*first, "utf-8", *declared]:
        try:
            return data.decode(name)
        except UnicodeError:
            continue
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_BLOCK_OF_DETECTION]).best()
    names = [best.encoding] if best else declared
    if not names or b"\0" in data:
        raise Dropped("unknown encoding")
    return data.decode(names[0], errors="replace")


def _codec(label: str) -> str:
    """Python's name of a text encoding, or "" for a label that it does not know."""
    try:
        codec = codecs.lookup(label)
    except LookupError:
        return ""
    return _SUPERSETS.get(codec.name, codec.name) if codec._is_text_encoding else ""
