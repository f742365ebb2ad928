"""Two layers refitted together: planted networks, least squares where all is linear, errors that never rise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reap_onnx.numerics.linearize import Operator, pointwise
from reap_onnx.numerics.pair import Batch, Pair, conjugate_gradients, noise, refit_pair
from reap_onnx.numerics.patches import col2im, im2col
from reap_onnx.numerics.rows import Window

WINDOW = Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
RELU = pointwise(lambda x: np.maximum(x, 0), lambda x: x > 0)
SAME = pointwise(lambda x: x, np.ones_like)


def pair(between: Operator = RELU, low: float = -np.inf, high: float = np.inf) -> Pair:
    return Pair(
        between, lambda x: im2col(x, WINDOW), lambda rows, shape: col2im(rows, WINDOW, shape), low=low, high=high
    )


def weights(rng: np.random.Generator, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((28, k)) / 5, rng.standard_normal((9 * k + 1, 4)) / 6


def samples(rng: np.random.Generator, k: int, truth: tuple[np.ndarray, np.ndarray], count: int = 30) -> list[Batch]:
    batches = []
    for _ in range(3):
        x = rng.standard_normal((count, 6, 6, 3)).astype(np.float32)
        rows = np.concatenate([im2col(x, WINDOW), np.ones((count * 36, 1), np.float32)], axis=1)
        batches.append(
            Batch(rows, (count, 6, 6, k), output(rows, count, *truth).astype(np.float32), np.zeros((1, 1), np.float32))
        )
    return batches


def with_offset(batch: Batch, rng: np.random.Generator) -> Batch:
    offset = rng.standard_normal(batch.total.shape).astype(np.float32)
    return replace(batch, total=batch.total + offset, offset=offset)


def output(rows: np.ndarray, count: int, first: np.ndarray, second: np.ndarray, slope: float = 0.0) -> np.ndarray:
    hidden = rows @ first
    hidden = np.where(hidden > 0, hidden, slope * hidden).reshape(count, 6, 6, -1)
    return im2col(hidden.astype(np.float32), WINDOW) @ second[:-1] + second[-1]


def error(
    batches: list[Batch], first: np.ndarray, second: np.ndarray, low: float = -np.inf, high: float = np.inf
) -> float:
    clip = lambda y: np.clip(y, low, high)  # noqa: E731
    made = [clip(output(b.rows, b.shape[0], first, second) + b.offset) - clip(b.total) for b in batches]
    return sum(float((m**2).sum()) for m in made)


@pytest.mark.parametrize("k", [5, 16])
@pytest.mark.parametrize(("low", "high"), [(-np.inf, np.inf), (0.0, np.inf), (-np.inf, 0.5), (-0.5, 0.5)])
def test_a_planted_network_is_found_again(low: float, high: float, k: int) -> None:
    """From weights a little off, the error falls by a factor that refitting the second layer alone cannot reach."""
    rng = np.random.default_rng(0)
    first, second = weights(rng, k)
    batches = [with_offset(batch, rng) for batch in samples(rng, k, (first, second))]
    start = first + 0.05 * rng.standard_normal(first.shape), second + 0.05 * rng.standard_normal(second.shape)
    before = error(batches, *start, low, high)
    found = refit_pair(pair(low=low, high=high), batches, *start, ridges=(1e-4, 1e-4), rounds=4, steps=30)
    assert error(batches, *found, low, high) < 1e-3 * before


def test_the_last_layer_alone_is_least_squares() -> None:
    """With nothing between that the first layer could change, the second comes out as ``lstsq`` has it."""
    rng = np.random.default_rng(1)
    truth = weights(rng)
    batches = samples(rng, 5, truth)
    dead = pointwise(np.ones_like, np.zeros_like)
    read = np.concatenate([im2col(np.ones(b.shape, np.float32), WINDOW) for b in batches])
    rows = np.concatenate([read, np.ones((len(read), 1))], axis=1)
    expected = rows @ np.linalg.lstsq(rows, np.concatenate([b.total for b in batches]), rcond=None)[0]
    _first, second = refit_pair(pair(dead), batches, *weights(rng), ridges=(1e-7, 1e-7), rounds=3, steps=60)
    assert np.abs(rows @ second - expected).max() < 1e-2 * np.abs(expected).max()


def test_the_error_never_rises() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        batches = samples(rng, 3, weights(rng, 5), count=4)
        batches = [Batch(b.rows, (*b.shape[:3], 3), b.total, b.offset) for b in batches]
        start = weights(rng, 3)
        last = error(batches, *start, 0.0)
        for rounds in (1, 2, 3):
            found = refit_pair(pair(low=0.0), batches, *start, ridges=(1e-3, 1e-3), rounds=rounds, steps=6)
            assert error(batches, *found, 0.0) <= last * (1 + 1e-6)
            last = error(batches, *found, 0.0)


def test_what_is_right_stays() -> None:
    rng = np.random.default_rng(2)
    truth = weights(rng)
    found = refit_pair(pair(), samples(rng, 5, truth), *truth, ridges=(1e-3, 1e-3), rounds=2, steps=10)
    for before, after in zip(truth, found, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-4)


def test_it_is_deterministic() -> None:
    rng = np.random.default_rng(3)
    batches, start = samples(rng, 5, weights(rng)), weights(rng)
    one, two = (refit_pair(pair(), batches, *start, ridges=(1e-3, 1e-3), rounds=2, steps=5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_dead_channels_and_collinear_rows_do_no_harm() -> None:
    rng = np.random.default_rng(4)
    batches = samples(rng, 5, weights(rng))
    first, second = weights(rng)
    first[:, 2] = 0
    first[-1, 2] = -5  # never passes the ReLU
    twins = [Batch(np.hstack([b.rows[:, :-1], b.rows]), b.shape, b.total, b.offset) for b in batches]
    found = refit_pair(pair(), twins, np.vstack([first[:-1], first]), second, ridges=(1e-3, 1e-3), rounds=2, steps=10)
    assert all(np.isfinite(part).all() for part in found)


def test_another_round_follows_one_that_paid() -> None:
    rng = np.random.default_rng(5)
    batches, start = samples(rng, 5, weights(rng)), weights(rng)
    once, twice, done, on = (
        refit_pair(pair(), batches, *start, ridges=(1e-3, 1e-3), rounds=rounds, again=again, steps=3)[0]
        for rounds, again in ((1, 1.0), (2, 1.0), (2, 0.0), (2, 0.999))
    )
    assert np.array_equal(done, once)
    assert np.array_equal(on, twice)
    assert not np.array_equal(once, twice)


def test_fewer_rows_than_columns_lower_the_error_too() -> None:
    """The preconditioner is then made of the products of the rows, not of the columns."""
    rng = np.random.default_rng(6)
    truth, start = (weights(rng, 40) for _ in range(2))
    batches = samples(rng, 40, truth, count=1)
    assert sum(len(batch.rows) for batch in batches) < len(truth[1])
    found = refit_pair(pair(), batches, *start, ridges=(1e-3, 1e-3), rounds=2, steps=10)
    assert error(batches, *found) < 0.2 * error(batches, *start)


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_noise_over_signal_is_the_ratio_that_gradients_were_made_with(ratio: float, share: float) -> None:
    """Gradients ``A w`` of weights of variance 1, and errors of their mean of the covariance ``ratio * A``."""
    rng = np.random.default_rng(8)
    size, root = 400, rng.standard_normal((400, 400)) / 20
    matrix = root @ root.T + 0.1 * np.eye(size)
    matrix *= size / np.trace(matrix)
    half, inverse, found = np.linalg.cholesky(matrix), np.linalg.inv(matrix), []
    for _ in range(60):
        true = matrix @ rng.standard_normal((size, 1))
        one, two = (true + np.sqrt(ratio / s) * half @ rng.standard_normal((size, 1)) for s in (share, 1 - share))
        found.append(noise(one, two, share, lambda gradient: inverse @ gradient))
    assert np.median(found) == pytest.approx(ratio, rel=0.07)


def test_halves_with_nothing_in_common_are_all_noise() -> None:
    rng = np.random.default_rng(9)
    one = rng.standard_normal((5, 3))
    assert noise(one, -one, 0.5, lambda gradient: gradient) == np.inf
    assert noise(one, one, 0.5, lambda gradient: gradient) == 0


def test_what_halves_of_the_samples_disagree_on_is_not_followed() -> None:
    """Errors without a pattern get the largest ridge, those that other weights would undo the least."""
    rng = np.random.default_rng(10)
    truth = weights(rng)
    exact = samples(rng, 5, truth)
    off = truth[0] + 0.05 * rng.standard_normal(truth[0].shape), truth[1]

    def noisy(size: float) -> list[Batch]:
        return [replace(b, total=b.total + size * rng.standard_normal(b.total.shape, dtype=np.float32)) for b in exact]

    def refitted(batches: list[Batch], start: tuple[np.ndarray, np.ndarray], *ridges: float) -> np.ndarray:
        return refit_pair(pair(), batches, *start, ridges=(ridges[0], ridges[-1]), rounds=1, steps=10)[0]

    pure, mixed = noisy(0.1), noisy(3.0)
    assert np.array_equal(refitted(pure, truth, 0.01, 0.2), refitted(pure, truth, 0.2))
    assert np.array_equal(refitted(exact, off, 0.01, 0.3), refitted(exact, off, 0.01))
    assert np.array_equal(refitted(exact[:1], off, 0.01, 0.3), refitted(exact[:1], off, 0.3))
    step, most, least = (
        np.abs(refitted(mixed, off, *ridges) - off[0]).sum() for ridges in ((0.001, 10.0), (10.0,), (0.001,))
    )
    assert 1.05 * most < step < 0.95 * least


def test_conjugate_gradients_solve_and_end_where_little_is_won() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((30, 30))
    matrix, right = root @ root.T + np.eye(30), rng.standard_normal(30)
    rough = 1 / np.diagonal(matrix)
    products: list[int] = []

    def solved(steps: int, gain: float) -> np.ndarray:
        products.clear()

        def product(x: np.ndarray) -> np.ndarray:
            products.append(1)
            return np.asarray(matrix @ x)

        return conjugate_gradients(product, right, lambda x: rough * x, steps=steps, gain=gain)

    def won(x: np.ndarray) -> float:
        return float(right @ x - x @ matrix @ x / 2)

    np.testing.assert_allclose(solved(60, 0.0), np.linalg.solve(matrix, right), rtol=1e-6)
    by_step = [won(solved(steps, 0.0)) for steps in range(12)]
    gains = np.diff(by_step) / by_step[1:]
    assert (gains > 0).all()
    last = 1 + int(np.flatnonzero(gains < 0.1)[0])
    assert won(solved(11, 0.1)) == pytest.approx(by_step[last])
    assert len(products) == last < 11
    assert not solved(0, 0.0).any()
    assert not conjugate_gradients(lambda x: matrix @ x, np.zeros(30), lambda x: x, steps=5, gain=0.0).any()
