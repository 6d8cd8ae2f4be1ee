"""Each book once: what overlaps by more than 90% is found, what overlaps less is never dropped."""

import random
import struct

import numpy as np
import pytest

from llama_jax.clean.items import InputFile, RawDocument
from llama_jax.clean.overlap import MINHASH, WriteSignatures, candidate_groups, overlap, overlap_stages
from llama_jax.clean.report import collect_counts
from llama_jax.clean.stages import Workplace, run_stages
from llama_jax.clean.steps import ReadDocuments


def words(seed: int, number: int = 2_000) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(10_000)}" for _ in range(number)]


def mixed(share: float, number: int = 2_000) -> str:
    """A book whose begin is book 0's, and the rest its own."""
    same = round(share * number)
    return " ".join(words(0, number)[:same] + words(same + 1, number)[same:])


def read_text(file):
    yield RawDocument(file.read_text(), "")


def clean(folder, books: list[str], workers: int = 1) -> list[str]:
    """Names of the books that are kept."""
    folder.mkdir()
    files = []
    for number, text in enumerate(books):
        (folder / f"{number}.txt").write_text(text)
        files.append(InputFile(folder / f"{number}.txt", f"{number}"))
    place = Workplace(files, folder / "out")
    assert run_stages(overlap_stages(place, place.read(read_text)), place, settings={}, workers=workers)
    return [document.id for rank in range(len(files)) for document in ReadDocuments(folder / "out").run(rank=rank)]


def test_edges(tmp_path):
    """Books that share 95% and 91% of book 0 go; 89%, 80% and nothing stay."""
    original = " ".join(words(0))
    books = [original, mixed(0.95), mixed(0.91), mixed(0.89), mixed(0.8), " ".join(words(5))]
    kept = clean(tmp_path / "a", books)
    assert kept == ["0", "3", "4", "5"]


def test_planted_copies(tmp_path, play):
    """Copies with other lines, capitals, punctuation and a few other words; halves, and collections, are books of their own."""
    book = play[:60_000]
    copy = book.upper().replace("\n", "  ").replace(",", " -- ")
    mended = book.replace("Citizen", "Burgher", 10)
    books = [book, play[60_000:120_000], mended, play[:120_000], copy, book[:30_000]]
    assert clean(tmp_path / "a", books) == ["0", "1", "3", "5"]


def test_the_first_stays_and_what_only_overlaps_with_dropped_ones_stays(tmp_path):
    """A and B overlap, and B and C, but not A and C: B goes, C stays."""
    text = words(0, 2_200)
    chain = [" ".join(text[begin:begin + 2_000]) for begin in (0, 120, 240)]
    assert clean(tmp_path / "a", chain) == ["0", "2"]


def test_short_empty_and_equal_books(tmp_path):
    assert clean(tmp_path / "a", ["one two", "one two", "one two three", "!!!", "...", "three"]) == ["0", "2", "3", "4", "5"]


def test_tables_of_other_numbers_are_other_books(tmp_path):
    first, second = (" ".join(str(random.Random(seed + i).randrange(10**6)) for i in range(500)) for seed in (0, 10**6))
    assert clean(tmp_path / "a", [first, second, first]) == ["0", "1"]


@pytest.mark.slow
def test_any_number_of_workers(tmp_path):
    books = [mixed(share) for share in (0.5, 1.0, 0.97, 0.93, 0.92, 0.55)]
    for workers in (1, 3):
        clean(tmp_path / f"{workers}", books, workers=workers)
    for file in sorted((tmp_path / "1/out").glob("*.zst")):
        assert file.read_bytes() == (tmp_path / f"3/out/{file.name}").read_bytes()
    first, second = ([step.dropped for step in collect_counts(tmp_path / f"{workers}/out")] for workers in (1, 3))
    assert first == second


def test_recall_at_90_percent(tmp_path):
    """Of pairs that share just over 90%, MinHash misses less than 1%: 300 pairs, expected to miss 1, miss at most 5."""
    signatures = WriteSignatures(str(tmp_path))

    def bands(shingles: np.ndarray) -> set[tuple[int, ...]]:
        return {(number, *band) for number, band in enumerate(signatures.get_signature(shingles[:, None]))}

    def caught(share: float) -> int:
        rng = np.random.default_rng(0)
        number = 0
        for _ in range(300):
            first, other = rng.integers(1 << 60, size=(2, 400), dtype=np.uint64)
            second = np.concatenate([first[:round(share * 400)], other[round(share * 400):]])
            number += bool(bands(first) & bands(second))
        return number

    assert caught(0.9025) >= 295
    assert caught(0.7) <= 90  # expected: 17% of 300
    assert caught(0.3) <= 3


def test_signatures_do_not_depend_on_the_parts_that_they_are_computed_in(tmp_path):
    signatures = WriteSignatures(str(tmp_path))
    shingles = np.random.default_rng(0).integers(1 << 60, size=(5_000, 1), dtype=np.uint64)
    whole = super(WriteSignatures, signatures).get_signature(shingles)
    assert signatures.get_signature(shingles) == whole
    assert np.array(whole).shape == (MINHASH.num_buckets, MINHASH.hashes_per_bucket)


def test_words_of_chinese_and_japanese(tmp_path):
    signatures = WriteSignatures(str(tmp_path))
    assert len(signatures.get_shingles("春眠不覺曉，處處聞啼鳥。")) == 10 - 4
    assert len(signatures.get_shingles("one two three four five six")) == 2


def test_overlap_is_a_share_of_the_longer_one():
    first, second = np.arange(10, dtype=np.uint64), np.arange(5, 25, dtype=np.uint64)
    assert overlap(first, second) == overlap(second, first) == 5 / 20
    assert overlap(first[:0], first[:0]) == 0


def test_groups_of_candidates(tmp_path):
    """Two files: in the first the documents (0, 1), (0, 3), (2, 0) have one signature, and (1, 0), (1, 1) another."""
    (tmp_path / "00000_00.dups").write_bytes(struct.pack("<12I", 0, 1, 0, 3, 0, 3, 2, 0, 1, 0, 1, 1))
    (tmp_path / "00001_00.dups").write_bytes(struct.pack("<4I", 0, 3, 1, 1))
    assert candidate_groups(tmp_path) == {(0, 1): [1], (0, 3): [1, 3], (2, 0): [1], (1, 0): [2], (1, 1): [2, 3]}
