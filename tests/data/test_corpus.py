"""What a run reads: nothing is trained on and held out, the tokenizer fits, and mistakes change nothing."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.config import DataConfig
from llama_jax.data.corpus import open_corpus
from llama_jax.data.manifest import MANIFEST_FILE, PREPARE_PROGRESS
from llama_jax.data.prepare import prepare_data
from llama_jax.data.raw_source import RawSource
from llama_jax.errors import ConfigError, DataError, LlamaError
from llama_jax.tokenizer.base import Tokenizer
from llama_jax.tokenizer.load import load_tokenizer


@pytest.fixture
def open_it(tmp_path) -> Callable:
    """A function that opens a corpus in the run directory `run`, with rows of 16 tokens."""
    (tmp_path / "run").mkdir()

    def call(*sources: str, vocab_size: int = 512, **options):
        config = DataConfig(tuple(map(str, sources)), sequence_length=16, **options)
        return open_corpus(config, vocab_size, workdir=tmp_path / "run")

    return call


@pytest.fixture
def raw(tmp_path, play) -> Path:
    """A folder with a .txt and a .jsonl file of the play."""
    (tmp_path / "acts").mkdir()
    (tmp_path / "acts/one.txt").write_text(play[:50_000])
    speeches = play[50_000:90_000].split("\n\n")
    (tmp_path / "acts/two.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in speeches))
    return tmp_path / "acts"


@pytest.fixture
def prepared(tmp_path, raw, tokenizer) -> Path:
    prepare_data([str(raw / "two.jsonl")], tokenizer, output=tmp_path / "prepared", workers=1)
    return tmp_path / "prepared"


def text_of(source, tokenizer: Tokenizer) -> str:
    """All documents of a TokenSource, read back."""
    ids = [int(i) for n in range(len(source)) for i in source.window(n)[:-1]] + [2]
    documents = " ".join(map(str, ids)).split(" 2 ")
    return "".join(tokenizer.decode(int(i) for i in document.split()) for document in documents)


TEXT = st.text(alphabet="ab\n \u00e9\U0001f600", min_size=1).filter(lambda text: not text.isspace())


@given(documents=st.lists(TEXT, min_size=1), fraction=st.floats(0.0, 0.99))
def test_the_parts_are_the_whole(tmp_path_factory, documents, fraction):
    file = tmp_path_factory.getbasetemp() / "documents.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    source, parts = RawSource(str(file), fraction), {}
    size = len("".join(documents).encode())
    for name in ("train", "heldout"):
        try:
            parts[name] = "".join(source.part(name))
        except DataError as error:
            assert f"leaves nothing for the {name} part; choose another fraction" in str(error)
            parts[name] = ""
    assert parts["train"] + parts["heldout"] == "".join(documents)
    assert source.size == size
    assert len(parts["train"].encode()) <= size - int(size * fraction)


def test_the_cut_falls_on_a_line_end(raw):
    source = RawSource(str(raw / "one.txt"), 0.1)
    train, heldout = "".join(source.part("train")), "".join(source.part("heldout"))
    assert train.endswith("\n") and len(heldout) == pytest.approx(5_000, abs=100)


def test_raw_text_is_read_back_from_the_shards(raw, open_it, play):
    corpus = open_it(raw / "one.txt", heldout_fraction=0.1)
    (source,), (heldout,) = corpus.sources, corpus.heldout
    assert text_of(source, corpus.tokenizer) + text_of(heldout, corpus.tokenizer) == play[:50_000]
    assert (source.name, heldout.name) == ("one", "one")
    assert corpus.shares == [source.manifest.tokens]
    assert source.manifest.bytes + heldout.manifest.bytes == 50_000


def test_the_tokenizer_never_sees_what_is_held_out(tmp_path, open_it):
    (tmp_path / "a.txt").write_text("some words here and there\n" * 300 + "\u4e2d\u6587\u5b57\n" * 40)
    corpus = open_it(tmp_path / "a.txt", heldout_fraction=0.1, vocab_size=290)
    assert not set("\u4e2d\u6587\u5b57") & corpus.tokenizer._characters


def test_opening_again_makes_nothing_again(tmp_path, raw, open_it):
    first = open_it(raw, heldout_fraction=0.1)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")}
    assert open_it(raw, heldout_fraction=0.1).tokenizer.sha256 == first.tokenizer.sha256
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run").rglob("*")} == times


def test_shares_and_names(raw, prepared, open_it):
    shutil.copytree(raw, raw.parent / "more/acts")
    corpus = open_it(f"{raw}=3", f"{prepared}=0.5", f"{raw.parent}/more/acts=1", heldout_fraction=0.2,
                     heldout=(str(raw / "one.txt"),))
    assert [source.name for source in corpus.sources] == ["acts", "prepared", "acts-2"]
    assert corpus.shares == [3.0, 0.5, 1.0]
    assert [source.name for source in corpus.heldout] == ["acts", "acts-2", "one"]
    assert len({source.folder for source in (*corpus.sources, *corpus.heldout)}) == 6


def test_documents_of_raw_text_by_a_separator(raw, open_it, play):
    corpus = open_it(raw / "one.txt", heldout_fraction=0.1, document_separator="\n\n")
    documents = corpus.sources[0].manifest.documents + corpus.heldout[0].manifest.documents
    assert documents == len(play[:50_000].split("\n\n")) + 1, "one speech is cut in two"
    with pytest.raises(DataError, match="already holds data made from other text, settings or tokenizer"):
        open_it(raw / "one.txt", heldout_fraction=0.1)


def test_heldout_may_be_raw_or_prepared(raw, prepared, open_it, play):
    corpus = open_it(raw / "one.txt", heldout=(str(prepared),), tokenizer=str(prepared))
    assert [source.folder for source in corpus.heldout] == [prepared]
    assert corpus.heldout[0].name == "prepared"


def test_the_tokenizer_beside_prepared_shards_is_the_runs(tmp_path, prepared, open_it, tokenizer):
    assert open_it(prepared).tokenizer.sha256 == tokenizer.sha256
    assert load_tokenizer(tmp_path / "run").sha256 == tokenizer.sha256


def damage(folder: Path) -> None:
    os.truncate(folder / "shard_00000.bin", 11)


def forget(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()
    (folder / PREPARE_PROGRESS).write_text("{}")


@pytest.mark.parametrize("break_it, options, error, sentence", [
    (None, {"vocab_size": 600}, ConfigError, "has 512 pieces but model.vocab_size is 600; set --model.vocab_size 512"),
    (None, {"tokenizer": "none"}, DataError, "no tokenizer at none: expected a SentencePiece file"),
    (None, {"heldout": ("none",)}, DataError, "data source none does not exist"),
    (damage, {}, DataError, "shard_00000.bin should hold .* truncated or was replaced"),
    (forget, {}, DataError, "prepared is not finished; run the `python -m llama_jax prepare` that began it again"),
    (lambda folder: (folder / MANIFEST_FILE).write_text("{"), {}, DataError, "manifest.json is damaged"),
    (lambda folder: (folder / "tokenizer.model").unlink(), {}, DataError, "no tokenizer: .*set --data.tokenizer"),
    (lambda folder: (folder / "tokenizer.model").write_bytes(b"x"), {}, DataError, "is not a SentencePiece model"),
])
def test_mistakes_are_named_and_leave_nothing(tmp_path, prepared, open_it, break_it, options, error, sentence):
    if break_it:
        break_it(prepared)
    with pytest.raises(error, match=sentence) as caught:
        open_it(prepared, **options)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").iterdir())


def test_shards_of_another_tokenizer_are_refused(tmp_path, raw, prepared, open_it):
    open_it(raw / "one.txt", vocab_size=400)
    (tmp_path / "run/tokenizer.model").rename(tmp_path / "other.model")
    with pytest.raises(ConfigError, match=r"has 400 pieces but model.vocab_size is 512"):
        open_it(prepared, tokenizer=str(tmp_path / "other.model"))
    with pytest.raises(DataError, match=r"was tokenised with 512 pieces but model.vocab_size is 400"):
        open_it(prepared, tokenizer=str(tmp_path / "other.model"), vocab_size=400)


def test_a_run_keeps_its_tokenizer(tmp_path, raw, prepared, open_it, tokenizer):
    open_it(raw / "one.txt")
    before = (tmp_path / "run/tokenizer.model").read_bytes()
    assert before != tokenizer.model
    with pytest.raises(ConfigError, match=r"begun with another tokenizer .*; use another --workdir or the old"):
        open_it(prepared, tokenizer=str(prepared))
    assert (tmp_path / "run/tokenizer.model").read_bytes() == before


def test_changed_text_is_not_taken_for_the_old(raw, open_it):
    open_it(raw / "one.txt")
    (raw / "one.txt").write_text((raw / "one.txt").read_text().replace("the", "eth"))
    with pytest.raises(DataError, match="already holds data made from other text"):
        open_it(raw / "one.txt")


@pytest.mark.parametrize("name, content", [
    ("empty.txt", b""), ("blank.txt", b"\n \n"), ("latin.txt", b"caf\xe9"), ("broken.jsonl", b"{"),
    ("cut.txt.gz", b"\x1f\x8b\x08"), ("small.txt", b"too little for 512 pieces"),
    ("folder/notes.md", b"x"), ("keyless.jsonl", b'{"body": "x"}'),
])
def test_bad_text_ends_in_one_sentence(tmp_path, open_it, name, content):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    named = "vocab_size 512 is too large for the text" if name == "small.txt" else Path(name).parts[0]
    with pytest.raises(LlamaError, match=named) as caught:
        open_it(tmp_path / Path(name).parts[0])
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("fraction, part", [(0.9, "train"), (1e-6, "heldout")])
def test_a_fraction_that_leaves_a_part_empty(tmp_path, open_it, tokenizer, fraction, part):
    tokenizer.save(tmp_path)
    (tmp_path / "a.txt").write_text("\u4e2d")
    with pytest.raises(DataError, match=f"heldout_fraction {fraction} of .*a.txt .* nothing for the {part} part"):
        open_it(tmp_path / "a.txt", heldout_fraction=fraction, tokenizer=str(tmp_path))


def test_what_is_done_with_shares_and_held_out_text_is_said(raw, prepared, open_it):
    for shares, notes in [
        ((0.5, 0.5), ()), ((1, 1), ("the shares of data.sources add up to 2, not 1; each is divided by that",)),
        ((0.1, 0.2), ("the shares of data.sources add up to 0.3, not 1; each is divided by that",)),
    ]:
        corpus = open_it(f"{raw / 'one.txt'}={shares[0]}", f"{raw / 'two.jsonl'}={shares[1]}", heldout_fraction=0.1,
                         tokenizer=str(prepared))
        assert corpus.notes == notes
    assert open_it(raw / "one.txt", heldout_fraction=0.1).notes == ()


def test_a_run_without_held_out_text_says_so(raw, prepared, open_it, tokenizer):
    (note,) = open_it(prepared, heldout_fraction=0.1).notes
    assert note.startswith(f"nothing of {prepared} is held out: data.heldout_fraction holds back text of raw sources only")
    (note,) = open_it(prepared).notes
    assert note == "no held-out loss: nothing is held out; name held-out text in data.heldout"
    (note,) = open_it(raw / "two.jsonl").notes
    assert note.endswith("name held-out text in data.heldout, or set data.heldout_fraction")
    assert open_it(prepared, heldout=(str(raw / "one.txt"),)).notes == ()


def test_a_raw_source_keeps_its_shards_whatever_stands_beside_it(tmp_path, open_it, tokenizer):
    """Files of the same name: in another order, without the first, and with a third file in its place."""
    text = (("a", "first words\n" * 40), ("b", "other text\n" * 50), ("c", "a third one\n" * 60))
    paths = []
    for folder, words in text:
        (tmp_path / folder).mkdir()
        paths.append(str(tmp_path / folder / "train.txt"))
        (tmp_path / folder / "train.txt").write_text(words)
    a, b, c = paths

    def held(*sources: str) -> list[tuple[str, str]]:
        corpus = open_it(*sources, tokenizer=str(tmp_path / "tok"), vocab_size=tokenizer.vocab_size)
        return [(source.name, source.digest) for source in corpus.sources]

    tokenizer.save(tmp_path / "tok")
    first, second = held(a, b)
    assert [first[0], second[0]] == ["train", "train-2"]
    assert held(b, a) == [second, first]
    assert held(b) == [second]
    third, *others = held(c, b, a)
    assert third[0] == "train-3" and others == [second, first]
    assert held(c) == [third]
    (tmp_path / "b" / "train.txt").write_text("changed\n" * 50)
    with pytest.raises(DataError, match="already holds data made from other text"):
        held(b)
    (tmp_path / "b" / "train.txt").write_text(text[1][1])
    (tmp_path / "run" / "data" / "train-2" / "source.txt").unlink()  # as an earlier version left it
    assert held(b, c) == [second, third]
