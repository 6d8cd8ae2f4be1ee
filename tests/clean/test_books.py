"""Books: what surrounds a text of Project Gutenberg is removed, and nothing of the book."""

import gzip
import json
import zipfile

import pytest

from llama_jax.clean.books import decode_book, read_book, recipe, strip_gutenberg
from llama_jax.clean.items import DamagedInput, Dropped, InputFile, RawDocument
from llama_jax.clean.report import collect_counts
from llama_jax.clean.stages import Workplace, run_stages
from llama_jax.clean.steps import ReadDocuments

BOOK = "THE BOOK\n\nby A. Writer\n\n\nChapter I\n\nIt was a dark night,\nand it rained.\n\nThe end of the rain came."

NEW_HEADER = """The Project Gutenberg eBook of The Book, by A. Writer

Title: The Book
       A Tale of Rain

Author: A. Writer

Language: English

*** START OF THE PROJECT GUTENBERG EBOOK THE BOOK ***
"""
NEW_FOOTER = "*** END OF THE PROJECT GUTENBERG EBOOK THE BOOK ***\n\nUpdated editions will replace it.\n\nSection 1.\n"
OLD_HEADER = """**The Project Gutenberg Etext of The Book, by A. Writer**

Project Gutenberg's The Book

***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
Why is this "Small Print!" statement here? You know: lawyers.
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
"""


def strip(text: str) -> str:
    return strip_gutenberg(text, {})


def around(book: str) -> str:
    return f"{NEW_HEADER}\n\n{book}\n\n\n{NEW_FOOTER}"


@pytest.mark.parametrize("header", [
    NEW_HEADER,
    OLD_HEADER,
    "Project Gutenberg's The Book\n*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*\n",
    "Produced by no one\n\n***START OF THE PROJECT GUTENBERG EBOOK THE BOOK, A LONG TITLE WHICH GOES\nON ON A SECOND LINE***\n",
    "*** START OF THIS PROJECT GUTENBERG EBOOK THE BOOK ***\n\n\n\n" + OLD_HEADER,
    "*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK THE BOOK ***\n",
    "** START OF THE PROJECT GUTENBERG EBOOK THE BOOK **\n",
])
@pytest.mark.parametrize("footer", [
    NEW_FOOTER,
    "End of the Project Gutenberg EBook of The Book, by A. Writer\n\n" + NEW_FOOTER,
    "End of Project Gutenberg's The Book, by A. Writer\n",
    "End of Project Gutenberg's The Book, a title that goes on,\nby A. Writer\n\n*** END OF THIS PROJECT GUTENBERG EBOOK",
    "End of the Project Gutenberg Etext of The Book\n\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n",
    "***END OF THE PROJECT GUTENBERG EBOOK THE BOOK***\n\n\n******* This file should be named 1.txt *******\n",
    "Ende dieses Projekt Gutenberg Etextes Das Buch, von A. Writer\n",
    "",
])
def test_headers_and_footers(header, footer):
    assert strip(f"{header}\n\n\n{BOOK}\n\n\n{footer}") == BOOK


def test_what_the_header_says_becomes_metadata():
    metadata = {}
    strip_gutenberg(around("Title: of a chapter\n\n" + BOOK), metadata)
    assert metadata == {"title": "The Book A Tale of Rain", "author": "A. Writer", "language": "English"}


@pytest.mark.parametrize("credit", [
    "Produced by Anonymous Volunteers",
    "E-text prepared by Someone\nand the Online Distributed Proofreading Team (https://www.pgdp.net)",
    "This etext was produced by Someone.",
    "Transcribed from the 1890 Macmillan and Co. edition by Someone, email\nsomeone@example.org",
    "This eBook was produced by Someone\n\n(This file was produced from images generously made available by a library.)",
    "Scanned and proofed by Someone",
    "[Etext prepared by Someone]",
    "Credits: Someone",
    "Note: Project Gutenberg also has an HTML version of this file.",
    "Transcriber's Note: Spelling is kept.",
    "TRANSCRIBER’S NOTES\n\nSpelling is kept.\n\n\nProduced by Someone",
])
def test_credits_before_the_title_are_removed(credit):
    assert strip(around(f"{credit}\n\n\n\n{BOOK}")) == BOOK
    assert strip(f"{credit}\n\n{BOOK}").startswith(credit[:10]), "a text that is not Gutenberg's keeps them"


@pytest.mark.parametrize("note", [
    "Transcriber's Notes:\n\nWords were mended.\n\nAnd more.",
    "+-----------+\n| Transcriber's note: |\n+-----+",
])
def test_notes_after_the_end_are_removed(note):
    assert strip(around(f"{BOOK}\n\n\n{note}")) == BOOK


def test_what_is_not_the_books_within_it():
    noted = BOOK.replace("The end", "[Illustration]\n\nThe [Transcriber's note: sic,\nso the scan.]end")
    assert strip(around(noted)) == BOOK
    kept = BOOK.replace("The end", "[Illustration: Rain at night]\n\nProduced by the rain, the flood rose.\n\nThe end")
    assert strip(around(kept)) == kept


def test_other_texts_stay_as_they_are():
    text = "\n\n  A poem  \n\n\n\nof lines\n*** a rule ***\nProject Gutenberg is a library.\n"
    assert strip(text) == text
    assert strip("one\r\ntwo\rthree\r\n") == "one\ntwo\nthree\n"
    assert strip(NEW_HEADER) == ""


def test_pride_and_prejudice_loses_exactly_header_and_footer(shared_data):
    [raw] = read_book(shared_data / "corpus/books/pride_and_prejudice_1342-0.txt")
    lines = raw.text.replace("\r\n", "\n").split("\n")
    assert lines[20].startswith("*** START") and lines[25].startswith("Produced by") and lines[13066].startswith("End of the")
    assert strip(raw.text) == "\n".join(lines[26:13066]).strip("\n")
    assert strip(raw.text).startswith("PRIDE AND PREJUDICE\n\nBy Jane Austen\n\n\n\nChapter 1\n")
    assert strip(raw.text).endswith("had been the means of uniting them.")


def test_tiny_shakespeare_stays_whole(shared_data):
    file = shared_data / "corpus/books/tinyshakespeare.txt"
    [raw] = read_book(file)
    assert strip(raw.text) == file.read_text()


@pytest.mark.parametrize(("data", "text"), [
    ("Café".encode(), "Café"),
    (b"\xef\xbb\xbfCaf\xc3\xa9", "Café"),
    (b"Caf\xe9 \x93so\x94", "Café “so”"),
    (b"Character set encoding: ISO-8859-1\nCaf\xe9 \x93", "Character set encoding: ISO-8859-1\nCafé “"),
    (b"Character set encoding: ISO-8859-2\n\xb1", "Character set encoding: ISO-8859-2\ną"),
    (b"Character set encoding: CP437\nCaf\x82", "Character set encoding: CP437\nCafé"),
    (b"Character set encoding: MP3\nCaf\xe9", "Character set encoding: MP3\nCafé"),
    (b"Character set encoding: big5\nCaf\xe9", "Character set encoding: big5\nCafé"),
])
def test_encodings(data, text):
    assert decode_book(data) == text


@pytest.mark.parametrize("data", [b"\0\1\2", b"\x81 neither UTF-8 nor Windows-1252"])
def test_what_is_no_text_is_dropped(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    [item] = read_book(tmp_path / "a.txt")
    assert isinstance(item, Dropped)


def test_zip_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("12/12.TXT", BOOK.encode("utf-8-sig"))
        archive.writestr("12/picture.png", b"\x89PNG")
        archive.writestr("bomb.txt", b"a" * (1 << 20))
    first, second = read_book(tmp_path / "a.zip")
    assert first == RawDocument(BOOK, "12/12.TXT")
    assert isinstance(second, Dropped) and str(second) == "compressed more than 100 times"


def test_damaged_zip_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", BOOK)
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "bytes.zip").write_bytes(data.replace(b"dark", b"dork", 1))
    [item] = read_book(tmp_path / "bytes.zip")
    assert isinstance(item, Dropped) and str(item) == "damaged in its .zip"
    (tmp_path / "cut.zip").write_bytes(data[:-30])
    with pytest.raises(DamagedInput, match=r"damaged \.zip"):
        list(read_book(tmp_path / "cut.zip"))


def test_a_compressed_bomb_is_not_held_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("llama_jax.clean.books.MAX_BYTES", 1 << 20)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a" * ((1 << 20) + 1)))
    [item] = read_book(tmp_path / "a.txt.gz")
    assert isinstance(item, Dropped) and "MiB" in str(item)


def test_the_recipe_keeps_each_book_once(tmp_path):
    """Three files: a book, the same with another header, and one that is no text."""
    long = BOOK + "\n\n" + " ".join(f"word{i}" for i in range(200))
    contents = {"a.txt": around(long).encode(), "b.txt": f"{OLD_HEADER}\n{long}".encode(), "c.txt": b"\0", "d.txt": BOOK.encode()}
    files = []
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        files.append(InputFile(tmp_path / name, name))
    place = Workplace(files, tmp_path / "out")
    assert run_stages(recipe(place, None), place, settings={})
    kept = [document for rank in range(4) for document in ReadDocuments(tmp_path / "out").run(rank=rank)]
    assert [(document.id, document.text) for document in kept] == [("a.txt", long), ("d.txt", BOOK)]
    assert kept[0].metadata["title"] == "The Book A Tale of Rain"
    dropped = {reason: number for step in collect_counts(tmp_path / "out") for reason, (number, _) in step.dropped.items()}
    assert dropped == {"binary": 1, "more than 90% overlap": 1}
    [example] = json.loads((tmp_path / "out/.work/examples/overlap/overlap.00001.json").read_text())
    assert example["id"] == "b.txt; kept is a.txt"
