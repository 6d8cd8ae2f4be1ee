"""The text of ids does not depend on how many come at a time, and invalid bytes leave the characters beside them intact."""

import io
import random
import time
from functools import cache

import pytest
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from llama_jax.formats.tokenizer_export import hf_tokenizer_files
from llama_jax.inference.detokenizer import TextStream
from llama_jax.tokenizer.base import IncrementalDecoder, Tokenizer
from llama_jax.tokenizer.bpe import Tiktoken, TokenizerJson
from llama_jax.tokenizer.load import load_tokenizer
from llama_jax.tokenizer.sentencepiece import SPACE, SentencePiece
from llama_jax.tokenizer.special_tokens import SpecialTokens
from tests.golden.texts import random_texts

RULES = SpecialTokens(eos_token="</s>")
FALLBACK = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
STRIP = decoders.Strip(" ", 1, 0)
METASPACE = {"prepend_scheme": "first", "split": False}
VARIANTS = {
    "prepend": (normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]), None, [*FALLBACK, STRIP]),
    "metaspace": (None, pre_tokenizers.Metaspace(**METASPACE), [*FALLBACK, STRIP]),
    "no_space_before": (normalizers.Replace(" ", SPACE), None, FALLBACK),
    "metaspace_decoder": (None, pre_tokenizers.Metaspace(**METASPACE),
                          [decoders.ByteFallback(), decoders.Metaspace(**METASPACE)]),
}
"""Normalizer, pre-tokenizer and decoders of tokenizer.json files with byte fallback that are in use."""
FALLBACKS = [*(f"fallback {name}" for name in VARIANTS), "fallback real"]
SPM = ["spm", "spm squeezes", "spm sets no space"]
LOSSY = ["spm squeezes", "fallback metaspace", "fallback metaspace_decoder"]
"""Variants that squeeze spaces, or that set none before a text which begins with one and take that away."""
KINDS = [*SPM, "tiktoken", "byte level", *FALLBACKS, "real"]


def fallback(tokenizer: SentencePiece, variant: str) -> TokenizerJson:
    """The pieces of a SentencePiece model in a tokenizer.json, and three added tokens, one of them special."""
    normalizer, pre_tokenizer, decoder = VARIANTS[variant]
    made = tokenizers.Tokenizer.from_str(hf_tokenizer_files(tokenizer)["tokenizer.json"].decode())
    made.normalizer, made.decoder = normalizer, decoders.Sequence(decoder)
    if pre_tokenizer:
        made.pre_tokenizer = pre_tokenizer
    made.add_tokens([AddedToken("<tool>", special=False), AddedToken(" two words ", special=False)])
    made.add_special_tokens([AddedToken("<|turn|>", special=True)])
    return TokenizerJson(made.to_str().encode(), RULES)


load = cache(load_tokenizer)


@cache
def in_json(tokenizer: SentencePiece) -> TokenizerJson:
    """LLaMA's own pieces in a tokenizer.json."""
    return fallback(tokenizer, "prepend")


@cache
def trained(play: str, **settings) -> SentencePiece:
    """A SentencePiece model with byte fallback and other settings than LLaMA's."""
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(play[:50_000].splitlines()), model_writer=output, vocab_size=400, model_type="bpe",
        byte_fallback=True, minloglevel=2, normalization_rule_name="identity", **settings)
    return SentencePiece(output.getvalue())


@pytest.fixture
def make(request, tokenizer, play, ranks, byte_level):
    """A function from the name of a kind to a tokenizer of it."""
    def of(kind: str) -> Tokenizer:
        if kind.endswith("real"):
            real = load(request.getfixturevalue("shared_data") / "tokenizer/llama-tokenizer.model")
            return real if kind == "real" else in_json(real)
        if kind.startswith("fallback "):
            return fallback(tokenizer, kind.removeprefix("fallback "))
        return {"spm": lambda: tokenizer, "spm squeezes": lambda: trained(play, remove_extra_whitespaces=True),
                "spm sets no space": lambda: trained(play, remove_extra_whitespaces=False, add_dummy_prefix=False),
                "tiktoken": lambda: Tiktoken(ranks),
                "byte level": lambda: TokenizerJson(byte_level.to_str().encode(), RULES)}[kind]()

    return of


def one_by_one(tokenizer: Tokenizer, ids: list[int], prompt: list[int] = ()) -> str:
    stream = TextStream(IncrementalDecoder(tokenizer), prompt)
    parts = [stream.push([i]) for i in ids]
    return "".join([*parts, stream.push([], last=True)])


def random_ids(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Sequences of up to 30 ids, half of which stand for single bytes where the tokenizer has such; some for nothing."""
    rng = random.Random(1)
    bytes_ = [i for i in range(tokenizer.vocab_size) if isinstance(c := tokenizer.content(i), bytes) and len(c) == 1]
    rows = [[rng.choice(bytes_) if rng.random() < 0.5 else rng.randrange(tokenizer.vocab_size) for _ in range(rng.randrange(30))]
            for _ in range(count)]
    for row in rows[::5]:
        row.insert(rng.randrange(len(row) + 1), rng.choice([tokenizer.bos_id, tokenizer.eos_id]))
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_three_thousand_texts_one_id_at_a_time(make, kind):
    tokenizer, lost = make(kind), False
    for text in random_texts(3000):
        ids = tokenizer.encode(text)
        whole = tokenizer.decode(ids)
        assert one_by_one(tokenizer, ids) == one_by_one(tokenizer, ids, [tokenizer.bos_id]) == whole
        lost |= whole != text.replace(SPACE, " ")
    assert lost == (kind in LOSSY)


@pytest.mark.parametrize("kind", KINDS)
def test_any_ids_one_at_a_time_and_after_any_prompt(make, kind):
    """Among the ids are bytes that are not UTF-8, control tokens inside a text, and ids outside the vocabulary."""
    tokenizer = make(kind)
    for number, ids in enumerate(random_ids(tokenizer, 1500)):
        whole = tokenizer.decode(ids)
        assert one_by_one(tokenizer, ids) == whole
        assert one_by_one(tokenizer, [-1, *ids, tokenizer.vocab_size, 10**9]) == whole
        prompt = ids[: number % 9]
        given = IncrementalDecoder(tokenizer).push(prompt)
        assert given + one_by_one(tokenizer, ids[len(prompt) :], prompt) == whole


@pytest.mark.parametrize("kind", [*SPM, "real"])
def test_any_ids_as_sentencepiece_reads_them(make, kind):
    tokenizer = make(kind)
    for ids in random_ids(tokenizer, 3000):
        assert tokenizer.decode(ids) == tokenizer._processor.DecodeIds(ids)


def test_any_ids_as_tokenizers_reads_bytes(make):
    tokenizer = make("byte level")
    for ids in random_ids(tokenizer, 3000):
        assert tokenizer.decode(ids) == tokenizer._tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", FALLBACKS)
def test_texts_as_tokenizers_reads_them(make, kind):
    """The library is right for whole texts, and for pieces in any order that do not stand for bytes."""
    tokenizer, rng = make(kind), random.Random(2)
    plain = [i for i in range(tokenizer.vocab_size) if isinstance(tokenizer.content(i), str | None)]
    spaces = [i for i in plain if set(tokenizer._tokenizer.id_to_token(i)) == {SPACE}]
    rows = [tokenizer.encode(text) for text in random_texts(1000)]
    rows += [rng.choices(spaces, k=rng.randrange(3)) + rng.choices(plain, k=rng.randrange(9)) for _ in range(2000)]
    for ids in rows:
        assert tokenizer.decode(ids) == tokenizer._tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["spm", *FALLBACKS, "tiktoken", "byte level"])
@pytest.mark.parametrize("text", ["龘靐齉爩龘靐齉爩", "ሰላም እንደምን ዋላችሁ", "ພາສາລາວ ગુજરાતી", "\U0001f99d" * 9,
                                  "a\ufffdb\ufffd\ufffd", "\ufffd" * 20, "x\u200d\U0001f468\u200d\U0001f469"])
def test_an_end_inside_a_character_spoils_that_alone(make, kind, text):
    tokenizer = make(kind)
    ids = tokenizer.encode(text)
    for count in range(len(ids) + 1):
        got = one_by_one(tokenizer, ids[:count])
        kept = got.rstrip("\ufffd")
        assert got == tokenizer.decode(ids[:count]) and text.startswith(kept)
        # less than one character is missing where bytes of one are left over
        left = ids[:count][len(tokenizer.encode(kept)) if kept else 0 :]
        assert "\ufffd" in text or not got.endswith("\ufffd") or len(left) <= 4
    assert got == text


def test_two_kinds_of_file_give_one_text(make):
    """Two files of one tokenizer agree on whole texts and on texts that end inside a character."""
    spm, json = make("spm"), make("fallback prepend")
    for number, text in enumerate(random_texts(1000)):
        ids = spm.encode(text)
        assert json.encode(text) == ids
        ids = ids[: max(0, len(ids) - number % 4)]
        assert json.decode(ids) == spm.decode(ids)


def test_the_two_files_of_the_shared_data_give_one_text(shared_data):
    """A byte-fallback tokenizer.json and the tokenizer.model that it was made from."""
    json, spm = (load_tokenizer(shared_data / "faults/bytefallback" / name) for name in ("tokenizer.json", "tokenizer.model"))
    for text in ("龘靐齉爩", "饕餮盛宴，琳琅满目", "ሰላም እንደምን", "\U0001f99d" * 6):
        ids = spm.encode(text)
        assert json.encode(text) == ids and spm.decode(ids) == text
        for count in range(len(ids) + 1):
            texts = {one_by_one(tokenizer, ids[:count], [1]) for tokenizer in (json, spm)}
            assert texts == {json.decode(ids[:count])} and text.startswith(texts.pop().rstrip("\ufffd"))


def test_files_with_other_decoders():
    """Read piece by piece, as the library would, which knows more than one side of a piece only at its end."""
    pieces = ["</s>", "un", "##able", "able", "don", "'", "t", ".", "to</w>", "be</w>", "t</w>"]
    vocab = {piece: n for n, piece in enumerate(pieces)}
    made = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    rng = random.Random(3)
    for decoder in (None, decoders.WordPiece(prefix="##", cleanup=True), decoders.BPEDecoder(suffix="</w>"), decoders.Fuse()):
        if decoder:
            made.decoder = decoder
        tokenizer = TokenizerJson(made.to_str().encode(), RULES)
        for _ in range(300):
            ids = rng.choices(range(1, len(vocab)), k=rng.randrange(8))
            assert one_by_one(tokenizer, ids) == tokenizer.decode(ids)
            assert tokenizer.decode(ids).rstrip() == made.decode(ids).rstrip()


@pytest.mark.parametrize("kind", ["spm", "fallback prepend", "tiktoken"])
def test_the_work_per_id_does_not_grow(make, kind):
    """Twenty times the ids take less than sixty times the time, one id at a time and with a character that never ends."""
    tokenizer = make(kind)
    [byte] = [i for i in range(tokenizer.vocab_size) if tokenizer.content(i) == b"\xe2"]
    for some in (tokenizer.encode("龘靐 words "), [byte]):
        seconds = []
        for count in (2_000, 40_000):
            ids = (some * count)[:count]
            begin = time.perf_counter()
            one_by_one(tokenizer, ids)
            seconds.append(time.perf_counter() - begin)
        assert seconds[1] < 60 * seconds[0] + 0.5
