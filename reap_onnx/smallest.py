"""The smallest model within a drop: networks read off one calibration, refitted, judged on samples held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, NoReturn

import numpy as np

from reap_onnx.data.dataset import Dataset, input_specs
from reap_onnx.describe import describe_targets
from reap_onnx.errors import DataError, TargetError, UsageError
from reap_onnx.graph.channels import Labels
from reap_onnx.graph.groups import Group
from reap_onnx.graph.layer import Layer
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.method.budgets import Budget, meet_budgets
from reap_onnx.method.calibration import Calibration
from reap_onnx.method.costs import exact_budget
from reap_onnx.method.search import find_smallest
from reap_onnx.model.network import Slot
from reap_onnx.numerics.allocate import Ints, allocate
from reap_onnx.options import Kind, Target
from reap_onnx.report.summary import DropSearch, DropTrial, GroupLimit, Judgement, Prunability
from reap_onnx.runtime.feeds import fixed_batch
from reap_onnx.runtime.judge import Judge
from reap_onnx.runtime.session import Session
from reap_onnx.steps import Choice, Given, Run, runnable

_HINT = "give more and others by --eval-data"
STEP = 0.98  # cost of each network over that of the next larger one

Weights = dict[Slot, np.ndarray]
Refit = Callable[[Ints], tuple[Labels, Weights]]


class Found(NamedTuple):
    """A network: units kept, labels removed, new constants."""

    kept: Ints
    removed: Labels
    weights: Weights


class Jury:
    """Samples held out: half of them decide, the other half says what the decision is worth.

    Samples that calibrate are left out, and ``run`` is told. ``measured`` is the digest of samples that statistics
    were measured on by an earlier run, of which only some are at hand: there none may be among them.

    Raises
    ------
    DataError
        There are too few samples, or the metric does not go with them.
    UsageError
        They are those that calibrate.
    """

    def __init__(self, given: Given, run: Run, measured: str | None = None) -> None:
        options, limit = given.options, given.options.max_drop
        assert limit is not None
        batch = fixed_batch(input_specs(given.source.model)) or 1
        judged = given.judged.without(given.dataset)
        known = len(given.judged) - len(judged)
        if not len(judged) or (measured and (known or given.judged.shuffled(options.seed).digest() == measured)):
            raise UsageError("the samples that decide on a drop must not be those that calibrate", _HINT)
        if known:
            run.notes.append(f"{known} of {len(given.judged)} samples calibrate, and have no say in the drop.")
        self.deciding, self.others = judged.halves(options.seed, batch)
        if not len(self.deciding):
            raise DataError(f"{judged.description}: {len(judged)} samples are too few to decide", _HINT)
        original = Session(runnable(given.source), options.providers)
        self._judge = Judge(original, judged, limit, batch=options.batch, seed=options.seed)
        self._judge.check_enough(self.deciding)
        self._given, self.metric, self.limit = given, self._judge.name, limit

    def judge(self, found: Found, samples: Dataset) -> Judgement:
        """Judge a pruned network."""
        pruned = Surgeon(self._given.trace, found.removed, found.weights).operate()
        return self._judge(Session(pruned, self._given.options.providers), samples)


def find_within_drop(
    calibration: Calibration, given: Given, choice: Choice, jury: Jury, refit: Refit, run: Run, kind: Kind
) -> tuple[Found, DropSearch]:
    """The smallest network that meets all targets and loses no more than it may.

    Parameters
    ----------
    refit
        Labels that are gone and new constants at the kept units.
    kind
        The cost that is to be small: MACs or parameters.

    Raises
    ------
    TargetError
        There is none; it is said which target is in the way.
    """
    limit, biases = jury.limit, calibration.new_biases(pairs=given.options.method.pairs)
    budgets, errors = _candidates(calibration, choice, kind, biases)
    whole = budgets[0].cost([curve.width for curve in choice.curves])
    trials, found, decided = list[DropTrial](), list[Found](), list[Judgement]()

    def measure(index: int) -> float:
        kept = meet_budgets(choice.curves, [*choice.budgets, budgets[index]])
        network = Found(kept, *refit(kept))
        with run.stage("judging"):
            judgement = jury.judge(network, jury.deciding)
        trials.append(DropTrial(budgets[index].cost(kept) / whole, judgement.drop))
        if judgement.drop <= limit.drop:
            found[:], decided[:] = [network], [replace(judgement, bound=None)]
        return judgement.drop

    find_smallest(errors, measure, limit.drop, sure=bool(given.options.targets))
    if not found:
        _refuse(given, jury, trials)
    with run.stage("judging"):
        judged = jury.judge(found[0], jury.others)
    search = DropSearch(jury.metric, limit.share, limit.drop, kind, decided[0], judged, tuple(trials))
    return found[0], search


def find_limits(choice: Choice, groups: Sequence[Group], found: Found, search: DropSearch) -> Prunability:
    """The fewest channels of each group alone whose predicted error is that of the network found."""
    allowed = sum(float(curve.error(k)) for curve, k in zip(choice.curves, found.kept, strict=True))
    limits = []
    for group, curve in zip(groups, choice.curves, strict=True):
        kept = min(int(k) for k in curve.choices() if k == curve.width or curve.error(k) <= allowed)
        limits.append(GroupLimit(group.name, group.width, kept * group.channels))
    share = min(trial.share for trial in search.trials if trial.drop <= search.asked)
    return Prunability(share, allowed, tuple(limits), search)


def _candidates(
    calibration: Calibration, choice: Choice, kind: Kind, biases: Sequence[Layer]
) -> tuple[list[Budget], list[float]]:
    """Budgets of falling cost, from what all targets allow to the least in reach, and the errors predicted."""
    widths, budgets, errors = [curve.width for curve in choice.curves], list[Budget](), list[float]()
    share = 1.0
    while True:
        budget = exact_budget(calibration, Target(kind, fraction=share), biases)
        limits = [*choice.budgets, budget]
        try:
            most, names = [limit.most for limit in limits], [limit.name for limit in limits]
            kept = allocate(choice.curves, [limit.cost for limit in limits], most, names)
        except TargetError:
            if budgets:
                return budgets, errors
            raise
        if kept.tolist() != widths:
            error = sum(float(curve.error(k)) for curve, k in zip(choice.curves, kept, strict=True))
            budgets.append(budget)
            errors.append(max([error, *errors[-1:]]))
            widths = kept.tolist()
        share *= STEP


def _refuse(given: Given, jury: Jury, trials: Sequence[DropTrial]) -> NoReturn:
    least = min(trials, key=lambda trial: trial.drop)
    which = f"the network with {least.share:.1%} of the cost"
    hint = "allow a larger --max-drop, or give more samples to calibrate on"
    if targets := given.options.targets:
        which = f"the largest network that meets {describe_targets(targets, given.trace)}"
        hint = "allow a larger --max-drop, or ask for less of the others"
    raise TargetError(
        f"--max-drop is out of reach: {which} loses {jury.limit.show(least.drop)} of {jury.metric} on "
        f"{len(jury.deciding)} samples, {jury.limit.show(jury.limit.drop)} allowed",
        hint,
    )
