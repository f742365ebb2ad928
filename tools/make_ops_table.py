"""Write docs/ops.md, the table of operators with a rule, from the rules themselves."""

from __future__ import annotations

import argparse
from pathlib import Path

from reap_onnx.ops import Rule, all_rules, left_alone
from reap_onnx.ops.registry import Propagate

TABLE = Path(__file__).parents[1] / "docs" / "ops.md"

_TOP = """\
# Operators

Written by `python tools/make_ops_table.py` from the rules in `reap_onnx/ops`; not edited by hand.

Channels pass through these operators. Those that an operator without a rule reads are frozen, and the report names it;
so are those that a rule cannot follow, for the reason in the last column. An operator that reads no channels needs no
rule, and neither does one that works on constants or on shapes.

| operators | channels | limits |
|---|---|---|
"""


def table() -> str:
    """The whole page."""
    families: dict[Propagate, list[Rule]] = {}
    for rule in all_rules():
        families.setdefault(rule.propagate, []).append(rule)
    rows = [
        f"| {', '.join(rule.op for rule in rules)} | {_first_line(propagate.__doc__)} | {rules[0].limits} |\n"
        for propagate, rules in families.items()
    ]
    reasons: dict[str, list[str]] = {}
    for op, why in sorted(left_alone().items()):
        reasons.setdefault(why, []).append(op)
    rows += [f"| {', '.join(ops)} | none | {why} |\n" for why, ops in reasons.items()]
    return _TOP + "".join(rows)


def _first_line(doc: str | None) -> str:
    assert doc is not None
    return doc.strip().splitlines()[0]


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    TABLE.write_text(table(), encoding="utf-8")
