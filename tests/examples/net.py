"""A compact builder of seeded models, and what is expected of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Input = str | np.ndarray | Sequence[int] | float | None


class Net:
    """A graph under construction; what it adds is named after the operator and its number."""

    def __init__(self, opset: int = 17, ir: int = 8, seed: int = 0) -> None:
        self.opset, self.ir = opset, ir
        self.rng = np.random.default_rng(seed)
        self.graph = onnx.GraphProto(name="example")

    def input(self, *shape: int | str, name: str = "x", dtype: int = TensorProto.FLOAT) -> str:
        self.graph.input.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, value: object, name: str = "") -> str:
        """An initializer; numbers are int64 or float32."""
        array = np.asarray(value)
        if array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(np.float32)
        tensor = numpy_helper.from_array(array, name or f"constant_{len(self.graph.initializer)}")
        self.graph.initializer.append(tensor)
        if self.ir < 4:
            self.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, array.shape))
        return tensor.name

    def noise(self, *shape: int) -> np.ndarray:
        """Weights that keep the size of what passes through them."""
        scale = np.sqrt(max(np.prod(shape[1:]), 1)) if len(shape) > 1 else 1.0
        return (self.rng.standard_normal(shape) / scale).astype(np.float32)

    def op(self, kind: str, *inputs: Input, outputs: int = 1, name: str = "", **attributes: object) -> str:
        return self.ops(kind, *inputs, outputs=outputs, name=name, **attributes)[0]

    def ops(self, kind: str, *inputs: Input, outputs: int = 1, name: str = "", **attributes: object) -> list[str]:
        name = name or f"{kind}_{len(self.graph.node)}"
        names = ["" if i is None else i if isinstance(i, str) else self.constant(i) for i in inputs]
        made = [f"{name}_out{n or ''}" for n in range(outputs)]
        self.graph.node.append(helper.make_node(kind, names, made, name=name, **attributes))
        return made

    def conv(
        self,
        x: str,
        before: int,
        after: int,
        *kernel: int,
        bias: bool = True,
        kind: str = "Conv",
        name: str = "",
        **attributes: object,
    ) -> str:
        """A convolution; 1 x 1 where no kernel is given."""
        group = int(attributes.get("group", 1))  # type: ignore[call-overload]
        kernel = kernel or (1, 1)
        shape = (before, after // group, *kernel) if kind == "ConvTranspose" else (after, before // group, *kernel)
        return self.op(kind, x, self.noise(*shape), *([self.noise(after)] if bias else []), name=name, **attributes)

    def linear(self, x: str, before: int, after: int, name: str = "") -> str:
        return self.op("Gemm", x, self.noise(before, after), self.noise(after), name=name)

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The model, its outputs typed by shape inference."""
        weights = {t.name: helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in self.graph.initializer}
        self.graph.output.extend(weights.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)
        domains = sorted({node.domain for node in self.graph.node} - {""})
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(self.graph, opset_imports=opsets, ir_version=self.ir)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


@dataclass(frozen=True)
class Example:
    """A model and its groups.

    Parameters
    ----------
    units
        Units of each prunable group, in the order of the graph.
    frozen
        Words that the reasons of frozen groups hold.
    """

    name: str
    build: Callable[[Net], str | Sequence[str]]
    units: tuple[int, ...]
    frozen: tuple[str, ...]
    opset: int
    ir: int

    def __str__(self) -> str:
        return self.name

    def model(self) -> onnx.ModelProto:
        net = Net(self.opset, self.ir)
        outputs = self.build(net)
        return net.model(*([outputs] if isinstance(outputs, str) else outputs))


class Examples(list[Example]):
    """The examples of one file."""

    def add(
        self, *units: int, frozen: Sequence[str] = (), opset: int | Sequence[int] = 17, ir: int = 8, name: str = ""
    ) -> Callable[[Callable[[Net], str | Sequence[str]]], Callable[[Net], str | Sequence[str]]]:
        """Register a function that builds a model; one example for each opset."""

        def register(build: Callable[[Net], str | Sequence[str]]) -> Callable[[Net], str | Sequence[str]]:
            for version in [opset] if isinstance(opset, int) else opset:
                suffix = "" if isinstance(opset, int) else f"@{version}"
                label = (name or build.__name__) + suffix
                self.append(Example(label, build, units, tuple(frozen), version, ir))
            return build

        return register


def stem(net: Net, width: int = 6, name: str = "stem") -> str:
    """An image through a first convolution."""
    x = "x" if any(i.name == "x" for i in net.graph.input) else net.input("N", 3, 8, 8)
    return net.conv(x, 3, width, 3, 3, pads=[1, 1, 1, 1], name=name)


def head(net: Net, x: str, width: int = 6, name: str = "head") -> str:
    """A last convolution."""
    return net.conv(x, width, 4, name=name)
