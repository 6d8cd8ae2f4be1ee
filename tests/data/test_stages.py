"""Stages and limits of epochs: a mixture does what a plain simulation of one row after the other does, with stops or without."""

import json
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_jax.config.fields import from_dict, to_dict
from llama_jax.config.mixture import EpochLimit, MixtureStage
from llama_jax.data.mixture import Mixture
from llama_jax.data.position import DataPosition
from llama_jax.data.segments import CountedRows, first_row_of, integer_shares, plan_segments, split_rows
from llama_jax.data.windows import TokenSource

PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def recorded(position: DataPosition) -> DataPosition:
    """A position after its way through the JSON of a checkpoint."""
    return from_dict(DataPosition, json.loads(json.dumps(to_dict(position))))


def limits_of(epochs: tuple[float, ...]) -> list[EpochLimit]:
    """A limit per source."""
    return [EpochLimit(number, "data.source_max_epochs") for number in epochs]


def simulated(windows: list[int], stages: list[MixtureStage], *, T: int, max_epochs: tuple[float, ...], action: str,
              rows: int) -> list[int]:
    """The source of each row, one after the other, of sources with so many windows an epoch; it ends where there is no row.

    Rows are divided by the shares in force. The division begins anew where they change. A stage begins early where the sources of
    the one before may not be read any more.
    """
    limits = [Fraction(str(epochs)) if epochs else math.inf for epochs in max_epochs]
    read, result, in_force, divided = [0] * len(windows), [], None, 0
    while len(result) < rows:
        full = [Fraction(count + 1, size) > limit for count, size, limit in zip(read, windows, limits, strict=True)]
        for shares in shares_from(len(result) * T, stages[0].shares, stages[1:]):
            weights = integer_shares(shares)
            if action == "reweigh":
                weights = [0 if out else weight for weight, out in zip(weights, full, strict=True)]
            if any(weights):
                break
        else:
            return result
        divided = divided if weights == in_force else 0
        in_force = weights
        before, after = split_rows(divided, weights), split_rows(divided + 1, weights)
        source = next(n for n in range(len(windows)) if after[n] > before[n])
        if action == "stop" and full[source]:
            return result
        divided += 1
        read[source] += 1
        result.append(source)
    return result


SHARES = st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])] * 3).filter(any)
STAGES = st.lists(st.tuples(st.integers(1, 400), SHARES), max_size=3, unique_by=lambda stage: stage[0]).map(
    lambda stages: [MixtureStage(*stage) for stage in sorted(stages)])
LIMITS = st.tuples(*[st.sampled_from([0.0, 0.3, 1.0, 1.5, 2.1, 4.0])] * 3)
ACTIONS = st.sampled_from(["stop", "warn", "reweigh"])


@pytest.fixture
def folders(folder_of) -> list:
    """Three sources of 10, 23 and 4 windows of 5 tokens."""
    return [folder_of(name, [[token] * 3] * count, starts=True)
            for name, token, count in (("a", 3, 10), ("b", 4, 23), ("c", 5, 4))]


@given(shares=SHARES, stages=STAGES, max_epochs=LIMITS, action=ACTIONS, T=st.sampled_from([2, 5, 8]),
       stops=st.lists(st.integers(0, 50), max_size=4))
@settings(PROPERTY, max_examples=60)
def test_rows_are_those_of_a_simulation_with_stops_or_without(folders, shares, stages, max_epochs, action, T, stops):
    sources = [TokenSource(folder, T) for folder in folders]
    rules = {"seed": 1, "stages": stages, "max_epochs": limits_of(max_epochs), "on_max_epochs": action}
    whole = Mixture(sources, shares, **rules)
    expected = simulated(list(map(len, sources)), [MixtureStage(0, shares), *stages], T=T, max_epochs=max_epochs, action=action,
                         rows=150)
    assert whole.rows == len(expected) if len(expected) < 150 else whole.rows is None or whole.rows >= 150
    assert [whole[n].source for n in range(len(expected))] == expected
    if len(expected) < 150:
        with pytest.raises(IndexError):
            whole[len(expected)]

    position, at = DataPosition(), 0
    for rows in [*stops, 150]:
        part = Mixture(sources, shares, position=position, **rules)
        rows = min(rows, len(expected) - at)
        assert [part[n].window for n in range(rows)] == [whole[at + n].window for n in range(rows)]
        assert [part[n].source for n in range(rows)] == expected[at : at + rows]
        at, position = at + rows, recorded(part.position(rows))
        assert position == whole.position(at)


LEG = st.tuples(st.sampled_from([2, 5, 8]), st.integers(0, 40), SHARES, STAGES, LIMITS, st.integers(0, 1))


@given(legs=st.lists(LEG, min_size=2, max_size=4))
@settings(PROPERTY, max_examples=50)
def test_limits_and_stages_hold_over_resumes_with_other_rows(folders, legs):
    """Every session has another T, mixture, limit and seed: no source is read beyond a limit, a stage begins at its token."""
    position = DataPosition()
    for T, rows, shares, stages, max_epochs, seed in legs:
        sources = [TokenSource(folder, T) for folder in folders]
        mixture = Mixture(sources, shares, seed=seed, position=position, stages=stages, max_epochs=limits_of(max_epochs),
                          on_max_epochs="reweigh")
        rows = rows if mixture.rows is None else min(rows, mixture.rows)
        read = Counter()
        for n in range(rows):
            in_force = next(shares for shares in shares_from(position.tokens + n * T, shares, stages)
                            if any(share and read[number] < most for number, (share, most)
                                   in enumerate(zip(shares, mixture._rows_left, strict=True))))
            assert in_force[mixture[n].source] > 0
            read[mixture[n].source] += 1
        before, position = position, recorded(mixture.position(rows))
        assert position.tokens == before.tokens + rows * T
        epochs = {p.name: p.epochs for p in before.sources}
        for number, source in enumerate(sources):
            after = next(p.epochs for p in position.sources if p.name == source.name)
            limit = max_epochs[number]
            assert not limit or after <= max(limit, epochs.get(source.name, 0.0)) + 1e-12
            if rows == mixture.rows and any(shares[number] for shares in shares_from(position.tokens, shares, stages)):
                assert mixture._readers[number].rows_within(Fraction(str(limit))) == read[number], "all it may be read"


def shares_from(tokens: int, shares: tuple, stages: list[MixtureStage]) -> list[tuple]:
    """The shares in force once so many tokens are read, and those of the stages after."""
    begun = sum(stage.begin <= tokens for stage in stages)
    return [shares, *(stage.shares for stage in stages)][begun:]


@pytest.mark.parametrize("T, first", [(4, 25), (8, 13), (3, 34)])
def test_a_stage_begins_with_the_first_whole_row_after_its_token(folders, T, first):
    """100 tokens are 25 rows of 4, 12.5 of 8 and 33.3 of 3."""
    sources = [TokenSource(folder, T) for folder in folders]
    mixture = Mixture(sources, [1, 0, 0], seed=0, stages=[MixtureStage(100, (0, 1, 0))])
    assert [mixture[n].source for n in range(60)] == [0] * first + [1] * (60 - first)
    assert mixture.notes() == [(first, "another stage of the mixture begins: b 100.0% (data.stages)")]
    for stop in (first - 1, first, first + 1):  # and no step later where it is resumed with other rows
        part = Mixture([TokenSource(folder, 2) for folder in folders], [1, 0, 0], seed=0, stages=[MixtureStage(100, (0, 1, 0))],
                       position=mixture.position(stop))
        left = max(100 - stop * T, 0)
        assert [part[n].source for n in range(9)] == [0] * -(-left // 2) + [1] * (9 - -(-left // 2))


def test_reweighing_shares_the_part_of_a_source_in_proportion(folders):
    """c, 4 windows, is read twice by row 20; then a and b have its part, as 3 to 1. Then a is read twice, and b alone is left."""
    sources = [TokenSource(folder, 5) for folder in folders]
    assert list(map(len, sources)) == [10, 23, 4]
    mixture = Mixture(sources, [0.45, 0.15, 0.4], seed=0, max_epochs=2, on_max_epochs="reweigh")
    rows = [mixture[n].source for n in range(mixture.rows)]
    assert Counter(rows) == {0: 20, 1: 46, 2: 8}
    end_of_c, end_of_a = (max(n for n, source in enumerate(rows) if source == number) + 1 for number in (2, 0))
    assert 17 <= end_of_c <= 21 and [row for row, _ in mixture.notes()] == [end_of_c, end_of_a]
    assert mixture.shares(end_of_c - 1) == pytest.approx([0.45, 0.15, 0.4])
    assert mixture.shares(end_of_c) == mixture.shares(end_of_a - 1) == pytest.approx([0.75, 0.25, 0.0])
    assert mixture.shares(end_of_a) == [0, 1, 0]
    between = Counter(rows[end_of_c:end_of_a])
    assert abs(between[0] - 0.75 * between.total()) <= 1


def test_what_the_log_says(folders):
    sources = [TokenSource(folder, 5) for folder in folders]
    rules = {"seed": 0, "max_epochs": 2.0}
    stopped = Mixture(sources, [0.2, 0.2, 0.6], **rules)
    assert stopped.end_reason() == "c would pass data.max_epochs 2"
    rows = [stopped[n].source for n in range(stopped.rows)]
    assert rows.count(2) == 8 and stopped.notes() == []
    assert (stopped.steps(100, batch_size=4), stopped.steps(2, batch_size=4)) == (len(rows) // 4, 2)
    warned = Mixture(sources, [0.2, 0.2, 0.6], on_max_epochs="warn", **rules)
    assert warned.rows is None and warned.end_reason() == "" and warned.steps(100, batch_size=4) == 100
    assert (stopped.rows, "c passes data.max_epochs 2") == warned.notes()[0]
    assert [sentence.partition(" ")[0] for _, sentence in warned.notes()] == ["c", "a", "b"]
    left = Mixture(sources, [0.2, 0.2, 0.6], on_max_epochs="reweigh", **rules)
    row, sentence = left.notes()[0]
    assert sentence == "c has reached data.max_epochs 2 and is left out; the mixture is now a 50.0%, b 50.0%"
    assert [left[n].source for n in range(row)].count(2) == 8 and left[row - 1].source == 2
    assert left.end_reason() == "every source of the mixture has reached data.max_epochs 2"
    nothing = Mixture(sources, [0, 0, 1], seed=0, max_epochs=1.0, position=stopped.position(stopped.rows))
    assert (nothing.rows, nothing.end_reason()) == (0, "c would pass data.max_epochs 1")


def test_a_limit_per_source_and_a_recount(folders):
    """a may be read once (10 rows), b has no limit, c 2.25 times (9 rows): all rows are counted again one by one."""
    sources = [TokenSource(folder, 5) for folder in folders]
    limits = [EpochLimit(1.0, "data.max_epochs"), EpochLimit(0.0, "data.source_max_epochs"),
              EpochLimit(2.25, "data.source_max_epochs")]
    left = Mixture(sources, [0.45, 0.15, 0.4], seed=0, max_epochs=limits, on_max_epochs="reweigh")
    assert left.rows is None and left.end_reason() == "" and left.limit_options == "data.max_epochs or data.source_max_epochs"
    read = Counter(left[n].source for n in range(200))
    assert read == {0: 10, 1: 181, 2: 9}
    ledger = left.ledger(200)
    assert [ledger[name].epochs for name in "abc"] == [1.0, pytest.approx(181 / 23), 2.25]
    assert [sentence.partition(" and")[0] for _, sentence in left.notes()] == [
        "a has reached data.max_epochs 1", "c has reached data.source_max_epochs 2.25"]
    stopped = Mixture(sources, [0.05, 0.15, 0.8], seed=0, max_epochs=limits)
    assert Counter(stopped[n].source for n in range(stopped.rows))[2] == 9
    assert stopped.end_reason() == "c would pass data.source_max_epochs 2.25"


def test_a_stage_begins_early_where_nothing_is_left_of_the_one_before(folders):
    """c alone is read until row 100, and may be read twice, 8 rows; b of the next stage, no limit, follows at once."""
    sources = [TokenSource(folder, 5) for folder in folders]
    limits = limits_of((0.0, 0.0, 2.0))
    rules = {"seed": 0, "stages": [MixtureStage(500, (0, 1, 1)), MixtureStage(1000, (1, 0, 0))], "max_epochs": limits,
             "on_max_epochs": "reweigh"}
    mixture = Mixture(sources, [0, 0, 1], **rules)
    assert mixture.rows is None
    assert [mixture[n].source for n in range(250)] == [2] * 8 + [1] * 192 + [0] * 50
    assert mixture.notes() == [
        (8, "another stage of the mixture begins, early, because no source of the one before may be read any more: b 50.0%, "
            "c 50.0% (data.stages)"),
        (8, "c has reached data.source_max_epochs 2 and is left out; the mixture is now b 100.0%"),
        (200, "another stage of the mixture begins: a 100.0% (data.stages)")]
    resumed = Mixture(sources, [0, 0, 1], position=recorded(mixture.position(20)), **rules)
    assert [resumed[n].window for n in range(200)] == [mixture[n + 20].window for n in range(200)]
    assert resumed.notes()[1:] == [(180, "another stage of the mixture begins: a 100.0% (data.stages)")]


def test_an_unstaged_mixture_counts_on_where_a_later_stage_is_added(folders):
    """Sessions that only add a later stage to the config read the rows they would have read."""
    sources = [TokenSource(folder, 5) for folder in folders]
    plain = Mixture(sources, [0.5, 0.3, 0.2], seed=0)
    staged = Mixture(sources, [0.5, 0.3, 0.2], seed=0, position=plain.position(17), stages=[MixtureStage(200, (0, 0, 1))])
    assert [staged[n] for n in range(23)] == [plain[n + 17]._replace(index=staged[n].index) for n in range(23)]
    assert staged[23].source == 2


WEIGHTS = st.lists(st.one_of(st.just(0.0), st.floats(1e-9, 1e6)), min_size=1, max_size=6).filter(any)


@given(shares=WEIGHTS, rows=st.integers(0, 10**15))
def test_no_row_comes_from_a_source_without_share(shares, rows):
    counts, weights = split_rows(rows, integer_shares(shares)), integer_shares(shares)
    assert sum(counts) == rows and all(count == 0 for count, share in zip(counts, shares, strict=True) if not share)
    assert all((weight > 0) == (share > 0) for weight, share in zip(weights, shares, strict=True))


@given(shares=WEIGHTS, index=st.integers(0, 10**7), source=st.integers(0, 5), counted=st.integers(0, 1000))
def test_the_row_of_a_source(shares, index, source, counted):
    """The row that `first_row_of` finds is the one with so many rows of the source before it."""
    source, weights = source % len(shares), tuple(integer_shares(shares))
    segments, rows = plan_segments([(0, weights)], [math.inf] * len(shares), counted=CountedRows(weights, counted))
    assert rows is None and len(segments) == 1
    row = first_row_of(segments, source, index=index)
    if not weights[source]:
        assert row is None
        return
    assert segments[0].counts(row)[source] == index and segments[0].counts(row + 1)[source] == index + 1
    assert np.array_equal(segments[0].counts(0), [0] * len(shares))
