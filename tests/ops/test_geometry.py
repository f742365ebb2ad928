"""Convolutions of any geometry: the wiring holds, and rows and targets fit the weights."""

from __future__ import annotations

from typing import Any

import onnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx.shape_inference import InferenceError

from examples.net import Net
from reap_onnx.errors import ModelError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from wiring import prove_cut, prove_refit, read


@st.composite
def models(draw: st.DrawFn, kind: str) -> onnx.ModelProto:
    """1 x 1 convolution, the one in question, an activation, 1 x 1 convolution."""
    rank = draw(st.integers(1, 3))

    def sizes(low: int, high: int, count: int = rank) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    kernel, strides, dilations = sizes(1, 3), sizes(1, 3), sizes(1, 2)
    attributes: dict[str, Any] = {"strides": strides, "dilations": dilations}
    padding = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "output_shape"]))
    space = sizes(3, 9 - 2 * rank if rank > 1 else 12)
    if padding == "pads":
        attributes["pads"] = sizes(0, 2, 2 * rank)
    elif padding == "output_shape" and kind == "ConvTranspose":
        attributes["output_shape"] = [size * stride + 1 for size, stride in zip(space, strides, strict=True)]
    elif padding != "output_shape":
        attributes["auto_pad"] = padding
    if kind == "ConvTranspose" and draw(st.booleans()):
        reach = [max(s, d) for s, d in zip(strides, dilations, strict=True)]
        attributes["output_padding"] = [draw(st.integers(0, most - 1)) for most in reach]
    group = draw(st.sampled_from([1, 1, 2, 4]))
    width, after = group * draw(st.integers(1, 3)), group * draw(st.integers(1, 3))
    net = Net(seed=draw(st.integers(0, 9)))
    ones = (1,) * rank
    h = net.conv(net.input("N", 4, *space), 4, width, *ones)
    bias = draw(st.booleans())
    h = net.conv(h, width, after, *kernel, kind=kind, group=group, bias=bias, **attributes)
    try:
        model = net.model(net.conv(net.op("LeakyRelu", h), after, 3, *ones))
        read(model)
    except (InferenceError, ModelError):
        assume(False)  # a geometry that leaves no output
    return model


def _prove(model: onnx.ModelProto) -> None:
    trace = Trace(read(model))
    prunable = [group for group in find_groups(trace) if not group.frozen]
    prove_cut(trace, prunable, [(len(group.units) + 1) // 2 for group in prunable])
    if prunable:
        prove_refit(model, samples=15)


@given(models("Conv"))
@settings(deadline=None, max_examples=20)
def test_conv(model: onnx.ModelProto) -> None:
    _prove(model)


@given(models("ConvTranspose"))
@settings(deadline=None, max_examples=20)
def test_conv_transpose(model: onnx.ModelProto) -> None:
    _prove(model)
