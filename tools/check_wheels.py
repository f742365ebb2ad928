"""Prune the models of tools/fetch_models.py, and others named, and print one row for each.

Usage: python tools/check_wheels.py FOLDER/*.onnx [--macs 0.8] [--images FOLDER]

A row: the model, the share of its MACs in layers that prunable groups reach, seconds of inspect, MACs kept, the
largest difference found by the wiring check, the error of the outputs (root mean square of the difference over that of
the original, the worst output), and what is left alone, with the reason. Samples are made up, as below;
a model that has none is fed the images of ``--images``, prepared as for ImageNet. The pruned model is written, checked
and run. Where the target cannot be met, the row is the one for the smallest target that can.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from reap_onnx import ImageOptions, PruneOptions, ReapError, Target, TargetError, inspect, prune

SAMPLES = 24
STEP = 0.02  # by which the target grows where it cannot be met

Make = Callable[[np.random.Generator, int], np.ndarray]


def noise(*shape: int) -> Make:
    return lambda rng, count: rng.standard_normal((count, *shape), np.float32)


def ink(height: int, width: int) -> Make:
    """Dark blocks on a bright ground, coarse as print is: on noise a text detector says nothing at all."""

    def make(rng: np.random.Generator, count: int) -> np.ndarray:
        blocks = np.where(rng.random((count, 1, height // 16, width // 16)) < 0.3, -1, 1)
        return np.tile(blocks.repeat(16, 2).repeat(16, 3), (1, 3, 1, 1)).astype(np.float32)

    return make


def number(value: int) -> Make:
    return lambda rng, count: np.full(count, value, np.int64)


SHAPES: dict[str, dict[str, Make]] = {
    "magika_model": {"bytes": lambda rng, count: rng.integers(0, 257, (count, 2048)).astype(np.int32)},
    "nudenet_320n": {"images": noise(3, 320, 320)},
    "rapidocr_onnxruntime_ch_PP-OCRv4_det_infer": {"x": ink(320, 320)},
    "rapidocr_onnxruntime_ch_PP-OCRv4_rec_infer": {"x": ink(48, 320)},
    "rapidocr_onnxruntime_ch_ppocr_mobile_v2.0_cls_infer": {"x": ink(48, 192)},
    "silero_vad_silero_vad": {"input": noise(288), "state": noise(2, 128), "sr": number(8000)},
    "silero_vad_silero_vad_16k_op15": {"input": noise(576), "state": noise(2, 128), "sr": number(16000)},
    "silero_vad_silero_vad_16k_sequence": {"input": noise(576), "h": noise(1, 128), "c": noise(1, 128)},
    "silero_vad_silero_vad_half": {"input": noise(576), "state": noise(2, 128)},
    "silero_vad_silero_vad_op18_ifless": {"input": noise(576), "state": noise(2, 128), "sr": number(16000)},
    "silero_vad_silero_vad_openvino_16k": {"input": noise(576), "state": noise(1, 128)},
}


def samples(model: Path, images: Path | None) -> Any:
    """Random arrays of the model's shapes, or a folder of images."""
    if model.stem in SHAPES:
        rng = np.random.default_rng(0)
        return {name: make(rng, SAMPLES) for name, make in SHAPES[model.stem].items()}
    return images


def row(model: Path, data: Any, macs: float, output: Path) -> dict[str, object]:
    """Inspect a model, prune it, write it: what is to be said of it."""
    images, count = ImageOptions(preset="imagenet"), 200 if isinstance(data, Path) else None
    start = time.perf_counter()
    found = inspect(model, data=None if isinstance(data, Path) else data).inspection
    seconds = time.perf_counter() - start
    frozen = Counter(group.frozen for group in found.groups if group.frozen)
    line: dict[str, object] = {
        "model": model.stem,
        "reach": f"{found.reach:.2%}",
        "inspect": f"{seconds:.2f} s",
        "left alone": [f"{times} x {reason}" for reason, times in frozen.items()] + list(found.notes),
    }
    for target in np.arange(macs, 1.0, STEP):
        options = PruneOptions(Target("macs", round(float(target), 4)), batch=8)
        try:
            result = prune(model, data, options, output=output, force=True, images=images, samples=count)
        except TargetError as error:
            line["target"] = str(error)
            continue
        summary = result.summary
        assert summary.comparison is not None
        kept, worst = summary.after.macs / summary.before.macs, max(o.relative for o in summary.comparison.outputs)
        line |= {"MACs kept": f"{kept:.2%}", "wiring": f"{summary.wiring_error:.1e}", "output error": f"{worst:.2%}"}
        break
    return line


def main() -> None:
    """Read the arguments, print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--macs", type=float, default=0.8, help="fraction of the MACs that is kept")
    parser.add_argument("--images", type=Path, help="images for models that are not from the wheels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for model in options.models:
            try:
                line = row(model, samples(model, options.images), options.macs, Path(work) / "pruned.onnx")
            except ReapError as error:
                line = {"model": model.stem, "refused": str(error)}
            print("; ".join(f"{name}: {value}" for name, value in line.items()), flush=True)


if __name__ == "__main__":
    main()
