from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reap_onnx.numerics import gram
from reap_onnx.numerics.gram import Accumulator, Normal, Rows, bytes_to_solve, join
from reap_onnx.numerics.path import Problem, RowProblem, removal_path

FIELDS = ("gram", "cross", "square", "total")


def exact(x, y, intercept):
    """The same sums, all in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if intercept:
        x = np.hstack([x, np.ones((len(x), 1))])
    return Normal(x.T @ x, x.T @ y, (y * y).sum(axis=0), y.sum(axis=0), len(x))


def gather(batches, columns, features, intercept):
    accumulator = Accumulator(columns, features, intercept)
    for x, y in batches:
        accumulator.add(x, y)
    return accumulator.result()


def assert_close(ours, theirs, relative):
    """Every sum agrees, relatively to the size of what was summed."""
    assert ours.rows == theirs.rows
    x, y = np.sqrt(np.diagonal(theirs.gram).max()), np.sqrt(theirs.square.max())
    sizes = {"gram": x * x, "cross": x * y, "square": y * y, "total": y * np.sqrt(theirs.rows)}
    for name, size in sizes.items():
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * size, err_msg=name)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 6),
    st.integers(1, 4),
    st.booleans(),
    st.lists(st.integers(0, 30), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_sums_match_float64(columns, features, intercept, sizes, seed):
    rng = np.random.default_rng(seed)
    batches = [
        (
            rng.standard_normal((n, columns)).astype(np.float32),
            rng.standard_normal((n, features)).astype(np.float32) + 3,
        )
        for n in sizes
    ]
    ours = gather(batches, columns, features, intercept)
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert_close(ours, exact(x, y, intercept), 1e-6)
    np.testing.assert_array_equal(ours.gram, ours.gram.T)


def test_more_rows_than_a_chunk_and_more_after_a_result():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 5)).astype(np.float32)
    y = rng.standard_normal((20_000, 2)).astype(np.float32)
    accumulator = Accumulator(5, 2, intercept=True)
    accumulator.add(x[:13_000], y[:13_000])
    assert_close(accumulator.result(), exact(x[:13_000], y[:13_000], True), 1e-6)
    accumulator.add(x[13_000:], y[13_000:])
    assert_close(accumulator.result(), exact(x, y, True), 1e-6)


@pytest.mark.parametrize(("columns", "rows"), [(5, 3000), (1100, 2500)])
@pytest.mark.parametrize("size", [1, 49, 1024, 2000])
def test_rows_of_batches_of_any_size_are_added_up(columns, rows, size):
    rng = np.random.default_rng(5)
    x, y = (rng.standard_normal((rows, width)).astype(np.float32) + 1 for width in (columns, 3))
    batches = [(x[start : start + size], y[start : start + size]) for start in range(0, rows, size)]
    expected = exact(x, y, True)
    assert_close(gather(batches, columns, 3, True), expected, 1e-6)
    np.testing.assert_array_equal(exact(x, y, True).gram, expected.gram)  # what was given is as it was


@pytest.mark.parametrize(
    ("columns", "size", "rows", "products"), [(5, 10, 3000, 24), (1100, 49, 3000, 3), (5, 9000, 9000, 2)]
)
def test_products_are_of_about_as_many_rows_as_columns(monkeypatch, columns, size, rows, products):
    made, add = [], gram._Sums._add_chunk
    monkeypatch.setattr(gram._Sums, "_add_chunk", lambda sums, x, y: (made.append(len(x)), add(sums, x, y)))
    zeros = np.zeros((size, columns), np.float32), np.zeros((size, 2), np.float32)
    gather([tuple(part[: rows - start] for part in zeros) for start in range(0, rows, size)], columns, 2, True)
    assert sum(made) == rows
    assert len(made) == products


def test_rows_are_kept_however_few_are_added_up_at_a_time(monkeypatch):
    monkeypatch.setattr(gram, "_CHUNK", (10, 20))
    zeros = np.zeros((5, 1100), np.float32), np.zeros((5, 2), np.float32)
    assert isinstance(gather([zeros] * 100, 1100, 2, True), Rows)
    assert isinstance(gather([zeros] * 110, 1100, 2, True), Normal)


@pytest.mark.parametrize(("rows", "columns", "features"), [(700, 300, 5), (700, 300, 600), (400, 1200, 3)])
def test_bytes_to_solve_bound_what_a_path_takes(rows, columns, features):
    rng = np.random.default_rng(8)
    x, y = (rng.standard_normal((rows, width)).astype(np.float32) for width in (columns, features))
    equations = gather([(x, y)], columns, features, False)
    units = np.arange(columns) // 4
    tracemalloc.start()
    if isinstance(equations, Rows):
        problem = RowProblem(equations.x, equations.y, units)
    else:
        problem = Problem(equations.gram, equations.cross, units)
    removal_path([problem], columns // 4, 1e-3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * bytes_to_solve(equations)
    assert peak > bytes_to_solve(equations) / 8


def test_what_waits_is_not_what_the_caller_goes_on_to_write():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((100, 5)).astype(np.float32), rng.standard_normal((100, 2)).astype(np.float32)
    expected, accumulator = exact(x, y, False), Accumulator(5, 2, intercept=False)
    accumulator.add(x, y)
    x[:], y[:] = 0, 0
    assert_close(accumulator.result(), expected, 1e-6)


def test_large_means_leave_the_covariance_intact():
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((5000, 3)) + 1000).astype(np.float32)
    y = (rng.standard_normal((5000, 2)) - 500).astype(np.float32)
    normal = gather([(x[:100], y[:100]), (x[100:], y[100:])], 3, 2, True)

    def covariance(of):
        mean = of.gram[:3, 3] / of.rows
        return of.gram[:3, :3] / of.rows - np.outer(mean, mean)

    np.testing.assert_allclose(covariance(normal), covariance(exact(x, y, True)), atol=1e-5)


def test_columns_that_are_strided_or_double_are_read_the_same():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((50, 8)).astype(np.float32), rng.standard_normal((50, 3)).astype(np.float32)
    plain = gather([(x[:, ::2].copy(), y)], 4, 3, True)
    assert_close(gather([(x[:, ::2], y.astype(np.float64))], 4, 3, True), plain, 1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_shards_merge_to_the_whole(shards, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-8, 9, (60, 4)).astype(np.float32)  # small integers: no rounding anywhere
    y = rng.integers(-8, 9, (60, 2)).astype(np.float32)
    cuts = np.sort(rng.integers(0, 61, shards - 1))
    parts = [exact(a, b, True) for a, b in zip(np.split(x, cuts), np.split(y, cuts), strict=True)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    whole = exact(x, y, True)
    assert merged.rows == whole.rows
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


def test_accumulated_shards_merge_to_the_whole():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3000, 6)).astype(np.float32) + 2
    y = rng.standard_normal((3000, 2)).astype(np.float32)
    halves = [gather([(x[s], y[s])], 6, 2, True) for s in (slice(0, 1000), slice(1000, None))]
    assert_close(halves[0].merge(halves[1]), exact(x, y, True), 1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_are_not_finite_are_refused(bad):
    x, y = np.ones((4, 2), np.float32), np.ones((4, 3), np.float32)
    broken = x.copy()
    broken[2, 1] = bad
    accumulator = Accumulator(2, 3, intercept=False)
    with pytest.raises(ValueError, match="x holds values that are not finite"):
        accumulator.add(broken, y)
    broken = y.copy()
    broken[0, 0] = bad
    with pytest.raises(ValueError, match="y holds values that are not finite"):
        accumulator.add(x, broken)
    accumulator.add(x, y)
    assert_close(accumulator.result(), exact(x, y, False), 1e-6)


def test_shapes_that_do_not_fit_are_refused():
    accumulator = Accumulator(2, 3, intercept=True)
    with pytest.raises(ValueError, match="rows of shape"):
        accumulator.add(np.ones((4, 3), np.float32), np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="rows of shape"):
        accumulator.add(np.ones((4, 2), np.float32), np.ones((5, 3), np.float32))
    with pytest.raises(ValueError, match="cannot be merged"):
        accumulator.result().merge(Accumulator(3, 3, intercept=True).result())


def test_few_rows_of_many_columns_are_kept_until_their_sums_are_smaller():
    rng = np.random.default_rng(12)
    x, y = rng.standard_normal((700, 1200)).astype(np.float32), rng.standard_normal((700, 2)).astype(np.float32)
    accumulator = Accumulator(1200, 2, True)
    accumulator.add(x[:250], y[:250])
    accumulator.add(x[250:500], y[250:500])
    few = accumulator.result()
    assert isinstance(few, Rows)
    assert_close(few.sums(), exact(x[:500], y[:500], True), 1e-12)
    accumulator.add(x[500:], y[500:])
    assert_close(accumulator.result(), exact(x, y, True), 1e-6)
    rest = gather([(x[500:], y[500:])], 1200, 2, True)
    assert isinstance(rest, Rows)
    assert_close(few.merge(rest).sums(), exact(x, y, True), 1e-12)
    assert_close(few.merge(rest.sums()), exact(x, y, True), 1e-12)
    assert_close(rest.sums().merge(few), exact(x, y, True), 1e-12)


def test_rows_are_kept_where_their_sums_do_not_fit_into_memory():
    rng = np.random.default_rng(13)
    x, y = rng.standard_normal((900, 1100)).astype(np.float32), rng.standard_normal((900, 2)).astype(np.float32)
    accumulator = Accumulator(1100, 2, True, memory=30_000_000)
    for start in range(0, 900, 100):
        accumulator.add(x[start : start + 100], y[start : start + 100])
    found = accumulator.result()
    assert isinstance(found, Rows)
    assert found.rows == 30_000_000 // (40 * 1102)
    np.testing.assert_array_equal(found.x[:, :-1], x[: found.rows])
    roomy = Accumulator(1100, 2, True, memory=60_000_000)
    roomy.add(x, y)
    assert_close(roomy.result(), exact(x, y, True), 1e-6)


def test_shards_are_joined_as_one_accumulator_would_keep_them():
    rng = np.random.default_rng(15)
    x, y = rng.standard_normal((800, 1200)).astype(np.float32), rng.standard_normal((800, 2)).astype(np.float32)
    shards = [gather([(x[s : s + 200], y[s : s + 200])], 1200, 2, True) for s in range(0, 800, 200)]
    few = join(shards[0], shards[1])
    assert isinstance(few, Rows)
    np.testing.assert_array_equal(few.y, y[:400])
    many = join(few, shards[2])
    assert isinstance(many, Normal)
    assert_close(join(many, shards[3]), exact(x, y, True), 1e-12)
    tight = join(join(shards[0], shards[1], 25_000_000), shards[2], 25_000_000)
    assert isinstance(tight, Rows)
    assert tight.rows == 25_000_000 // (40 * 1203)
    np.testing.assert_array_equal(tight.x[:, :-1], x[: tight.rows])


def test_a_wide_shard_without_rows_has_no_sums():
    """25,088 columns would be 5 GB of zeros."""
    empty = Accumulator(25_088, 10, True).result()
    assert isinstance(empty, Rows)
    assert empty.x.shape == (0, 25_089)


@pytest.mark.parametrize("rows", [1, 700])
def test_some_of_the_features(rows):
    rng = np.random.default_rng(14)
    x, y = rng.standard_normal((rows, 1100)).astype(np.float32), rng.standard_normal((rows, 5)).astype(np.float32)
    some = slice(1, 4)
    found, alone = gather([(x, y)], 1100, 5, True).of(some), gather([(x, y[:, some])], 1100, 3, True)
    assert type(found) is type(alone)
    if isinstance(found, Normal):
        assert_close(found, alone, 1e-6)
    else:
        np.testing.assert_array_equal(found.y, alone.y)
