"""Small seeded networks and samples, real in every respect but size."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5


@dataclass
class Net:
    """Nodes and weights as they come; every method returns the name of what it made."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def op(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        node = helper.make_node(kind, list(inputs), [f"{name}_out"], name=name, **attributes)
        node.doc_string = f"this is {name}"
        self.nodes.append(node)
        return node.output[0]

    def conv(self, name: str, tensor: str, before: int, after: int, stride: int = 1) -> str:
        weight = self.rng.standard_normal((after, before, 3, 3)) / np.sqrt(9 * before / 2)
        inputs = [self.constant(f"{name}_w", weight), self.constant(f"{name}_b", 0.1 * self.rng.standard_normal(after))]
        return self.op("Conv", name, tensor, *inputs, pads=[1, 1, 1, 1], strides=[stride, stride])

    def norm(self, name: str, tensor: str, count: int) -> str:
        scale, shift = 1 + 0.2 * self.rng.standard_normal(count), 0.2 * self.rng.standard_normal(count)
        values = {"scale": scale, "shift": shift, "mean": shift / 2, "variance": scale**2}
        return self.op(
            "BatchNormalization", name, tensor, *(self.constant(f"{name}_{n}", v) for n, v in values.items())
        )

    def relu(self, name: str, tensor: str) -> str:
        return self.op("Relu", name, tensor)

    def block(self, name: str, tensor: str, width: int, inner: int) -> str:
        """A residual block with one batch norm left in it."""
        hidden = self.norm(f"{name}/bn", self.conv(f"{name}/conv1", tensor, width, inner), inner)
        branch = self.conv(f"{name}/conv2", self.relu(f"{name}/relu1", hidden), inner, width)
        return self.relu(f"{name}/relu2", self.op("Add", f"{name}/add", branch, tensor))

    def classifier(self, tensor: str, width: int) -> str:
        pooled = self.op("Flatten", "flatten", self.op("GlobalAveragePool", "pool", tensor))
        weight = self.constant("head_w", self.rng.standard_normal((CLASSES, width)))
        return self.op("Gemm", "head", pooled, weight, self.constant("head_b", np.zeros(CLASSES)), transB=1)

    def model(self, output: str, shape: list[int | str], batch: int | str = "N") -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "small_net",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, *shape])],
            self.weights,
            doc_string="a graph that says what it is",
        )
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="nets", producer_version="3")
        model.doc_string, model.domain, model.model_version = "a small network", "test.nets", 7
        for key, value in (("names", "{0: 'cat', 1: 'dog'}"), ("stride", "32")):
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual_net(batch: int | str = "N", seed: int = 0) -> onnx.ModelProto:
    """A stem, a residual block on 8 channels, a step down to 16, a residual block there, a classifier."""
    net = Net(np.random.default_rng(seed))
    tensor = net.relu("stem/relu", net.conv("stem", "image", 3, 8))
    tensor = net.block("block1", tensor, 8, 16)
    tensor = net.relu("down/relu", net.conv("down", tensor, 8, 16, stride=2))
    tensor = net.block("block2", tensor, 16, 16)
    return net.model(net.classifier(tensor, 16), [CLASSES], batch)


def chaotic_net() -> onnx.ModelProto:
    """A network whose output hangs on the last bit of its sums, so that nothing can be proven about it."""
    net = Net(np.random.default_rng(1))
    tensor = net.relu("relu1", net.conv("conv1", "image", 3, 16))
    tensor = net.relu("relu2", net.conv("conv2", tensor, 16, 8))
    large = net.op("Mul", "enlarge", net.classifier(tensor, 8), net.constant("factor", np.array(1e9)))
    return net.model(net.op("Sin", "wave", large), [CLASSES])


def images(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random images, (count, 3, 8, 8) float32."""
    noise = np.random.default_rng(seed).standard_normal((count, 3, 10, 10))
    smooth = sum(noise[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 3
    return smooth.astype(np.float32)


def outputs(model: onnx.ModelProto | str, array: np.ndarray) -> np.ndarray:
    """First output of a model, by onnxruntime alone."""
    source = model if isinstance(model, str) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: array})[0]


def widths(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Input and output channels of every Conv and Gemm, by node name."""
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    found = ((n.name, shapes[n.input[1]]) for n in model.graph.node if n.op_type in ("Conv", "Gemm"))
    return {name: (shape[1], shape[0]) for name, shape in found}


def macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulates at batch 1, counted by hand: 8 x 8 positions before the step down, 4 x 4 after it."""
    sides = {"stem": 8, "block1/conv1": 8, "block1/conv2": 8, "down": 4, "block2/conv1": 4, "block2/conv2": 4}
    convs = sum(sides[n] ** 2 * 9 * i * o for n, (i, o) in widths(model).items() if n != "head")
    return convs + widths(model)["head"][0] * CLASSES


def params(model: onnx.ModelProto) -> int:
    """Elements of all weights."""
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer)
