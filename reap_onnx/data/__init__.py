"""What users have, made into samples for a model: files, folders, scripts, arrays in memory."""

from __future__ import annotations

from reap_onnx.data.dataset import Dataset, InputSpec, input_specs
from reap_onnx.data.images import PRESETS, ImageOptions
from reap_onnx.data.load import load_dataset

__all__ = ["PRESETS", "Dataset", "ImageOptions", "InputSpec", "input_specs", "load_dataset"]
