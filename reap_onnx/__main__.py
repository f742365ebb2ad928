"""``python -m reap_onnx``."""

from __future__ import annotations

import sys

from reap_onnx.cli import main

sys.exit(main())
