from __future__ import annotations

import pytest

from examples.net import Example
from examples.networks import EXAMPLES
from wiring import prove, prove_refit


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_pruned_equals_masked(example: Example) -> None:
    prove(example)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_refit_with_nothing_removed(example: Example) -> None:
    prove_refit(example.model())
