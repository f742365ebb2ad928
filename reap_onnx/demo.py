"""What the demonstration runs on: a small network and real images that come with the package."""

from __future__ import annotations

from pathlib import Path

from reap_onnx.data.images import ImageOptions
from reap_onnx.errors import ModelError
from reap_onnx.options import PruneOptions, Target

MODEL = "vgg_cifar10.onnx"
CALIBRATION = "cifar10_calibration.npz"  # 512 training images without labels
TEST = "cifar10_test.npz"  # 1,000 test images with labels
IMAGES = ImageOptions(preset="imagenet")
OPTIONS = PruneOptions(Target("macs", fraction=0.5), round_to=16)

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = (_PACKAGE / "_demo", _PACKAGE.parent / "models")  # in a wheel; in a source tree


def shipped_file(name: str) -> Path:
    """Path of a file that comes with the package.

    Raises
    ------
    ModelError
        This installation does not have it.
    """
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{name}: this installation does not have it", "install reap-onnx from a wheel or its source tree")
