"""Streams give out whole characters, never a stop string, and together exactly the decoded text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_jax.inference.detokenizer import TextStream
from llama_jax.tokenizer.base import IncrementalDecoder

TEXT = "Hallo, Wörld — 日本語 🎉🎊\n  two  spaces"


def pushed(tokenizer, prompt, text, sizes, stop=()) -> tuple[list[str], TextStream]:
    whole = tokenizer.encode(prompt + text)
    start = len(tokenizer.encode(prompt))
    stream = TextStream(IncrementalDecoder(tokenizer), [tokenizer.bos_id, *whole[:start]], stop=stop)
    ids, parts = whole[start:], []
    while ids:
        size = next(sizes)
        parts.append(stream.push(ids[:size], last=size >= len(ids)))
        ids = ids[size:]
    return parts, stream


@given(sizes=st.lists(st.integers(1, 9), min_size=1), text=st.text(max_size=30))
def test_parts_make_the_text(tokenizer, sizes, text):
    text = " " + text.replace("\x00", "") + TEXT  # a space: the prompt ends where a piece ends

    def endless():
        while True:
            yield from sizes

    parts, stream = pushed(tokenizer, "First Citizen:", text, endless())
    assert "".join(parts) == stream.text == tokenizer.decode(tokenizer.encode("First Citizen:" + text))[14:]
    assert "\ufffd" in text or not any(part.endswith("\ufffd") for part in parts[:-1])


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("stop, left", [
    ((", W",), "Hallo"), (("語",), "Hallo, Wörld — 日本"), (("zzz", "\n"), "Hallo, Wörld — 日本語 🎉🎊"),
    (("🎊\n  two", "🎉"), "Hallo, Wörld — 日本語 "), (("H",), ""), (("nowhere",), TEXT),
])
def test_stops(tokenizer, size, stop, left):
    parts, stream = pushed(tokenizer, "x\n", TEXT, iter(lambda: size, 0), stop)
    assert "".join(parts) == stream.text == left
    assert stream.stopped == (left != TEXT)


class Letters:
    """Stands for a Decoder: ids are code points."""

    def push(self, ids, last=False) -> str:
        return "".join(map(chr, ids))


def test_nothing_that_may_still_become_a_stop_is_given_out():
    stream = TextStream(Letters(), stop=["END."])
    given_out = [stream.push([ord(c)]) for c in "aENxEND."]
    assert given_out == ["a", "", "", "ENx", "", "", "", ""] and stream.stopped


@given(text=st.text(alphabet="abx", max_size=12), stop=st.lists(st.text(alphabet="abx", min_size=1, max_size=4), max_size=3),
       sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_a_stop_does_not_depend_on_how_the_text_is_cut(text, stop, sizes):
    """The stop string that is complete first ends the text; of two that end together the one that began first."""
    ends = [(at + len(one), at) for one in stop for at in range(len(text)) if text.startswith(one, at)]
    stream, at = TextStream(Letters(), stop=stop), 0
    for size in [*sizes, len(text)]:
        stream.push([ord(c) for c in text[at : at + size]], last=at + size >= len(text))
        at += size
    assert stream.text == text[: min(ends)[1] if ends else None] and stream.stopped == bool(ends)


def test_a_prompt_that_ends_inside_a_character(tokenizer):
    """What the model writes then completes it."""
    ids = tokenizer.encode("x🦝")
    stream = TextStream(IncrementalDecoder(tokenizer), ids[:-2])
    assert stream.push(ids[-2:-1]) == "" and stream.push(ids[-1:]) == "\U0001f99d"
