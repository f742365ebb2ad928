"""Limits that hold for some layers alone, read from a small TOML file.

    ["/layer1/*"]
    max_cut = 0.5
    round_to = 8

    ["/head/*"]
    freeze = true

Each table is headed by a pattern of node names, as for ``--freeze``. Where several name the same layer, the last says
what it says; a layer that one of them freezes is frozen, whatever the others say.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from reap_onnx.errors import UsageError


@dataclass(frozen=True)
class Override:
    """What holds for the channels that some layers make, instead of what holds for all; None: as for all.

    Parameters
    ----------
    nodes
        Glob pattern of the names of these nodes, or of their outputs.
    freeze
        Leave them alone.
    max_cut
        Largest share of a group's channels that may go, in (0, 1].
    min_channels
        Smallest width, at least 1.
    round_to
        What a pruned width is a multiple of, at least 1.
    keep
        The width itself; no other one competes.
    """

    nodes: str
    freeze: bool = False
    max_cut: float | None = None
    min_channels: int | None = None
    round_to: int | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.freeze, bool):
            raise self._wrong("freeze", "true or false")
        if self.max_cut is not None and not (type(self.max_cut) in (int, float) and 0 < self.max_cut <= 1):
            raise self._wrong("max_cut", "in (0, 1]")
        for name in ("min_channels", "round_to", "keep"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise self._wrong(name, "a positive whole number")

    def _wrong(self, name: str, right: str) -> UsageError:
        return UsageError(f"overrides of {self.nodes!r}: {name} = {getattr(self, name)!r} is not {right}", _EXAMPLE)

    def matches(self, names: Collection[str]) -> bool:
        """Whether one of the names is meant."""
        return any(fnmatchcase(name, self.nodes) for name in names)


def merge_overrides(overrides: Sequence[Override], names: Collection[str]) -> Override:
    """What holds for a layer of these names: of every limit what is said last."""
    said: dict[str, Any] = {}
    for override in overrides:
        if override.matches(names):
            said |= {name: value for name in _LIMITS if (value := getattr(override, name)) is not None}
    return Override("", **said)


def read_overrides(path: Path) -> tuple[Override, ...]:
    """Overrides from a TOML file, in its order.

    Raises
    ------
    UsageError
        The file cannot be read, is no TOML, or says something that is no limit.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--overrides {path} cannot be read: {error.strerror}", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--overrides {path} is no TOML: {error}", _EXAMPLE) from error
    found = []
    for nodes, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"--overrides {path}: {nodes} stands under no pattern of node names", _EXAMPLE)
        if unknown := sorted(set(table) - {"freeze", *_LIMITS}):
            raise UsageError(
                f"--overrides {path}: unknown key {unknown[0]!r} for {nodes!r}", f"use freeze, {', '.join(_LIMITS)}"
            )
        found.append(Override(nodes, **table))
    return tuple(found)


_LIMITS = tuple(field.name for field in fields(Override) if field.name not in ("nodes", "freeze"))
_EXAMPLE = 'a pattern in brackets and quotes, then limits: ["/layer1/*"] max_cut = 0.5'
