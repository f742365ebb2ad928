"""Export networks of Paddle, with random weights, by paddle2onnx, for ``tools/check_models.py families``.

In an environment of its own:
    pip install paddlepaddle==3.3.1 paddle2onnx==2.1.0 packaging "setuptools<81"
    python tools/export_paddle.py FOLDER [NAME ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import paddle
from paddle.vision import models

SIZE, CLASSES = 96, 10
FAMILIES = {
    "mobilenet_v1": "mobilenet_v1",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3": "mobilenet_v3_small",
    "resnet18": "resnet18",
    "shufflenet_v2": "shufflenet_v2_x0_5",
    "squeezenet": "squeezenet1_1",
    "densenet121": "densenet121",
    "inception_v3": "inception_v3",
}


def export(name: str, folder: Path) -> Path:
    """Write ``NAME.paddle2onnx.onnx``; norms have seen data."""
    paddle.seed(0)
    net = getattr(models, FAMILIES[name])(num_classes=CLASSES)
    for layer in net.sublayers():
        if hasattr(layer, "_momentum"):
            layer._momentum = 0.3
    net.train()
    for _ in range(4):
        net(paddle.randn([8, 3, SIZE, SIZE]))
    net.eval()
    path = folder / f"{name}.paddle2onnx"
    shape = paddle.static.InputSpec([None, 3, SIZE, SIZE], "float32", "x")
    paddle.onnx.export(net, str(path), input_spec=[shape], opset_version=13)
    return path.with_suffix(".paddle2onnx.onnx")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("families", nargs="*", default=list(FAMILIES), metavar="NAME")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for family in given.families:
        print(export(family, given.folder), flush=True)
