"""What a run is asked to do: frozen values, checked when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from reap_onnx.errors import UsageError
from reap_onnx.overrides import Override

Kind = Literal["macs", "params", "size", "latency"]
KINDS: tuple[Kind, ...] = ("macs", "params", "size", "latency")
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_UNITS: dict[Kind, dict[str, float]] = {
    "macs": _COUNTS,
    "params": _COUNTS,
    "size": {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30},
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
}
_EXAMPLES: dict[Kind, str] = {"macs": "20M", "params": "20M", "size": "4MB", "latency": "4ms"}


@dataclass(frozen=True)
class Target:
    """How much of one cost is kept: a fraction of the original, or an absolute number.

    Parameters
    ----------
    kind
        ``"macs"``: multiply-accumulates of Conv, ConvTranspose, Gemm and MatMul at batch 1;
        ``"params"``: elements of floating-point constants; ``"size"``: bytes of the file;
        ``"latency"``: milliseconds a run, measured on this machine.
    fraction
        Share kept, in (0, 1]; exactly one of ``fraction`` and ``absolute`` is given.
    absolute
        Number kept: at least 1, or a latency above 0.
    """

    kind: Kind
    fraction: float | None = None
    absolute: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"unknown target {self.kind!r}", f"use one of {', '.join(KINDS)}")
        if (self.fraction is None) == (self.absolute is None):
            raise UsageError(f"--{self.kind} takes a fraction or an absolute number, not both")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise UsageError(
                f"--{self.kind} {self.fraction:g} is not a fraction kept in (0, 1]",
                f"half of the cost is --{self.kind} 0.5",
            )
        least = 0 if self.kind == "latency" else 1
        if self.absolute is not None and not (least <= self.absolute < math.inf and self.absolute > 0):
            raise UsageError(f"--{self.kind} {self.absolute} is not a positive number")

    @classmethod
    def parse(cls, kind: Kind, text: str) -> Target:
        """Read ``"0.5"``, ``"50%"`` (fractions kept) or an absolute number.

        That is ``"1.2G"``, ``"40M"``, ``"300000"`` for counts, ``"4MB"`` for a size, ``"4ms"`` for a latency.
        """
        units = _UNITS[kind]
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z%]*)\s*", text.lower())
        number, unit = (float(match[1]), match[2]) if match else (0.0, "none")
        if unit == "%":
            return cls(kind, fraction=number / 100)
        if unit == "" and number <= 1 and match:
            return cls(kind, fraction=number)
        if unit not in units:
            pixels = "; pixels of images are --image-size" if kind == "size" else ""
            raise UsageError(
                f"--{kind} {text!r} is not a number" + (f" of {', '.join(units)}" if "" not in units else ""),
                f"a fraction kept, --{kind} 0.5, or an absolute value, --{kind} {_EXAMPLES[kind]}{pixels}",
            )
        return cls(kind, absolute=number * units[unit] if kind == "latency" else int(number * units[unit]))

    def times(self, factor: float) -> Target:
        """The same target, of ``factor`` times as much."""
        if self.fraction is None:
            return replace(self, absolute=factor * (self.absolute or 0))
        return replace(self, fraction=factor * self.fraction)

    def budget(self, total: float) -> float:
        """The largest allowed cost, given the cost ``total`` of the original; whole but for a latency.

        An absolute one may be larger than that: what is added on the way, metadata say, has room then.
        """
        if self.absolute is not None:
            return self.absolute
        assert self.fraction is not None
        return total * self.fraction if self.kind == "latency" else math.floor(total * self.fraction)


Scorer = Callable[[Mapping[str, Any], np.ndarray | None], Any]
"""A metric of the user: outputs by name (N, ...) and labels (N,), or None, to one number or one per sample (N,)."""
METRICS = ("accuracy", "agreement", "error")


@dataclass(frozen=True)
class MaxDrop:
    """The smallest model whose metric falls by no more than this, on samples that it is not calibrated on.

    Parameters
    ----------
    drop
        The most that may be lost: 0.01 is one point of accuracy. Above 0, and below 1 unless the metric is the user's.
    metric
        ``"accuracy"``, top-1 by labels; ``"agreement"`` of the top class with the original; ``"error"``, the root mean
        square by which outputs move over that of the original; ``"script.py:function"``, or the function itself:
        from outputs by name (N, ...) and labels (N,), or None, to a score, one for all samples or (N,), the larger the
        better. None: the first of these that the samples and the model allow.
    """

    drop: float
    metric: str | Scorer | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.drop, int | float):
            raise UsageError(f"a drop of {self.drop!r} is not a number", 'text is read by MaxDrop.parse("1%")')
        if not (0 < self.drop < (1 if self.share else math.inf)):
            raise UsageError(
                f"--max-drop {self.drop:g} is not a drop above 0 and below 1", "one point is --max-drop 1%"
            )

    @property
    def share(self) -> bool:
        """Whether the metric is a share, which falls by points; one of the user may be anything."""
        return self.metric is None or self.metric in METRICS

    def show(self, drop: float) -> str:
        """A drop of this metric in words."""
        return f"{100 * drop:.3g} point{'' if drop == 0.01 else 's'}" if self.share else f"{drop:.4g}"

    @classmethod
    def parse(cls, text: str, metric: str | None = None) -> MaxDrop:
        """Read ``"1%"`` or ``"0.01"``, and the name of a metric."""
        if metric is not None and metric not in METRICS and ".py" not in metric:
            raise UsageError(f"no --metric {metric!r}", f"use {', '.join(METRICS)} or script.py:function")
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
        if match is None:
            raise UsageError(f"--max-drop {text!r} is not a number", "one point is --max-drop 1% or 0.01")
        return cls(float(match[1]) / (100 if match[2] else 1), metric)


@dataclass(frozen=True)
class Method:
    """How much work goes into a run; its parts can be left out, to see what each is worth (``docs/accuracy.md``).

    Parameters
    ----------
    criterion
        What orders the channels: ``"reap"``, the growth of the error after a refit; ``"l1"`` or ``"l2"``, the norm of
        the weights that make a channel.
    selection_rows, refit_rows
        Rows per layer to find the error paths with and to refit with, whatever the number of samples.
    sensitivity_samples
        Samples to measure with what the error of a group does to the outputs; 0: all groups count alike.
    sensitivity_scores
        Of class scores, the highest of each sample that count there; 0: all.
    asymmetric
        Layers are refitted on what the pruned network feeds them; else on what the original did.
    residual
        Where a branch ends in an Add, the target is the sum.
    reselect
        Channels that one layer alone reads are chosen anew when it is refitted.
    clipped_rounds
        Rounds in which errors hidden by an activation stop to count.
    measured_ridges
        Halves of the samples tell the ridge of a layer with few rows, and that of a pair; else it is the least.
    pair_rows
        Rows that layers are refitted in pairs with; 0: no pairs.
    pair_rounds, pair_steps, pair_work
        Gauss-Newton rounds of a pair at most; conjugate gradients in each at most (0 of either: no pairs); products of
        its rows and weights at most.
    pair_gain
        Conjugate gradients end with the first that wins less than this share of what all have won.
    """

    criterion: Literal["reap", "l1", "l2"] = "reap"
    selection_rows: int = 32_000
    refit_rows: int = 64_000
    sensitivity_samples: int = 50
    sensitivity_scores: int = 10
    asymmetric: bool = True
    residual: bool = True
    reselect: bool = True
    clipped_rounds: int = 4
    measured_ridges: bool = True
    pair_rows: int = 64_000
    pair_rounds: int = 2
    pair_steps: int = 10
    pair_gain: float = 0.03
    pair_work: int = 20_000_000_000

    def __post_init__(self) -> None:
        if self.criterion not in ("reap", "l1", "l2"):
            raise UsageError(f"unknown criterion {self.criterion!r}", "use reap, l1 or l2")
        if min(self.selection_rows, self.refit_rows) < 1:
            raise UsageError("a method needs rows")
        pairs = self.pair_rows, self.pair_rounds, self.pair_steps, self.pair_gain, self.pair_work
        if min(self.sensitivity_samples, self.sensitivity_scores, self.clipped_rounds, *pairs) < 0:
            raise UsageError("samples, scores, rounds, rows, steps, gain and work of a method are not negative")

    @property
    def pairs(self) -> bool:
        """Whether layers are refitted in pairs."""
        return min(self.pair_rows, self.pair_rounds, self.pair_steps) > 0


EFFORTS = {
    "fast": Method(selection_rows=16_000, refit_rows=32_000, pair_rows=0),
    "default": Method(),
    "best": Method(pair_rows=256_000, pair_gain=0.0, pair_work=80_000_000_000),
}
"""Points on the trade between time and accuracy."""


@dataclass(frozen=True)
class PruneOptions:
    """Everything that decides which channels go; the same options on the same input give the same file.

    Parameters
    ----------
    target
        What the result may cost, and what it may lose; of several targets of different kinds all hold in the end.
    round_to
        Pruned widths are multiples of this number; whole steps compete in the allocation. ``"auto"``: for each group a
        step that timing shows to be worth it on this machine. None: what ``rounding`` says.
    freeze
        Glob patterns of node names whose output channels are left alone.
    max_cut
        Largest share of a group's channels that may go, in (0, 1].
    min_channels
        Smallest width that a group may be left with.
    overrides
        What holds for some layers instead of these limits.
    seed
        Seeds the choice of sampled positions and of samples.
    batch
        Samples in one run of the network at most; fewer where its tensors are large.
    latency_batch
        Samples in a run whose latency is a target.
    latency_table
        File of times that the layers take on another device: a latency is predicted for it, not measured. Widths are
        then multiples of 8 unless ``round_to`` says otherwise.
    providers
        Execution providers of onnxruntime, the preferred one first.
    memory
        Bytes that a run may take for tensors, rows, normal equations and samples, besides the model; what tensors and
        samples take beyond it lies in a file. By default half of what the machine has left, and 8 GB for rows and
        normal equations, so that the result does not depend on the machine; with less, wide layers are refitted with
        fewer rows, and what activations hide is looked for in fewer.
    method
        How much work goes into it: one of :data:`EFFORTS`, or any other.
    """

    target: Target | MaxDrop | tuple[Target | MaxDrop, ...]
    round_to: int | Literal["auto"] | None = None
    freeze: tuple[str, ...] = ()
    max_cut: float = 0.9
    min_channels: int = 1
    overrides: tuple[Override, ...] = ()
    seed: int = 0
    batch: int = 50
    latency_batch: int = 1
    latency_table: str | None = None
    providers: tuple[str, ...] = ("cpu",)
    memory: int | None = None
    method: Method = EFFORTS["default"]

    def __post_init__(self) -> None:
        self._take()
        kinds = [target.kind for target in self.targets]
        if not kinds and self.max_drop is None:
            raise UsageError("no target", "half of the multiply-accumulates is --macs 0.5")
        if twice := sorted({kind for kind in kinds if kinds.count(kind) > 1}):
            raise UsageError(f"two targets for --{twice[0]}", "keep the smaller one")
        if sum(isinstance(target, MaxDrop) for target in self.given) > 1:
            raise UsageError("two targets for --max-drop", "keep one")
        if self.latency_table is not None and "latency" not in kinds:
            raise UsageError("--latency-table goes with --latency", "six tenths of the time is --latency 0.6")
        if self.round_to not in (None, "auto") and not (isinstance(self.round_to, int) and self.round_to >= 1):
            raise UsageError(f"--round-to {self.round_to} is not a positive number, nor auto")
        if not 0 < self.max_cut <= 1:
            raise UsageError(f"--max-cut {self.max_cut:g} is not in (0, 1]")
        if self.min_channels < 1:
            raise UsageError(f"--min-channels {self.min_channels} is not a positive number")
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch} is not a positive number")
        if self.memory is not None and self.memory < 1:
            raise UsageError(f"--memory {self.memory} is not a positive number of bytes", "four gigabytes: --memory 4G")
        if self.latency_batch < 1:
            raise UsageError(f"--latency-batch {self.latency_batch} is not a positive number")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is negative")

    def _take(self) -> None:
        """Take a list of targets, and a path of a table; refuse what is of another type."""
        if isinstance(self.target, list):
            object.__setattr__(self, "target", tuple(self.target))
        if wrong := [target for target in self.given if not isinstance(target, Target | MaxDrop)]:
            raise UsageError(f"{wrong[0]!r} is no target", 'one is Target("macs", fraction=0.5), or MaxDrop(0.01)')
        for name, one in (("freeze", str), ("overrides", Override)):
            if isinstance(getattr(self, name), one):
                raise UsageError(f"{name} is a tuple, not a single one", f"{name}=(..., )")
        if self.latency_table is not None:
            object.__setattr__(self, "latency_table", str(self.latency_table))

    @property
    def given(self) -> tuple[Target | MaxDrop, ...]:
        """All targets."""
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @property
    def targets(self) -> tuple[Target, ...]:
        """What the result may cost."""
        return tuple(target for target in self.given if isinstance(target, Target))

    def aimed(self, kind: Kind, factor: float) -> PruneOptions:
        """The same options, with ``factor`` times the target of one kind."""
        given = (t.times(factor) if isinstance(t, Target) and t.kind == kind else t for t in self.given)
        return replace(self, target=tuple(given))

    @property
    def rounding(self) -> int | Literal["auto"]:
        """``round_to``; where that is None, 1 without a latency, 8 for one of another device, else ``"auto"``."""
        if self.round_to is not None:
            return self.round_to
        if self.target_of("latency") is None:
            return 1
        return 8 if self.latency_table else "auto"

    @property
    def max_drop(self) -> MaxDrop | None:
        """What the result may lose, where that is a target."""
        return next((target for target in self.given if isinstance(target, MaxDrop)), None)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of all nodes whose channels are left alone."""
        return (*self.freeze, *(override.nodes for override in self.overrides if override.freeze))

    def target_of(self, kind: Kind) -> Target | None:
        """The target of a kind, where there is one."""
        return next((target for target in self.targets if target.kind == kind), None)


def parse_memory(text: str) -> int:
    """Read ``"8G"``, ``"500M"`` or a number of bytes."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if match is None:
        raise UsageError(f"--memory {text!r} is not a number of bytes", "eight gigabytes are --memory 8G")
    return int(float(match[1]) * _COUNTS[match[2]])
