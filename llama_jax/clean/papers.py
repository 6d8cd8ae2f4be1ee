"""Reading the sources of papers as arXiv has them: single files, archives of a paper, and archives of many."""

import gzip
import io
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llama_jax.clean.items import DamagedInput, Dropped, RawDocument, decode_text
from llama_jax.clean.paper_files import LARGEST_TEXT, join_paper

LARGEST_PAPER = 1 << 30
"""Bytes of an archive of one paper, figures and all, when decompressed."""
MOST_FILES = 20_000
_TEXTS = (".tex", ".ltx", ".latex", ".txt", ".tikz", ".pgf", ".inp", ".bbl", "")
"""Ends of names of files that a paper may read with \\input."""
_OLD_ARCHIVES = ("acc-phys|adap-org|alg-geom|ao-sci|astro-ph|atom-ph|bayes-an|chao-dyn|chem-ph|cmp-lg|comp-gas|cond-mat|cs|dg-ga|"
                 "funct-an|gr-qc|hep-ex|hep-lat|hep-ph|hep-th|math-ph|math|mtrl-th|nlin|nucl-ex|nucl-th|patt-sol|physics|plasm-ph|"
                 "q-alg|q-bio|quant-ph|solv-int|supr-con")
"""What ids began with before April 2007."""
_MOST_NAMED = 100
"""Missing files that the metadata name."""
_NO_SOURCE = "no TeX source"
_DAMAGE = (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError)
"""What gzip and tarfile raise for damaged archives."""


def read_papers(file: Path) -> Iterator[RawDocument | Dropped]:
    r"""The paper of a .tex, .gz or .tar(.gz), or the papers in one of arXiv's .tar files, each as LaTeX with its files joined.

    The metadata are the paper's arXiv id (where names have it), its main file, and the files that it asks for and that are not
    there; these are left out. Nothing outside of an archive is read.

    Raises DamagedInput for a file that is damaged.
    """
    try:
        with file.open("rb") as raw:
            if not _is_tar(raw.read(512)):
                yield _paper(raw, file.name)
                return
            raw.seek(0)
            with tarfile.open(fileobj=raw, mode="r:") as archive:
                members, damage = _members_of(archive)
                if not _is_bulk(members):
                    yield _paper(raw, file.name)
                    return
                for member in members:
                    yield _member_paper(archive, member)
                if damage:
                    raise damage
    except Dropped as dropped:
        yield dropped
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        raise DamagedInput(f"damaged archive: {error or type(error).__name__}") from None


def arxiv_id(name: str) -> str:
    """The arXiv id in the name of a file ("1202.3665", "hep-th/9901001"), "" where there is none."""
    if new := re.search(r"(?<!\d)\d\d(?:0[1-9]|1[0-2])\.\d{4,5}(?!\d)", name):
        return new[0]
    old = re.search(rf"(?<![a-z])({_OLD_ARCHIVES})(?:\.[A-Z]{{2}})?[/_]?(\d{{7}})(?!\d)", name)
    return f"{old[1]}/{old[2]}" if old else ""


def _members_of(archive: tarfile.TarFile) -> tuple[list[tarfile.TarInfo], Exception | None]:
    """The files of an archive, and what is wrong behind the last one."""
    members = []
    try:
        for member in archive:
            if member.isreg():
                members.append(member)
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(512) != bytes(512):
            raise tarfile.ReadError("it ends early")
    except _DAMAGE as error:
        return members, error
    return members, None


def _is_bulk(members: list[tarfile.TarInfo]) -> bool:
    """Whether an archive holds papers, each .gz or .pdf, and no TeX of its own."""
    ends = {posixpath.splitext(member.name.lower())[1] for member in members}
    return bool(ends & {".gz", ".pdf"}) and not ends & {".tex", ".ltx", ".latex", ".cls"}


def _member_paper(archive: tarfile.TarFile, member: tarfile.TarInfo) -> RawDocument | Dropped:
    try:
        with archive.extractfile(member) as raw:
            paper = _paper(raw, member.name)
            paper.id = posixpath.splitext(member.name)[0]
            return paper
    except Dropped as dropped:
        return dropped
    except _DAMAGE:
        return Dropped("a damaged archive of a paper")


def _paper(raw: BinaryIO, name: str) -> RawDocument:
    """The paper of one file, whatever it is; raises Dropped where there is none."""
    raw.seek(0)
    is_gzip = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    bounded = _Bounded(gzip.GzipFile(fileobj=raw) if is_gzip else raw, LARGEST_PAPER)
    with io.BufferedReader(bounded, 1 << 16) as stream:
        head = stream.peek(512)[:512]
        if head.startswith(b"%PDF") or not head:
            raise Dropped(_NO_SOURCE)
        is_tar = _is_tar(head)
        files = _texts_of(stream) if is_tar else {posixpath.basename(name): _as_text(stream.read(LARGEST_TEXT + 1))}
    main, text, missing = join_paper(files)
    metadata = {"arxiv_id": arxiv_id(name), "main_file": main, "missing_files": sorted(missing)[:_MOST_NAMED]}
    return RawDocument(text, "", metadata)


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


class _Bounded(io.RawIOBase):
    """A stream that ends in Dropped after `limit` bytes, for archives that decompress to far more than a paper."""

    def __init__(self, stream: BinaryIO, limit: int):
        self._stream, self._left = stream, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise Dropped(f"an archive of more than {LARGEST_PAPER >> 20} MiB")
        buffer[:len(data)] = data
        return len(data)


def _texts_of(stream: BinaryIO) -> dict[str, str]:
    """The files of a paper's archive that may be TeX: name -> text."""
    files: dict[str, str] = {}
    size = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, member in enumerate(archive):
            if number == MOST_FILES:
                raise Dropped(f"an archive of more than {MOST_FILES:,} files")
            name = posixpath.normpath(member.name).lstrip("/")
            if not member.isreg() or posixpath.splitext(name.lower())[1] not in _TEXTS or name.startswith("../"):
                continue
            data = archive.extractfile(member).read(LARGEST_TEXT + 1)
            size += len(data)
            if size > LARGEST_TEXT:
                raise Dropped(f"more than {LARGEST_TEXT >> 20} MiB of TeX")
            try:
                files[name] = _as_text(data)
            except Dropped:
                continue  # no text; if the paper asks for it, it is missing
    return files


def _as_text(data: bytes) -> str:
    """Decode a file, with line ends as \\n, and without control characters."""
    if len(data) > LARGEST_TEXT:
        raise Dropped(f"more than {LARGEST_TEXT >> 20} MiB of TeX")
    text = decode_text(data).replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)
