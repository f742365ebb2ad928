"""What all tests share. Being here puts this folder on their path."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Matrices are small here: threads of the linear algebra would only wait for each other. Set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _times_of_the_tests_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Times that are measured here stay here, and none that are known from elsewhere are used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REAP_ONNX_CACHE", str(tmp_path_factory.mktemp("times")))
        yield
