"""The ledger of a mixture is what a recount of all rows gives, whatever changed on the way."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_jax.config.fields import from_dict, to_dict
from llama_jax.config.mixture import MixtureStage
from llama_jax.config.presets import paper_sources
from llama_jax.config.schema import DataConfig
from llama_jax.data.documents import DocumentCounter
from llama_jax.data.ledger import ledger_table, source_totals
from llama_jax.data.mixture import Mixture
from llama_jax.data.order import EpochOrder, SpanSet
from llama_jax.data.permutation import first_permuted, permutation_keys, permuted, place_of
from llama_jax.data.position import DataPosition
from llama_jax.data.windows import TokenSource

PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


class Recount:
    """Counts, from the shards, what every row holds."""

    def __init__(self):
        self.tokens, self.documents, self.read = Counter(), Counter(), Counter()
        self.planned: Counter = Counter()

    def add(self, mixture: Mixture, rows: int, *, planned: Callable[[int], dict[str, float]]) -> None:
        """Read the first rows of a mixture; `planned` gives each source's share at a row."""
        for n in range(rows):
            number, index, _ = mixture[n]
            source = mixture.sources[number]
            self.tokens[source.name] += len(mixture.row(n).tokens)
            for name, share in planned(n).items():
                self.planned[name] += share * source.sequence_length
            for begin, end in mixture._readers[number].spans(index):
                self.documents[source.name] += int(source.read(begin, end)[1].sum())
                self.read.update((source.name, place) for place in range(begin, end))

    def check(self, position: DataPosition) -> None:
        whole = sum(self.tokens.values())
        totals = source_totals(position)
        assert position.tokens == whole and sum(read.tokens for read in totals.values()) == whole
        for name, read in totals.items():
            again = sum(count - 1 for (source, _), count in self.read.items() if source == name)
            assert (read.tokens, read.documents, read.repeated) == (self.tokens[name], self.documents[name], again), name
            assert read.realised == self.tokens[name] / max(whole, 1)
            assert read.planned == pytest.approx(self.planned[name] / max(whole, 1), abs=1e-9)


def recorded(position: DataPosition) -> DataPosition:
    """A position after its way through the JSON of a checkpoint."""
    return from_dict(DataPosition, json.loads(json.dumps(to_dict(position))))


def uneven(lengths: list[int]) -> list[list[int]]:
    """Documents of these numbers of ids, none of which begins or ends one."""
    return [[number % 90 + 3] * length for number, length in enumerate(lengths)]


@pytest.fixture
def folders(folder_of) -> list:
    """Three sources: many short documents in several shards, long ones, and one of an earlier version."""
    rng = np.random.default_rng(0)
    return [folder_of("short", uneven(rng.integers(0, 5, 60).tolist()), 17, starts=True),
            folder_of("long", uneven(rng.integers(20, 90, 5).tolist()), 2, starts=True),
            folder_of("early", uneven(rng.integers(0, 12, 15).tolist()), 4, starts=False)]


LEG = st.tuples(
    st.integers(2, 17), st.integers(0, 60),  # T, rows
    st.lists(st.sampled_from([1.0, 0.25, 3.0]), min_size=3, max_size=3), st.permutations([0, 1, 2]), st.integers(1, 3),
    st.integers(0, 2),  # seed
)


@given(legs=st.lists(LEG, min_size=1, max_size=5))
@settings(PROPERTY, max_examples=40)
def test_the_ledger_is_a_recount_whatever_changes(folders, legs):
    position, count = DataPosition(), Recount()
    for T, rows, shares, order, sources, seed in legs:
        some = [TokenSource(folders[number], T) for number in order[:sources]]
        mixture = Mixture(some, shares[:sources], seed=seed, position=position)
        planned = {source.name: share / sum(shares[:sources]) for source, share in zip(some, shares, strict=False)}
        count.add(mixture, rows, planned=lambda n, planned=planned: planned)
        for part in sorted({0, rows // 3, rows}):  # counted in parts and at once, forwards and back
            mixture.position(part)
        again = Mixture(some, shares[:sources], seed=seed, position=position)
        assert again.position(rows) == mixture.position(rows)
        position = recorded(mixture.position(rows))
        count.check(position)
        mixture.position(0)
        assert mixture.position(rows) == position


def test_shares_of_table_1_hold_to_half_a_point_after_200_steps(folder_of):
    """Seven small sources, 200 steps of 4 rows; then another mixture for 100 steps. Epochs and documents are a recount."""
    shares = DataConfig(paper_sources()).shares()
    rng = np.random.default_rng(1)
    folders = [folder_of(path.rpartition("/")[2], uneven(rng.integers(0, 20, 40 + 20 * n).tolist()), 30, starts=True)
               for n, (path, _) in enumerate(shares)]
    sources, count = [TokenSource(folder, 16) for folder in folders], Recount()
    first = Mixture(sources, [share for _, share in shares], seed=3)
    planned = {path.rpartition("/")[2]: share for path, share in shares}
    count.add(first, 800, planned=lambda n: planned)
    totals = first.ledger(800)
    assert [round(100 * read.planned, 6) for read in totals.values()] == [67.0, 15.0, 4.5, 4.5, 4.5, 2.5, 2.0]
    assert all(abs(read.realised - read.planned) < 0.005 for read in totals.values())
    count.check(first.position(800))
    for source, read in zip(sources, totals.values(), strict=True):
        assert read.epochs == read.tokens / 16 / len(source)
        distinct = {place for name, place in count.read if name == source.name}
        assert (read.epochs >= 1) == (len(distinct) == source.predictions)

    position = recorded(first.position(400))  # step 100: half of all rows come from the sixth source from there on
    count = Recount()
    count.add(first, 400, planned=lambda n: planned)
    later = Mixture([sources[5], sources[1]], [1, 1], seed=3, position=position)
    count.add(later, 400, planned=lambda n: {sources[5].name: 0.5, sources[1].name: 0.5})
    count.check(later.position(400))
    assert later.ledger(400)["arxiv"].planned == pytest.approx((0.025 + 0.5) / 2)
    assert all(abs(read.realised - read.planned) < 0.005 for read in later.ledger(400).values())


def test_the_plan_of_stages_is_by_the_tokens_read_in_them(folder_of):
    sources = [TokenSource(folder_of(name, uneven([30] * 40), starts=True), 8) for name in ("a", "b")]
    mixture = Mixture(sources, [1, 0], seed=0, stages=[MixtureStage(100, (1.0, 3.0)), MixtureStage(400, (0.0, 2.0))])
    position = mixture.position(100)
    assert [(part.weights, part.tokens) for part in position.planned] == [
        ((1 << 40, 0), 104), ((1 << 38, 3 << 38), 296), ((0, 1 << 40), 400)]
    totals = source_totals(position)
    assert totals["a"].planned == (104 + 296 / 4) / 800 and totals["b"].planned == (296 * 3 / 4 + 400) / 800
    assert abs(totals["a"].realised - totals["a"].planned) <= 8 / 800


@given(rows=st.tuples(st.integers(0, 90), st.integers(0, 90)), lengths=st.tuples(st.integers(2, 9), st.integers(2, 9)))
@settings(PROPERTY, max_examples=30)
def test_what_earlier_versions_recorded_is_counted_from_the_shards(folders, rows, lengths):
    """Their positions have neither documents nor repeated tokens nor plans; what they read counts as planned so."""
    position = DataPosition()
    for count, T in zip(rows, lengths, strict=True):
        position = Mixture([TokenSource(folder, T) for folder in folders], [3, 1, 1], seed=0, position=position).position(count)
    early = to_dict(position)
    for read in early["sources"]:
        del read["documents"], read["repeated"]
    del early["planned"]
    early = from_dict(DataPosition, early)
    assert {(read.documents, read.repeated) for read in source_totals(early).values()} <= {(None, None)}
    assert all(read.planned == read.realised for read in source_totals(early).values())
    gone = Mixture([TokenSource(folder, 5) for folder in folders[:2]], [1, 1], seed=0, position=early).ledger(10)
    assert gone["early"].documents is None and gone["early"].repeated is None
    mixtures = [Mixture([TokenSource(folder, 5) for folder in folders], [1, 1, 1], seed=0, position=start)
                for start in (early, position)]
    for some in (0, 20):
        assert mixtures[0].position(some).sources == mixtures[1].position(some).sources
        totals = mixtures[0].ledger(some)
        assert sum(read.planned for read in totals.values()) == pytest.approx(1 if position.tokens or some else 0)


def test_the_table(folder_of):
    """39 predictions of c4 make 4 windows, the last of 9; two epochs are read, and of the third the last window and another."""
    sources = [TokenSource(folder_of(name, uneven([38] * count), starts=True), 10)
               for name, count in (("wikipedia", 10), ("c4", 1))]
    mixture = Mixture(sources, [3, 1], seed=0)
    third = [mixture[n].window for n in range(40) if mixture[n].source == 1][8:]
    assert third == [3, 1]
    assert list(ledger_table(mixture.ledger(40))) == [
        "source     planned  realised  tokens  epochs  documents  repeated tokens",
        "wikipedia   75.00%    75.00%     300    0.75          8                0",
        "c4          25.00%    25.00%     100    2.50          2               58",
    ]
    early = replace(mixture.position(40), sources=tuple(replace(read, documents=-1, repeated=-1)
                                                        for read in mixture.position(40).sources))
    assert list(ledger_table(source_totals(early)))[2].split() == ["c4", "25.00%", "25.00%", "100", "2.50", "?", "?"]


SPANS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=8)
"""(gap before, length)."""


@given(runs=SPANS, length=st.integers(1, 20), places=st.tuples(st.floats(0, 1), st.floats(0, 1)), seed=st.integers(0, 99))
@PROPERTY
def test_documents_and_predictions_of_an_order(folders, runs, length, places, seed):
    source = TokenSource(folders[0], 4)
    edges = np.cumsum(np.array(runs).reshape(-1)) % source.predictions
    edges = np.unique(edges)[: len(np.unique(edges)) // 2 * 2]
    if not len(edges):
        return
    begins, ends = edges[::2], edges[1::2]
    order = EpochOrder(SpanSet(begins, np.append([0], np.cumsum(ends - begins))), length, keys=permutation_keys(seed))
    first, last = sorted(int(share * len(order)) for share in places)
    spans = [span for place in range(first, last) for span in order.spans(place)]
    assert DocumentCounter(source, order).count(first, last) == sum(int(source.read(a, b)[1].sum()) for a, b in spans)
    assert order.predictions(last) - order.predictions(first) == sum(b - a for a, b in spans)


@given(size=st.integers(1, 10**12), seed=st.integers(0, 2**32), place=st.floats(0, 1, exclude_max=True))
def test_the_place_of_a_number(size, seed, place):
    keys, place = permutation_keys(seed), int(place * size)
    assert place_of(permuted(place, size, keys=keys), size, keys=keys) == place
    some = np.concatenate([*first_permuted(min(5, size - place), size, keys=keys, start=place)])
    assert some.tolist() == [permuted(place + n, size, keys=keys) for n in range(len(some))]


def test_documents_before_any_places(folders):
    for folder in folders:
        source = TokenSource(folder, 4)
        starts = source.read(0, source.manifest.tokens)[1]
        places = np.random.default_rng(0).permutation(source.manifest.tokens + 1)
        expected = np.append([0], np.cumsum(starts))
        np.testing.assert_array_equal(source.documents_before(places), expected[places])
        assert source.documents_before(np.array([], np.int64)).tolist() == []
