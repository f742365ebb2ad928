from __future__ import annotations

import numpy as np
import onnx
import pytest

from examples import quantization
from examples.net import Net, head, stem
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.surgery import Surgeon
from reap_onnx.graph.trace import Trace
from reap_onnx.model.network import Slot
from reap_onnx.runtime.session import Session
from wiring import cut, pruned, random_feeds, read


def trace_of(model: onnx.ModelProto) -> Trace:
    return Trace(read(model))


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def inputs(model: onnx.ModelProto, name: str) -> list[np.ndarray]:
    """Constants that a node reads."""
    node = next(node for node in model.graph.node if node.name == name)
    return [constants(model)[tensor] for tensor in node.input if tensor in constants(model)]


def test_what_is_left_is_what_was_there() -> None:
    net = Net()
    trace = trace_of(net.model(head(net, stem(net))))
    before = trace.network.proto
    after = pruned(trace, np.array([2, 5]))
    kept = [0, 2, 3, 5]
    assert np.array_equal(inputs(after, "stem")[0], inputs(before, "stem")[0][kept])
    assert np.array_equal(inputs(after, "stem")[1], inputs(before, "stem")[1][kept])
    assert np.array_equal(inputs(after, "head")[0], inputs(before, "head")[0][:, kept])
    assert np.array_equal(inputs(after, "head")[1], inputs(before, "head")[1])
    assert [node.name for node in after.graph.node] == [node.name for node in before.graph.node]
    assert list(constants(after)) == list(constants(before))


def test_new_weights_are_cut_too() -> None:
    net = Net()
    trace = trace_of(net.model(head(net, stem(net), 6)))
    weight, bias = np.arange(24.0, dtype=np.float32).reshape(4, 6, 1, 1), np.full(4, 7, np.float32)
    after = Surgeon(trace, [1], {Slot(1, 1): weight, Slot(1, 2): bias}).operate()
    assert np.array_equal(inputs(after, "head")[0], weight[:, 1:])
    assert np.array_equal(inputs(after, "head")[1], bias)


def test_a_bias_where_there_was_none() -> None:
    net = Net()
    h = net.conv(stem(net), 6, 5, bias=False, name="middle")
    trace = trace_of(net.model(head(net, h, 5)))
    bias = np.arange(5, dtype=np.float32)
    units = find_groups(trace)[1].units
    after = Surgeon(trace, units[:2], {Slot(1, 2): bias}).operate()
    assert np.array_equal(inputs(after, "middle")[1], bias[2:])
    onnx.checker.check_model(after, full_check=True)


def test_numbers_in_attributes_by_hand() -> None:
    """Split and Pad of opset 11, a Slice of opset 9, a group count."""
    net = Net(opset=11)
    a, b = net.ops("Split", stem(net), outputs=2, axis=1, split=[2, 4], name="parts")
    padded = net.op("Pad", b, [0, 2, 0, 0, 0, 1, 0, 0], name="padded")
    model = net.model(head(net, a, 2), head(net, padded, 7, name="other"))
    trace = trace_of(model)
    after = pruned(trace, np.array([1, 3, 4]))
    assert next(node for node in after.graph.node if node.name == "parts").attribute[1].ints == [1, 2]
    assert inputs(after, "padded")[0].tolist() == [0, 2, 0, 0, 0, 1, 0, 0]
    news = [group.units for group in find_groups(trace) if not group.makers]
    after = pruned(trace, np.array([1, 3, 4, news[0][0]]))
    assert inputs(after, "padded")[0].tolist() == [0, 1, 0, 0, 0, 1, 0, 0]


def test_bounds_of_a_slice_by_hand() -> None:
    net = Net()
    part = net.op("Slice", stem(net, 8), [-6], [2**31], [1], name="part")
    trace = trace_of(net.model(head(net, part, 6), head(net, stem(net, 8, name="more"), 8, name="other")))
    after = pruned(trace, np.array([1, 4, 8]))
    assert [value.tolist() for value in inputs(after, "part")] == [[1], [5], [1]]


def test_indices_of_a_gather_by_hand() -> None:
    net = Net()
    part = net.op("Gather", stem(net), [5, 0, -2, 5], axis=1, name="part")
    trace = trace_of(net.model(head(net, part, 4)))
    assert inputs(pruned(trace, np.array([1, 3])), "part")[0].tolist() == [3, 2, 3]


def test_attributes_are_rewritten_though_constant_nodes_go() -> None:
    """Nodes that held the old weights are gone, and the later ones have moved up."""
    net = Net(opset=11)
    weight = onnx.numpy_helper.from_array(net.noise(6, 3, 1, 1))
    h = net.op("Conv", net.input("N", 3, 4, 4), net.op("Constant", value=weight))
    a, b = net.ops("Split", h, outputs=2, axis=1, split=[2, 4], name="parts")
    after = pruned(trace_of(net.model(head(net, a, 2), head(net, b, 4, name="other"))), np.array([1, 3, 4]))
    assert [node.op_type for node in after.graph.node] == ["Conv", "Split", "Conv", "Conv"]
    assert after.graph.node[1].attribute[1].ints == [1, 2]
    onnx.checker.check_model(after, full_check=True)


def test_declared_shapes_are_mended() -> None:
    net = Net()
    h = net.op("Relu", net.conv(stem(net), 6, 5))
    model = net.model(head(net, h, 5))
    weight = model.graph.initializer[2]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(weight.name, 1, weight.dims))
    trace = trace_of(model)
    after = pruned(trace, cut([group for group in find_groups(trace) if not group.frozen], [2, 3]))
    declared = {
        info.name: [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in after.graph.value_info
    }
    assert declared == {
        "stem_out": ["N", 2, 8, 8],
        "Conv_1_out": ["N", 3, 8, 8],
        "Relu_2_out": ["N", 3, 8, 8],
        "head_out": ["N", 4, 8, 8],
        weight.name: [3, 2, 1, 1],
    }


def test_symbols_are_not_kept_for_sizes_that_shrink() -> None:
    """Two tensors whose sizes are both called 3*batch lose different heads."""
    net = Net()
    x, h = net.input(1, 5, 4), ""
    for _ in range(2):
        tokens = net.op("MatMul", h or x, net.noise(6 if h else 4, 6))
        folded = net.op("Relu", net.op("Transpose", net.op("Reshape", tokens, [5, 3, 2]), perm=[1, 0, 2]))
        h = net.op("Reshape", net.op("Transpose", folded, perm=[1, 0, 2]), [1, 5, 6])
    model = net.model(net.op("MatMul", h, net.noise(6, 3)))
    for info in model.graph.value_info:
        dims = info.type.tensor_type.shape.dim
        if [dim.dim_value for dim in dims] == [3, 5, 2]:
            dims[0].dim_param = "3*batch"
    trace = trace_of(model)
    first, second = (group for group in find_groups(trace) if not group.frozen)
    after = pruned(trace, np.concatenate([first.units[:1], second.units[:2]]))
    assert not any(dim.dim_param for info in after.graph.value_info for dim in info.type.tensor_type.shape.dim)
    Session(after).run(random_feeds(after))


def test_declarations_of_what_nobody_reads_go() -> None:
    """The places that a MaxPool found shrink with its channels, though no rule knows of them."""
    net = Net()
    h, places = net.ops("MaxPool", stem(net), kernel_shape=[2, 2], outputs=2)
    model = net.model(head(net, h))
    assert places in {info.name for info in model.graph.value_info}
    after = pruned(trace_of(model), np.array([1]))
    assert places not in {info.name for info in after.graph.value_info}
    onnx.checker.check_model(after, full_check=True)


@pytest.mark.parametrize("removed", [[], [1, 2]])
def test_everything_else_stays_as_it_is(removed: list[int]) -> None:
    net = Net()
    model = net.model(head(net, stem(net)))
    model.producer_name, model.doc_string, model.domain, model.model_version = "maker", "a model", "org.example", 7
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    model.graph.doc_string = "its graph"
    model.graph.initializer[0].doc_string = "a weight"
    model.graph.node[0].doc_string = "a node"
    after = pruned(trace_of(model), np.array(removed, np.int64))
    for field in ("producer_name", "doc_string", "domain", "model_version", "ir_version", "opset_import"):
        assert getattr(after, field) == getattr(model, field)
    assert after.metadata_props == model.metadata_props
    assert after.graph.doc_string == "its graph"
    assert after.graph.initializer[0].doc_string == "a weight"
    assert after.graph.node == model.graph.node
    assert after.graph.input == model.graph.input
    assert after.graph.output == model.graph.output


def test_value_info_without_a_shape_stays_without() -> None:
    model = next(example for example in quantization.EXAMPLES if example.name == "per_channel").model()
    for info in model.graph.value_info:
        info.type.tensor_type.ClearField("shape")
    trace = Trace(read(model))
    after = Surgeon(trace, find_groups(trace)[0].units[:2], {}).operate()
    assert not any(info.type.tensor_type.HasField("shape") for info in after.graph.value_info)
