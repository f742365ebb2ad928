from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from examples.arrivals import EXAMPLES
from examples.net import Example, Net
from nets import images, outputs, residual_net
from reap_onnx import PruneOptions, Target, inspect, prune
from reap_onnx.errors import ModelError, TargetError
from wiring import prove

OPTIONS = PruneOptions(Target("macs", 0.6))


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_pruned_equals_masked(example: Example) -> None:
    prove(example)


def in_type(dtype: type, kind: int) -> onnx.ModelProto:
    """A network whose numbers are all of one type."""
    model = residual_net()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model


def test_halves_are_refitted_like_floats() -> None:
    """Statistics are kept in float32; weights are written back as they came."""
    half = prune(in_type(np.float16, TensorProto.FLOAT16), images(150).astype(np.float16), OPTIONS)
    full = prune(residual_net(), images(150), OPTIONS)
    assert {tensor.data_type for tensor in half.model.graph.initializer} == {TensorProto.FLOAT16}
    fresh = images(100, seed=1)
    before, expected = outputs(residual_net(), fresh), outputs(full.model, fresh)
    got = outputs(half.model, fresh.astype(np.float16)).astype(np.float32)
    error, allowed = np.linalg.norm(got - before), np.linalg.norm(expected - before)
    assert error < 1.2 * allowed


def test_what_onnxruntime_cannot_run_is_refused() -> None:
    """It has no convolution of bfloat16 numbers on processors."""
    with pytest.raises(ModelError, match="onnxruntime does not load the model") as caught:
        inspect(in_type(ml_dtypes.bfloat16, TensorProto.BFLOAT16))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("domain", "kind"),
    [("com.microsoft", "NhwcConv"), ("com.microsoft", "NhwcFusedConv"), ("com.ms.internal.nhwc", "Conv")],
)
def test_a_layout_of_another_processor_is_refused(domain: str, kind: str) -> None:
    """Float convolutions with channels last, as onnxruntime writes them for others than this one."""
    net = Net()
    h = net.op(kind, net.input("N", 8, 8, 3), net.noise(6, 3, 1, 1), domain=domain, name="first")
    net.graph.output.append(helper.make_tensor_value_info(h, TensorProto.FLOAT, ["N", 8, 8, 6]))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    with pytest.raises(ModelError, match=rf"{kind}.*'first'") as caught:
        inspect(helper.make_model(net.graph, opset_imports=opsets, ir_version=8))
    assert "before it was optimised" in caught.value.hint


class _Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self._samples = iter(images(10))

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self._samples, None)
        return None if sample is None else {"image": sample[None]}


def _static(path: Path) -> None:
    quantize_static(residual_net(), path, _Reader(), quant_format=QuantFormat.QOperator)


def _channels_last(path: Path) -> None:
    """QDQ, optimised for this processor: integer layers, some with channels last."""
    with_nodes = path.with_name("qdq.onnx")
    quantize_static(residual_net(), with_nodes, _Reader(), quant_format=QuantFormat.QDQ)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(str(with_nodes), options, providers=["CPUExecutionProvider"])


def _dynamic(path: Path) -> None:
    quantize_dynamic(residual_net(), path, op_types_to_quantize=["Conv", "MatMul"])


@pytest.mark.parametrize(
    ("quantise", "op"),
    [(_static, "QLinearConv"), (_dynamic, "ConvInteger"), (_channels_last, "com.microsoft.QGemm")],
)
def test_integer_operators_are_named(tmp_path: Path, quantise: Callable[[Path], None], op: str) -> None:
    quantise(tmp_path / "q.onnx")
    found = inspect(tmp_path / "q.onnx").inspection
    assert any(f"{op}: no rule" in note for note in found.notes)
    with pytest.raises(TargetError):
        prune(tmp_path / "q.onnx", images(20), OPTIONS)
