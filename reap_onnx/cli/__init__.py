"""The command line: one file per verb, arguments to options to pipeline to exit status."""

from __future__ import annotations

from reap_onnx.cli.app import main

__all__ = ["main"]
