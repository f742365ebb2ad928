"""What a run has to say, as plain values: the one thing that console, HTML and JSON are made from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GroupRow:
    """One group of channels that come and go together.

    ``macs`` and ``params`` are what the layers that make or read the group's channels cost in the
    original; ``frozen`` is empty for a group that can be pruned, else the reason why it cannot.
    """

    name: str
    made_by: tuple[str, ...]
    read_by: tuple[str, ...]
    width: int
    kept: int
    macs: int
    params: int
    frozen: str = ""


@dataclass(frozen=True)
class Cost:
    """MACs at batch 1 (Conv, ConvTranspose, Gemm, MatMul alone), elements of float constants, bytes of the file."""

    macs: int
    params: int
    size: int


@dataclass(frozen=True)
class Latency:
    """Two models timed in turns (A B A B ...) in one process; medians in milliseconds a run.

    ``spread`` is half of the range that the middle half of the rounds' ratios lie in, over the ratio of the medians.
    """

    batch: int
    original_ms: float
    pruned_ms: float
    rounds: int
    spread: float = 0.0

    @property
    def ratio(self) -> float:
        """Median of the pruned model over median of the original."""
        return self.pruned_ms / self.original_ms


@dataclass(frozen=True)
class LatencySearch:
    """How widths were found that meet a latency target.

    ``predicted_ms`` is what the times of single operators say of the pruned model, ``original_ms`` what they say of
    the original; ``trials`` are the models that were measured on the way, in turns with the original. ``source`` is the
    file of times that the prediction is from, empty where times are of this machine.
    """

    batch: int
    original_ms: float
    predicted_ms: float
    trials: tuple[Latency, ...]
    source: str = ""


@dataclass(frozen=True)
class Judgement:
    """A metric of two models on the same samples; ``bound`` is what it really falls by at most, at 95 % confidence.

    ``bound`` is None where nothing can be said: samples that the model was chosen on, a metric of one number.
    """

    samples: int
    before: float
    after: float
    bound: float | None

    @property
    def drop(self) -> float:
        """What the metric falls by."""
        return round(self.before - self.after, 12)  # shares of the same samples: no rounding decides


@dataclass(frozen=True)
class DropTrial:
    """A network tried: its share of the original's cost, and what it loses on the samples that decide."""

    share: float
    drop: float


@dataclass(frozen=True)
class DropSearch:
    """How the smallest model within a drop was found.

    ``decided`` is on the samples that decided between the networks tried, ``judged`` on as many others, which had no
    part in anything; ``swept`` is the cost that the shares of the ``trials`` are of. ``share``: the metric is a share,
    which falls by points.
    """

    metric: str
    share: bool
    asked: float
    swept: str
    decided: Judgement
    judged: Judgement
    trials: tuple[DropTrial, ...]


@dataclass(frozen=True)
class GroupLimit:
    """The fewest channels that a group can keep, all others being whole."""

    name: str
    width: int
    kept: int


@dataclass(frozen=True)
class Prunability:
    """How much of a network is needed: the smallest share of its parameters, the fewest channels of each group.

    The whole network was measured, with layers refitted quickly; ``error`` is what its widths were predicted to
    do to the outputs, relative to their variance. The groups are read off their error paths at that same error.
    """

    params: float
    error: float
    groups: tuple[GroupLimit, ...]
    search: DropSearch


@dataclass(frozen=True)
class OutputError:
    """One output compared: root mean square of the difference over that of the original, and the largest difference."""

    name: str
    relative: float
    largest: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same samples.

    ``agreement`` and the accuracies are shares, None where there are no classes or labels; ``providers`` are the
    execution providers that the session really used.
    """

    samples: int
    data: str
    outputs: tuple[OutputError, ...]
    agreement: float | None
    accuracy_original: float | None
    accuracy_pruned: float | None
    latency: tuple[Latency, ...]
    providers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What ``inspect`` found: every group, and the share of MACs that layers touching a prunable group have.

    ``prunability`` is None where it was not asked for.
    """

    source: str
    cost: Cost
    groups: tuple[GroupRow, ...]
    reach: float
    notes: tuple[str, ...] = ()
    prunability: Prunability | None = None


@dataclass(frozen=True)
class GroupWeight:
    """A group that was measured: its channels, and what its error does to the outputs, per unit of itself."""

    name: str
    width: int
    weight: float


@dataclass(frozen=True)
class Calibrated:
    """What ``calibrate`` measured: so many ``layers``, the ``groups`` that they read; ``size`` in bytes of the file."""

    source: str
    output: str
    size: int
    data: str
    layers: int
    groups: tuple[GroupWeight, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What ``prune`` or ``apply`` did.

    ``wiring_error`` is the largest relative difference found by the wiring check;
    ``seconds`` maps each stage to its wall-clock time; ``latency`` says how a latency target was met, ``drop`` how the
    smallest model within a drop was found.
    """

    source: str
    output: str
    target: str
    before: Cost
    after: Cost
    groups: tuple[GroupRow, ...]
    comparison: Comparison | None
    wiring_error: float
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    latency: LatencySearch | None = None
    drop: DropSearch | None = None


@dataclass(frozen=True)
class Point:
    """One budget of a sweep: what its model costs, and how it compares; ``output`` is empty where none is written."""

    target: str
    cost: Cost
    comparison: Comparison
    output: str = ""

    @property
    def quality(self) -> float:
        """Accuracy where there are labels, else agreement with the original, else one less the largest output error."""
        if self.comparison.accuracy_pruned is not None:
            return self.comparison.accuracy_pruned
        if self.comparison.agreement is not None:
            return self.comparison.agreement
        return 1.0 - max((output.relative for output in self.comparison.outputs), default=0.0)


@dataclass(frozen=True)
class Frontier:
    """What ``sweep`` found: the points by growing budget.

    ``swept`` is the kind of target; ``written`` says that the models are refitted in full and written.
    """

    source: str
    swept: str
    before: Cost
    points: tuple[Point, ...]
    written: bool
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def share(self, point: Point) -> float:
        """Cost of a point over that of the original, of the kind that was swept."""
        if self.swept == "latency":
            return point.comparison.latency[0].ratio
        return float(getattr(point.cost, self.swept) / max(getattr(self.before, self.swept), 1))

    @property
    def knee(self) -> int | None:
        """Index of the point farthest above the line from the cheapest to the dearest; None where none is above it."""
        if len(self.points) < 3:
            return None
        x, y = [self.share(p) for p in self.points], [p.quality for p in self.points]
        wide, high = x[-1] - x[0], y[-1] - y[0]
        if wide <= 0 or high <= 0:
            return None
        above = [(b - y[0]) / high - (a - x[0]) / wide for a, b in zip(x, y, strict=True)]
        best = max(range(len(above)), key=above.__getitem__)
        return best if above[best] > 0 else None


Report = Summary | Inspection | Comparison | Frontier | Calibrated
