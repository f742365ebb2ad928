"""Two layers in a row refitted together: Gauss-Newton on the error of the second, the first one free as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.factor import factor, inverse, solve
from reap_onnx.numerics.linearize import Operator
from reap_onnx.numerics.parallel import all_cores, even_slices, in_parallel

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_HALVINGS = 5  # of a step, until the error falls
_DAMPING = 1e-3  # of the mean of a Gram matrix's diagonal, in the preconditioner at least
_NOISE = 0.03  # times noise over signal of the first gradient is the ridge; chosen on samples that calibrate nothing
_STRIPE = 512  # rows of a matrix that is multiplied on all cores
_PROBED = 8_000  # rows by which the preconditioner sees how much of an error reaches the first layer


@dataclass(frozen=True)
class Batch:
    """Samples on their way through two layers.

    Parameters
    ----------
    rows : (n1, D1) float32
        What the first layer reads, at all of its output positions, the constant 1 last.
    shape
        Of what it makes, (N, *spatial, k) with n1 = N * spatial.
    total, offset : (n2, M) float32
        What should come out behind the second layer, and what comes besides its product.
    """

    rows: Floats
    shape: tuple[int, ...]
    total: Floats
    offset: Floats


@dataclass(frozen=True)
class Pair:
    """Two layers, and what lies between them.

    Parameters
    ----------
    between
        Operator from what the first layer makes to what the second one reads.
    gather, scatter
        What the second layer reads -> its rows (n2, D2), without the constant; and the adjoint, given the shape, of
        rows tap by tap (n2, K, D2 / K).
    low, high
        Bounds of the activation behind the second layer.
    """

    between: Operator
    gather: Callable[[Floats], Floats]
    scatter: Callable[[Floats, tuple[int, ...]], Floats]
    low: float = -np.inf
    high: float = np.inf


def refit_pair(
    pair: Pair,
    batches: Sequence[Batch],
    first: Doubles,
    second: Doubles,
    *,
    ridges: tuple[float, float],
    rounds: int,
    steps: int,
    gain: float = 0.0,
    again: float = 1.0,
) -> tuple[Doubles, Doubles]:
    """Weights of both layers that make the error of the second one smaller; never larger.

    A round solves for the step that would be best if everything were linear, by conjugate gradients: the matrix is
    never formed, a product with it is one pass forwards and one backwards. The preconditioner takes the rows of a
    layer as independent of the gradients that reach it (after Martens & Grosse, K-FAC, 2015). The step is halved until
    the error falls. What the activation behind the second layer hides is no error, as in
    :func:`~reap_onnx.numerics.refit.refit_clipped`.

    How far the weights may go from where they start depends on what the samples say: where halves of them pull the
    first layer in different ways, little of that holds for others, and the ridge is larger (:func:`noise`). It is
    measured once, where the weights start; a single batch cannot tell, and has the largest.

    Parameters
    ----------
    first : (D1, k), second : (D2 + 1, M) float64
        Weights to start from, the constant's row last.
    ridges
        The least and the largest relative weight of the squared change of the weights in a round.
    rounds, steps
        Gauss-Newton rounds at most, and conjugate gradients in each at most.
    gain
        As for :func:`conjugate_gradients`.
    again
        A round is followed by another where it leaves less than this share of the error.
    """
    reads = _Inputs([batch.rows for batch in batches], sum(len(batch.total) for batch in batches))
    ridge: float | None = None
    for _ in range(rounds):
        problem = _Linear(pair, batches, first, second, reads)
        ridge = problem.ridge(ridges) if ridge is None else ridge
        change = problem.step(ridge, steps, gain)
        for half in range(_HALVINGS):
            trial = first + change[0] / 2**half, second + change[1] / 2**half
            error = _error(pair, batches, *trial)
            if error < problem.error:
                break
        else:
            return first, second
        first, second = trial
        before = problem.error
        del problem  # before the next one is made
        if error > again * before:
            break
    return first, second


class _Point:
    """One batch at given weights.

    Parameters
    ----------
    whole
        Whether derivatives are wanted, not the error alone.
    """

    def __init__(self, pair: Pair, batch: Batch, first: Doubles, second: Doubles, *, whole: bool = True) -> None:
        self._pair, self.rows, self._shape = pair, batch.rows, batch.shape
        self._first, self._second = first.astype(np.float32), second.astype(np.float32)
        self._between = pair.between(_product(batch.rows, self._first).reshape(batch.shape))
        read = pair.gather(self._between.value)
        out = _product(read, self._second[:-1])
        out += self._second[-1]
        out += batch.offset
        target = np.clip(batch.total, pair.low, pair.high)
        self.seen = ((target > pair.low) | (out > pair.low)) & ((target < pair.high) | (out < pair.high))
        out -= target
        out *= self.seen
        self.error = out
        if whole:
            self._read = self._between.value.shape
            self.read = np.concatenate([read, np.ones((len(read), 1), np.float32)], axis=1)

    def backward(self, gradient: Floats) -> Floats:
        """Gradient of what comes out (n2, M), as far as it is seen -> of what the first layer makes (n1, k)."""
        taps = self._second[:-1].reshape(-1, self._read[-1], gradient.shape[-1]).transpose(0, 2, 1)
        back = self._pair.scatter(np.matmul(gradient, taps).transpose(1, 0, 2), self._read)
        return self._between.backward(back).reshape(len(self.rows), -1)

    def forward(self, first: Floats, second: Floats) -> Floats:
        """Changes of the weights -> change of what is seen of what comes out, (n2, M)."""
        change = self._between.forward(_product(self.rows, first).reshape(self._shape))
        out = _product(self._pair.gather(change), self._second[:-1])
        out += _product(self.read, second)
        out *= self.seen
        return out

    def pull(self, gradient: Floats) -> tuple[Floats, Floats]:
        """Gradient of what is seen of what comes out -> of both weights."""
        return (self.backward(gradient).T @ self.rows).T, (gradient.T @ self.read).T


def _product(a: Floats, b: Floats) -> Floats:
    """``a @ b``, by sixteens of columns: a BLAS multiplies by 48 in less time than by 45."""
    width = b.shape[1]
    if width % 16:
        padded = np.zeros((len(b), width + -width % 16), np.float32)
        padded[:, :width] = b
        b = padded
    found: Floats = (a @ b)[:, :width]
    return found


def _error(pair: Pair, batches: Sequence[Batch], first: Doubles, second: Doubles) -> float:
    """Sum of the squared errors that are seen."""
    return sum(in_parallel(lambda batch: _square(_Point(pair, batch, first, second, whole=False).error), batches))


def _square(error: Floats) -> float:
    return float(np.square(error, dtype=np.float64).sum())


def _total(parts: Sequence[Floats]) -> Doubles:
    total = parts[0].astype(np.float64)
    for part in parts[1:]:
        total += part
    return total


class _Inputs:
    """What a layer reads, the rows ``X`` of all batches: ``X'X / count``, or ``XX' / count`` where that is smaller."""

    def __init__(self, parts: Sequence[Floats], count: int) -> None:
        columns, rows = parts[0].shape[1], sum(len(part) for part in parts)
        self._x: Doubles | None = None
        if rows < columns:
            self._x = np.concatenate(parts).astype(np.float64) / np.sqrt(count)
            with all_cores(self._x.size * rows):
                self._gram = self._x @ self._x.T
        else:
            self._gram = np.zeros((columns, columns))
            for product in in_parallel(lambda part: part.T @ part, parts):
                self._gram += product
            self._gram /= count
        self.size = float(np.trace(self._gram)) / columns  # mean square of a column
        self._solved: dict[float, Callable[[Doubles], Doubles]] = {}

    def damped(self, ridge: float) -> Callable[[Doubles], Doubles]:
        """``(X'X / count + ridge * size)^-1`` as a function; the ridge is ``_DAMPING`` at least."""
        share = max(ridge, _DAMPING)
        if share not in self._solved:
            self._solved[share] = self._inverse(share * self.size)
        return self._solved[share]

    def _inverse(self, damping: float) -> Callable[[Doubles], Doubles]:
        x, gram = self._x, self._gram.copy()
        gram[np.diag_indices_from(gram)] += damping
        lower = factor(gram)
        if x is not None:
            return lambda right: np.asarray((right - x.T @ solve(lower, x @ right)) / damping)
        whole = inverse(lower)
        stripes = list(even_slices(len(whole), _STRIPE))
        return lambda right: np.concatenate(in_parallel(lambda some: whole[some] @ right, stripes))


def noise(one: Doubles, two: Doubles, share: float, metric: Callable[[Doubles], Doubles]) -> float:
    """Of a mean gradient: the squared part that is chance, over the squared part that other samples share.

    Two parts of the samples have the same expectation and independent errors: their product is what is common to
    all samples, the square of their difference tells the error of the mean of all. Were the curvature known exactly,
    and changes of all weights equally likely beforehand, this would be the best ridge, relative to the mean
    curvature. Neither is so: curvature comes from the same samples, so that few rows for the columns raise the ratio
    by themselves, and ending early holds weights back, too. A part of it does better (``_NOISE``).

    Parameters
    ----------
    one, two
        Mean gradients over either part, of one shape.
    share
        Of the first part among the samples, above 0 and below 1.
    metric
        Gradient -> the inverse of the curvature, or something like it, times it; symmetric, positive definite.

    Returns
    -------
    float
        Infinite where the parts have nothing in common.
    """
    common, difference = float((one * metric(two)).sum()), one - two
    chance = share * (1 - share) * float((difference * metric(difference)).sum())
    return chance / common if common > 0 else np.inf


class _Linear:
    """The error as it is near some weights, all layers being linear there; ``reads`` is what the first one reads."""

    def __init__(self, pair: Pair, batches: Sequence[Batch], first: Doubles, second: Doubles, reads: _Inputs) -> None:
        self._reads, self._shapes = reads, (first.shape, second.shape)
        self._points = in_parallel(lambda batch: _Point(pair, batch, first, second), batches)
        self._rows = [sum(len(point.read) for point in self._points[half::2]) for half in (0, 1)]
        self._uphill = [self._pulled(lambda point: point.error, self._points[half::2]) for half in (0, 1)]
        self._reached = _reached(self._points)
        self.error = sum(_square(point.error) for point in self._points)

    def ridge(self, ridges: tuple[float, float]) -> float:
        """The ridge that the samples call for, within bounds."""
        least, most = ridges
        if least == most or len(self._points) == 1:
            return most
        one, two = (self._split(sums)[0] / rows for sums, rows in zip(self._uphill, self._rows, strict=True))
        solved = self._reads.damped(least)
        found = noise(one, two, self._rows[0] / sum(self._rows), lambda gradient: solved(gradient) / self._reached)
        return float(np.clip(_NOISE * found, least, most))

    def step(self, ridge: float, steps: int, gain: float) -> tuple[Doubles, Doubles]:
        """The Gauss-Newton step."""
        count, reads, reached = sum(self._rows), self._reads, self._reached
        of_second = _Inputs([point.read for point in self._points], count)
        damping = _join(
            np.full(self._shapes[0], ridge * reads.size * reached.mean()),
            np.full(self._shapes[1], ridge * of_second.size),
        )

        def curvature(vector: Doubles) -> Doubles:
            one, two = (part.astype(np.float32) for part in self._split(vector))
            return self._pulled(lambda point: point.forward(one, two), self._points) / count + damping * vector

        def precondition(vector: Doubles) -> Doubles:
            one, two = self._split(vector)
            return _join(reads.damped(ridge)(one) / reached, of_second.damped(ridge)(two))

        downhill = -(self._uphill[0] + self._uphill[1]) / count
        return self._split(conjugate_gradients(curvature, downhill, precondition, steps=steps, gain=gain))

    def _pulled(self, gradient: Callable[[_Point], Floats], points: Sequence[_Point]) -> Doubles:
        """Sum over the rows of the gradient of both weights, of a gradient of what comes out of each batch."""
        pulls = in_parallel(lambda point: point.pull(gradient(point)), points)
        if not pulls:
            return np.zeros(sum(map(math.prod, self._shapes)))
        first, second = zip(*pulls, strict=True)
        return _join(_total(first), _total(second))

    def _split(self, vector: Doubles) -> tuple[Doubles, Doubles]:
        first, second = self._shapes
        cut = math.prod(first)
        return vector[:cut].reshape(first), vector[cut:].reshape(second)


def _join(first: Doubles, second: Doubles) -> Doubles:
    return np.concatenate([first.ravel(), second.ravel()])


def conjugate_gradients(
    product: Callable[[Doubles], Doubles],
    right: Doubles,
    precondition: Callable[[Doubles], Doubles],
    *,
    steps: int,
    gain: float,
) -> Doubles:
    """``x`` that makes ``x'Ax / 2 - b'x`` small, from zero, ended where going on wins little.

    Parameters
    ----------
    product, precondition
        Vector (D,) -> ``A`` times it, and something like ``A^-1`` times it; both symmetric, positive definite.
    right : (D,) float64
        ``b``.
    steps
        Products at most.
    gain
        The last step is the first one that wins less than this share of what all have won.
    """
    found, left, direction, before, won = np.zeros_like(right), right.copy(), np.zeros_like(right), 1.0, 0.0
    for _ in range(steps):
        ahead = precondition(left)
        slope = float(left @ ahead)
        if slope <= 0:
            break
        direction = ahead + slope / before * direction
        bent = product(direction)
        length = slope / float(direction @ bent)
        found += length * direction
        left -= length * bent
        before, won = slope, won + length * slope
        if length * slope < gain * won:
            break
    return found


def _reached(points: Sequence[_Point]) -> Doubles:
    """Mean square of the gradient that reaches each feature of the first layer, (k,), for errors of random signs."""
    signs = np.random.default_rng(0)
    squares: list[Floats] = []
    for point in points:
        if sum(map(len, squares)) < _PROBED:
            error = signs.choice(np.array([-1, 1], np.float32), point.error.shape) * point.seen
            squares.append(np.square(point.backward(error)))
    found = np.concatenate(squares).mean(0, dtype=np.float64)
    return np.asarray(np.maximum(found, 1e-4 * found.max()) + 1e-30)
