"""What all tests share. Being here puts this folder on their path."""

from __future__ import annotations

import os

# Matrices are small here: threads of the linear algebra would only wait for each other. Set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
