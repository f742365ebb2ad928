from __future__ import annotations

import pytest

from examples.net import Example
from examples.quantization import EXAMPLES
from wiring import prove


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_pruned_equals_masked(example: Example) -> None:
    prove(example)
