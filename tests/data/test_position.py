"""A resumed run with other rows reads what it has not read: no prediction twice, none skipped, and the counts are right."""

import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_jax.config import MeshConfig
from llama_jax.config.fields import from_dict, to_dict
from llama_jax.data.loader import load_batches
from llama_jax.data.mixture import Mixture
from llama_jax.data.order import EpochOrder, SpanSet
from llama_jax.data.permutation import first_permuted, permutation_keys, permuted
from llama_jax.data.position import DataPosition, EpochCut
from llama_jax.data.windows import TokenSource
from llama_jax.errors import DataError
from llama_jax.parallel.mesh import make_mesh

PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def recorded(position: DataPosition) -> DataPosition:
    """A position after its way through the JSON of a checkpoint."""
    return from_dict(DataPosition, json.loads(json.dumps(to_dict(position))))


def read_rows(mixture: Mixture, rows: int) -> Counter:
    """How often each prediction (source, token before, token) was read by `rows` rows; each row is checked on the way."""
    seen = Counter()
    for n in range(rows):
        source, row = mixture.sources[mixture[n].source], mixture.row(n)
        assert len(row.tokens) == source.sequence_length
        for before, token, predicted in zip(row.tokens.tolist(), row.targets.tolist(), row.predicted, strict=True):
            seen[source.folder.name, before, token] += bool(predicted)
        follows = row.tokens[1:] == row.targets[:-1]
        assert (follows | row.starts[1:]).all(), "what does not follow the token before begins a segment"
    return +seen


def all_predictions(source: TokenSource) -> Counter:
    """Every prediction of a source once."""
    tokens, starts = source.read(0, source.manifest.tokens)
    pairs = zip(tokens[:-1].tolist(), tokens[1:].tolist(), starts[1:], strict=True)
    return Counter((source.folder.name, before, token) for before, token, start in pairs if not start)


@pytest.fixture
def unlike(folder_of) -> Callable[..., list[Path]]:
    """Folders in which no token but BOS and EOS comes twice, so that each prediction is known by its two tokens."""

    def make(*lengths: int) -> list[Path]:
        folders = []
        for number, length in enumerate(lengths):
            ids = list(range(3, 3 + length))
            cuts = [0, *range(1, length, 11), length]
            documents = [ids[a:b] for a, b in itertools.pairwise(cuts)]
            folders.append(folder_of(f"s{number}", documents, 3, starts=True))
        return folders

    return make


LEG = st.tuples(
    st.integers(2, 17),  # T
    st.integers(1, 7),  # batch size
    st.integers(0, 9),  # steps
    st.lists(st.sampled_from([1.0, 0.25, 3.0]), min_size=3, max_size=3),  # shares
    st.permutations([0, 1, 2]), st.integers(1, 3),  # the order of the sources, and how many of them
    st.integers(0, 2),  # seed
)


@given(legs=st.lists(LEG, min_size=1, max_size=6))
@settings(PROPERTY, max_examples=60)
def test_nothing_is_read_twice_and_nothing_left_out_whatever_changes(unlike, legs):
    folders = unlike(40, 90, 23)
    position, seen, tokens = DataPosition(), Counter(), 0
    for T, batch, steps, shares, order, count, seed in legs:
        sources = [TokenSource(folders[number], T) for number in order[:count]]
        mixture = Mixture(sources, shares[:count], seed=seed, position=position)
        rows = batch * steps
        seen += read_rows(mixture, rows)
        before, position = position, recorded(mixture.position(rows))
        tokens += rows * T
        assert position.tokens == tokens == sum(read.tokens for read in mixture.ledger(rows).values())
        gained = {p.name: p.tokens - sum(b.tokens for b in before.sources if b.name == p.name) for p in position.sources}
        for source in sources:
            share = shares[list(order).index(int(source.folder.name[1:]))] / sum(shares[:count])
            assert abs(gained[source.folder.name] - share * rows * T) < (count + 1) * T
    for folder in folders:
        check_counts(TokenSource(folder, 8), position, seen)


def check_counts(source: TokenSource, position: DataPosition, seen: Counter) -> None:
    """Check that each prediction was read once in every finished epoch, and at most once in the epoch under way."""
    every = all_predictions(source)
    counts = [seen[key] for key in every]
    progress = {p.name: p for p in position.sources}.get(source.folder.name)
    epoch = progress.epoch if progress else 0
    assert set(counts) <= {epoch, epoch + 1}
    if progress:
        share = sum(counts) / len(counts) - epoch
        windows = sum(cut.windows for cut in progress.cuts)
        assert abs(progress.epochs - epoch - share) < (20 * (len(progress.cuts) + 1)) / source.predictions
        assert bool(progress.cuts) == (windows > 0)
        # the rest of the epoch, read to its end, is what is missing, and the whole of it
        alone = Mixture([source], [1.0], seed=9, position=position)
        rows = next(n for n in range(999) if alone.position(n).sources[0].epoch > epoch) if progress.cuts else 0
        seen = seen + read_rows(alone, rows)
    assert {seen[key] for key in every} == {epoch + bool(progress and progress.cuts)}


@given(stops=st.lists(st.integers(0, 40), max_size=6), T=st.integers(2, 9), seed=st.integers(0, 3))
@PROPERTY
def test_a_run_that_changes_nothing_reads_what_it_would_have_read(unlike, stops, T, seed):
    sources = [TokenSource(folder, T) for folder in unlike(40, 90)]
    whole, position, at = Mixture(sources, [0.7, 0.3], seed=seed), DataPosition(), 0
    for rows in [*stops, 30]:
        part = Mixture(sources, [0.7, 0.3], seed=seed, position=position)
        for n in range(rows):
            for one, other in zip(part.row(n), whole.row(at + n), strict=True):
                np.testing.assert_array_equal(one, other)
        at, position = at + rows, recorded(part.position(rows))
        assert position == whole.position(at)


def test_batches_are_what_they_were_before_positions_were_recorded(folder_of):
    """The hash is that of all five fields of the batches of an earlier version."""
    a = folder_of("a", [[n % 90 + 3] * (n % 7) for n in range(40)], 9)
    b = folder_of("b", [[n + 3] * 9 for n in range(20)])
    mixture = Mixture([TokenSource(a, 5), TokenSource(b, 5)], [0.7, 0.3], seed=5)
    hashed = hashlib.sha256()
    for batch in load_batches(mixture, make_mesh(MeshConfig(), jax.devices()[:1]), batch_size=7, start=0, stop=40):
        for field in batch:
            hashed.update(np.asarray(field).tobytes() + str(field.dtype).encode())
    assert hashed.hexdigest() == "23c16cf6ea5f51b375ce11d76bc74281e662f5f751658db71349c573eb03e0d5"


@pytest.fixture
def docs_and_b(unlike) -> tuple[Path, Path]:
    return tuple(unlike(40_000, 9_000))


def after(sources: list[TokenSource], shares: list[float], position: DataPosition, steps: int, batch: int) -> DataPosition:
    return recorded(Mixture(sources, shares, seed=0, position=position).position(steps * batch))


def test_another_batch_size(docs_and_b):
    """20 steps of 16 rows, then rows of the same length in batches of 8."""
    sources = [TokenSource(docs_and_b[0], 64)]
    first = after(sources, [1.0], DataPosition(), 20, 16)
    assert [after(sources, [1.0], first, steps, 8).tokens for steps in (0, 10, 20)] == [20_480, 25_600, 30_720]
    one = [Mixture(sources, [1.0], seed=0)[n].window for n in range(480)]
    two = [Mixture(sources, [1.0], seed=0, position=first)[n].window for n in range(160)]
    assert one[320:] == two and len(set(one)) == 480


def test_another_length(docs_and_b):
    """The rows that follow are cut from the unread text, and are as contiguous as it allows."""
    wide, narrow = TokenSource(docs_and_b[0], 64), TokenSource(docs_and_b[0], 16)
    first = after([narrow], [1.0], DataPosition(), 20, 16)
    mixture = Mixture([wide], [1.0], seed=0, position=first)
    assert first.sources[0].cuts == (EpochCut(16, 0, 320),)
    seen = read_rows(Mixture([narrow], [1.0], seed=0), 320) + read_rows(mixture, 240)
    assert set(seen.values()) == {1}
    spans = [len(mixture._readers[0].spans(n)) for n in range(240)]
    assert spans.count(1) > 60 and max(spans) <= 5  # 12% of the windows are gone: of 4 neighbours in 6 of 10 rows one
    assert after([wide], [1.0], first, 10, 24).tokens == 320 * 16 + 240 * 64


def test_another_mixture(docs_and_b):
    """20 steps of one source, then 10 of two sources in equal shares: the second begins, and the first continues."""
    docs, b = (TokenSource(folder, 64) for folder in docs_and_b)
    docs.name, b.name = "docs", "b"
    first = after([docs], [1.0], DataPosition(), 20, 16)
    mixture = Mixture([docs, b], [0.5, 0.5], seed=0, position=first)
    assert {name: seen.tokens for name, seen in mixture.ledger(160).items()} == {"docs": 25_600, "b": 5_120}
    assert mixture.ledger(160)["docs"].epochs == pytest.approx(400 / len(docs))
    seen = read_rows(Mixture([docs], [1.0], seed=0), 320) + read_rows(mixture, 160)
    assert set(seen.values()) == {1}
    alone = Mixture([b], [1.0], seed=0, position=recorded(mixture.position(160)))
    assert {name: seen.tokens for name, seen in alone.ledger(10).items()} == {"b": 5_760, "docs": 25_600}
    back = Mixture([b, docs], [0.5, 0.5], seed=0, position=recorded(alone.position(10)))  # docs was left out and comes back
    seen += read_rows(alone, 10) + read_rows(back, 20)
    assert set(seen.values()) == {1}


def test_another_seed_orders_what_is_left_anew(docs_and_b):
    source = TokenSource(docs_and_b[1], 64)
    first = after([source], [1.0], DataPosition(), 5, 16)
    same, other = (Mixture([source], [1.0], seed=seed, position=first) for seed in (0, 1))
    rest = len(source) - 80
    one, two = read_rows(same, rest), read_rows(other, rest)
    assert one == two, "the rest of the epoch"
    orders = [[tuple(mixture.row(n).tokens) for n in range(rest)] for mixture in (same, other)]
    assert orders[0] != orders[1]


@pytest.mark.parametrize("a_shard, starts", [(3, True), (500, True), (500, False)])
def test_other_shards_and_another_version_make_no_other_source(folder_of, a_shard, starts):
    documents = [[n % 90 + 3] * (n % 50) for n in range(800)]
    one, other = folder_of("one", documents, 40, starts=True), folder_of("other", documents, a_shard, starts=starts)
    assert TokenSource(one, 64).digest == TokenSource(other, 8).digest
    documents[400] = [*documents[400][::-1], 5]
    assert TokenSource(one, 64).digest != TokenSource(folder_of("other", documents, a_shard, starts=starts), 64).digest


def test_a_source_is_known_by_its_tokens(docs_and_b, tmp_path):
    """A source that was moved and renamed is continued; a copy beside it is another source."""
    source = TokenSource(docs_and_b[1], 64)
    first = after([source], [1.0], DataPosition(), 5, 16)
    shutil.copytree(docs_and_b[1], tmp_path / "moved")
    moved = TokenSource(tmp_path / "moved", 64)
    assert moved.digest == source.digest != TokenSource(docs_and_b[0], 64).digest
    assert after([moved], [1.0], first, 5, 16).sources[0].tokens == 10_240
    both = Mixture([moved, source], [0.5, 0.5], seed=0, position=first)
    assert [(reader.progress.name, reader.progress.tokens) for reader in both._readers] == [("moved", 0), ("s1", 5_120)]


def test_other_tokens_in_the_same_folder_are_refused(docs_and_b, folder_of):
    source = TokenSource(docs_and_b[1], 64)
    first = after([source], [1.0], DataPosition(), 5, 16)
    folder_of("s1", [list(range(3, 9003))[::-1]], starts=True)
    with pytest.raises(DataError, match=r"s1 holds other tokens than those this run has read; put them in another folder.*"
                                        r"or use another --workdir"):
        Mixture([TokenSource(docs_and_b[1], 64)], [1.0], seed=0, position=first)


def test_another_source_of_the_same_name_gets_a_name_of_its_own(docs_and_b, tmp_path):
    first = after([TokenSource(docs_and_b[1], 64)], [1.0], DataPosition(), 5, 16)
    (tmp_path / "other").mkdir()
    shutil.copytree(docs_and_b[0], tmp_path / "other/s1")
    ledger = Mixture([TokenSource(tmp_path / "other/s1", 64)], [1.0], seed=0, position=first).ledger(10)
    assert {name: seen.tokens for name, seen in ledger.items()} == {"s1-2": 640, "s1": 5_120}


def test_shares_hold_over_stops_where_the_mixture_stays(unlike):
    """Shares hold in a run that stops after every row: they are not rounded at each stop."""
    sources, position = [TokenSource(folder, 4) for folder in unlike(40, 90)], DataPosition()
    for _ in range(100):
        position = Mixture(sources, [0.97, 0.03], seed=0, position=position).position(1)
    assert position == Mixture(sources, [0.97, 0.03], seed=0).position(100)
    assert position.sources[1].tokens in (2 * 4, 3 * 4, 4 * 4)


RUNS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=8)
"""(gap before, length)."""


@given(runs=RUNS, length=st.integers(1, 20), share=st.floats(0, 1), seed=st.integers(0, 99))
@PROPERTY
def test_what_is_read_and_the_rest_are_the_whole(runs, length, share, seed):
    edges = np.cumsum(np.array(runs).reshape(-1))
    begins, ends = edges[::2], edges[1::2]
    order = EpochOrder(SpanSet(begins, np.append([0], np.cumsum(ends - begins))), length, keys=permutation_keys(seed))
    count = min(int(share * len(order)), len(order) - 1)
    whole = [at for a, b in zip(begins, ends, strict=True) for at in range(a, b)]
    read = [at for place in range(count) for a, b in order.spans(place) for at in range(a, b)]
    rest = order.rest(count)
    spans = rest.spans(0, int(rest.offsets[-1]))
    left = [at for a, b in spans for at in range(a, b)]
    assert sorted(read + left) == whole and left == sorted(left)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans)), "neighbours are joined"
    everything = [at for place in range(len(order)) for a, b in order.spans(place) for at in range(a, b)]
    assert sorted(everything) == whole


@given(size=st.integers(1, 10**12), seed=st.integers(0, 2**32))
@PROPERTY
def test_many_places_at_one_time_are_as_one_by_one(size, seed):
    keys, count = permutation_keys(seed), min(size, 300)
    found = np.concatenate([*first_permuted(count, size, keys=keys)])
    assert found.dtype == np.int64 and found.tolist() == [permuted(place, size, keys=keys) for place in range(count)]


def test_chunks_of_places_follow_each_other():
    keys, size = permutation_keys(3), 70_000
    parts = list(first_permuted(size, size, keys=keys))
    assert len(parts) == 2 and sorted(np.concatenate(parts).tolist()) == list(range(size))
    assert parts[1][0] == permuted(len(parts[0]), size, keys=keys)


def test_a_long_epoch_goes_on_within_a_second(folder_of):
    """Resuming after half of a stream of 10^9 predictions takes less than a second."""
    order = EpochOrder(SpanSet.whole(10**9), 1024, keys=permutation_keys(1))
    rest = order.rest(len(order) // 2)
    assert int(rest.offsets[-1]) == pytest.approx(5 * 10**8, abs=1024)


def test_progress_names_what_is_read(docs_and_b):
    source = TokenSource(docs_and_b[1], 64)
    progress = after([source], [1.0], DataPosition(), 1, len(source) + 3).sources[0]
    assert (progress.epoch, progress.cuts) == (1, (EpochCut(64, 0, 3),))
    assert progress == replace(progress, path=str(docs_and_b[1].resolve()), key=0, tokens=(len(source) + 3) * 64)
