from __future__ import annotations

import inspect

import pytest

from reap_onnx import errors
from reap_onnx.errors import ReapError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_carries_a_message_and_a_hint(kind: type[ReapError]) -> None:
    error = kind("net.onnx: no such file", "check the path")
    assert (str(error), error.hint) == ("net.onnx: no such file", "check the path")
    assert kind("alone").hint == ""
    assert isinstance(error, ReapError)


def test_the_drawing_is_the_tree() -> None:
    """The docstring draws every class, with its exit status, and no other."""
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("|--", "").replace("`--", "").split()
        if line.startswith("    ") and words:
            drawn[words[0]] = int(words[1])
    assert drawn == {kind.__name__: kind.exit_status for kind in KINDS}


def test_statuses_that_scripts_rely_on() -> None:
    assert {kind.exit_status for kind in KINDS} == {1, 2, 3}
    assert errors.UsageError.exit_status == 2
    assert errors.TargetError.exit_status == errors.CheckError.exit_status == 3
