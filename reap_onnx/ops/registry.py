"""The table of rules: operator name -> how channels pass through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reap_onnx.model.network import Node

if TYPE_CHECKING:
    from reap_onnx.graph.surgery import Surgeon
    from reap_onnx.graph.trace import Trace

Propagate = Callable[[Node, "Trace"], None]
Rewrite = Callable[[Node, "Surgeon"], None]


@dataclass(frozen=True)
class Rule:
    """How channels pass through an operator.

    Parameters
    ----------
    op
        Name of the operator.
    propagate
        Reads the labels of a node's inputs, gives labels to its outputs and constants, ties or freezes
        channels, and registers layers.
    rewrite
        Changes what else names a width (attributes, indices) once channels are gone; labelled constants
        and listed sizes are changed without it.
    reads
        Positions of the inputs that may carry channels, None for all; channels on others are frozen.
    outputs
        How many outputs the rule knows, None for any number; channels are frozen where a further one is read.
    couples
        Whether what becomes of a channel depends on its neighbours. The pruned operator sees only those that are
        left, and so does the masked original (see ``reap_onnx.graph.masking``).
    limits
        What the rule does not do, in a phrase.
    """

    op: str
    propagate: Propagate
    rewrite: Rewrite | None
    reads: tuple[int, ...] | None
    outputs: int | None
    couples: bool
    limits: str


_RULES: dict[str, Rule] = {}
_LEFT_ALONE: dict[str, str] = {}


def rule(
    *ops: str,
    rewrite: Rewrite | None = None,
    reads: tuple[int, ...] | None = (0,),
    outputs: int | None = 1,
    couples: bool = False,
    limits: str = "",
) -> Callable[[Propagate], Propagate]:
    """Register a function as the rule of ``ops``; the parameters are those of :class:`Rule`."""

    def register(propagate: Propagate) -> Propagate:
        for op in ops:
            if op in _RULES:
                raise ValueError(f"{op} has a rule already")
            _RULES[op] = Rule(op, propagate, rewrite, reads, outputs, couples, limits)
        return propagate

    return register


def leave_alone(*ops: str, why: str) -> None:
    """Say why channels that ``ops`` read are frozen, instead of a rule."""
    _LEFT_ALONE.update(dict.fromkeys(ops, why))


def left_alone() -> dict[str, str]:
    """Operators that are left alone, and why."""
    return dict(_LEFT_ALONE)


def find_rule(op: str) -> Rule | None:
    """The rule of an operator, None where there is none."""
    return _RULES.get(op)


def all_rules() -> tuple[Rule, ...]:
    """Every rule, sorted by operator."""
    return tuple(_RULES[op] for op in sorted(_RULES))
