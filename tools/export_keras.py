"""Export networks of Keras, with random weights, by tf2onnx, for ``tools/check_models.py families``.

In an environment of its own:
    pip install tensorflow-cpu==2.15.1 tf2onnx==1.16.1 "onnx<1.17" "protobuf<5" "numpy<2"
    python tools/export_keras.py FOLDER [NAME ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import tensorflow as tf
import tf2onnx

SIZE, CLASSES = 96, 10
FAMILIES = {
    "mobilenet": "MobileNet",
    "mobilenet_v3": "MobileNetV3Small",
    "efficientnet_b0": "EfficientNetB0",
    "resnet50_v2": "ResNet50V2",
    "densenet121": "DenseNet121",
    "inception_v3": "InceptionV3",
    "xception": "Xception",
    "nasnet": "NASNetMobile",
}


def export(name: str, folder: Path) -> Path:
    """Write ``NAME.tf2onnx.onnx``, channels last at its input as Keras has it; norms have seen data."""
    tf.keras.utils.set_random_seed(0)
    make = getattr(tf.keras.applications, FAMILIES[name])
    net = make(weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES, classifier_activation=None)
    for layer in net.layers:
        if hasattr(layer, "momentum"):
            layer.momentum = 0.3
    for _ in range(4):
        net(tf.random.normal((8, SIZE, SIZE, 3)), training=True)
    path = folder / f"{name}.tf2onnx.onnx"
    tf2onnx.convert.from_keras(net, opset=15, output_path=str(path))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("families", nargs="*", default=list(FAMILIES), metavar="NAME")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for family in given.families:
        print(export(family, given.folder), flush=True)
