"""Two layers in a row refitted together: Gauss-Newton on the error of the second, the first one free as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reap_onnx.numerics.factor import factor, inverse, solve
from reap_onnx.numerics.linearize import Operator
from reap_onnx.numerics.parallel import in_parallel

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_HALVINGS = 5  # of a step, until the error falls
_DAMPING = 1e-3  # of the mean of a Gram matrix's diagonal, in the preconditioner at least
_NOISE = 0.03  # times noise over signal of the first gradient is the ridge; chosen on samples that calibrate nothing
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
    points = _points(pair, batches, first, second)
    error = _error(points)
    reads = _Inputs([batch.rows for batch in batches], sum(len(batch.total) for batch in batches))
    ridge = _ridge(points, reads, ridges)
    for _ in range(rounds):
        change = _step(points, reads, ridge, steps, gain)
        for half in range(_HALVINGS):
            trial = first + change[0] / 2**half, second + change[1] / 2**half
            there = _points(pair, batches, *trial)
            if _error(there) < error:
                break
        else:
            return first, second
        before, error = error, _error(there)
        points, (first, second) = there, trial
        if error > again * before:
            break
    return first, second


class _Point:
    """One batch at given weights."""

    def __init__(self, pair: Pair, batch: Batch, first: Doubles, second: Doubles) -> None:
        self._pair, self.rows, self._shape = pair, batch.rows, batch.shape
        self._first, self._second = first.astype(np.float32), second.astype(np.float32)
        self._between = pair.between((batch.rows @ self._first).reshape(batch.shape))
        self._read = self._between.value.shape
        rows = pair.gather(self._between.value)
        self.read = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
        out = self.read @ self._second + batch.offset
        low, high = batch.total <= pair.low, batch.total >= pair.high
        self.seen = ~((low & (out <= pair.low)) | (high & (out >= pair.high)))
        target = np.where(low, pair.low, np.where(high, pair.high, batch.total))
        self.error = np.where(self.seen, out - target, 0).astype(np.float32)

    def backward(self, gradient: Floats) -> Floats:
        """Gradient of what comes out (n2, M), as far as it is seen -> of what the first layer makes (n1, k)."""
        taps = self._second[:-1].reshape(-1, self._read[-1], gradient.shape[-1]).transpose(0, 2, 1)
        back = self._pair.scatter(np.matmul(gradient, taps).transpose(1, 0, 2), self._read)
        return self._between.backward(back).reshape(len(self.rows), -1)

    def forward(self, first: Floats, second: Floats) -> Floats:
        """Changes of the weights -> change of what is seen of what comes out, (n2, M)."""
        change = self._between.forward((self.rows @ first).reshape(self._shape))
        out: Floats = self._pair.gather(change) @ self._second[:-1]
        out += self.read @ second
        out *= self.seen
        return out

    def pull(self, gradient: Floats) -> tuple[Floats, Floats]:
        """Gradient of what is seen of what comes out -> of both weights."""
        return self.rows.T @ self.backward(gradient), self.read.T @ gradient


def _points(pair: Pair, batches: Sequence[Batch], first: Doubles, second: Doubles) -> list[_Point]:
    return in_parallel(lambda batch: _Point(pair, batch, first, second), batches)


def _error(points: Sequence[_Point]) -> float:
    return float(sum(np.square(point.error, dtype=np.float64).sum() for point in points))


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
        return lambda right: np.asarray(whole @ right)


def _ridge(points: Sequence[_Point], reads: _Inputs, ridges: tuple[float, float]) -> float:
    """The ridge that the samples call for; ``reads`` is what the first layer reads."""
    least, most = ridges
    if least == most or len(points) == 1:
        return most
    solved, reached = reads.damped(least), _reached(points)
    rows = [sum(len(point.read) for point in points[half::2]) for half in (0, 1)]
    one, two = (
        _total(in_parallel(lambda point: point.rows.T @ point.backward(point.error), points[half::2])) / count
        for half, count in enumerate(rows)
    )
    found = noise(one, two, rows[0] / sum(rows), lambda gradient: solved(gradient) / reached)
    return float(np.clip(_NOISE * found, least, most))


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


def _step(points: Sequence[_Point], reads: _Inputs, ridge: float, steps: int, gain: float) -> tuple[Doubles, Doubles]:
    """The Gauss-Newton step; ``reads`` is what the first layer reads, which stays from round to round."""
    count, columns = sum(len(point.read) for point in points), points[0].rows.shape[1]
    of_second, reached = _Inputs([point.read for point in points], count), _reached(points)
    cut, features = columns * len(reached), points[0].error.shape[1]

    def split(vector: Doubles) -> tuple[Doubles, Doubles]:
        return vector[:cut].reshape(columns, -1), vector[cut:].reshape(-1, features)

    def join(one: npt.ArrayLike, two: npt.ArrayLike) -> Doubles:
        return np.concatenate([np.ravel(one), np.ravel(two)], dtype=np.float64)

    def pulled(gradient: Callable[[_Point], Floats]) -> Doubles:
        """Mean over the rows of the gradient of both weights, of a gradient of what comes out of each batch."""
        first, second = zip(*in_parallel(lambda point: point.pull(gradient(point)), points), strict=True)
        return join(_total(first), _total(second)) / count

    downhill = -pulled(lambda point: point.error)
    damping = np.full(len(downhill), ridge * of_second.size)
    damping[:cut] = ridge * reads.size * reached.mean()

    def curvature(vector: Doubles) -> Doubles:
        one, two = (part.astype(np.float32) for part in split(vector))
        return pulled(lambda point: point.forward(one, two)) + damping * vector

    def precondition(vector: Doubles) -> Doubles:
        one, two = split(vector)
        return join(reads.damped(ridge)(one) / reached, of_second.damped(ridge)(two))

    return split(conjugate_gradients(curvature, downhill, precondition, steps=steps, gain=gain))


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
