from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from examples import arrivals, shapes
from examples.net import Net, head, stem
from reap_onnx.model.edit import copy_model, narrow, part, with_constants
from reap_onnx.model.network import Slot
from reap_onnx.runtime.session import Session, probe
from reap_onnx.runtime.verify import difference
from wiring import random_feeds, read

BY_NAME = {example.name: example for example in (*shapes.EXAMPLES, *arrivals.EXAMPLES)}


def values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def readers(model: onnx.ModelProto) -> list[list[str]]:
    return [list(node.input) for node in model.graph.node]


def two_readers(outputs: bool = False) -> onnx.ModelProto:
    """Two products that read one matrix."""
    net = Net()
    matrix = net.constant(net.noise(4, 4), "matrix")
    h = net.op("MatMul", net.op("Relu", net.op("MatMul", net.input("N", 4), matrix)), matrix)
    return net.model(h, *(["matrix"] if outputs else []))


def test_a_copy_shares_nothing() -> None:
    model = two_readers()
    copy = copy_model(model)
    copy.graph.node[0].name = "other"
    assert model.graph.node[0].name == "MatMul_0"


def test_one_reader_keeps_the_name() -> None:
    net = Net()
    network = read(net.model(head(net, stem(net))))
    name = network.nodes[1].inputs[1]
    new = np.ones((4, 6, 1, 1), np.float32)
    model = with_constants(network, {Slot(1, 1): new})
    assert np.array_equal(values(model)[name], new)
    assert readers(model) == readers(network.proto)
    assert list(values(model)) == list(values(network.proto))


def test_readers_that_agree_share() -> None:
    network = read(two_readers())
    model = with_constants(network, {slot: np.eye(4, dtype=np.float32) for slot in (Slot(0, 1), Slot(2, 1))})
    assert {name: value.tolist() for name, value in values(model).items()} == {"matrix": np.eye(4).tolist()}


def test_readers_that_differ_part() -> None:
    network = read(two_readers())
    model = with_constants(network, {Slot(0, 1): np.eye(4, dtype=np.float32), Slot(2, 1): np.ones((4, 4), np.float32)})
    assert readers(model) == [["x", "matrix_1"], ["MatMul_0_out"], ["Relu_1_out", "matrix_2"]]
    assert values(model).keys() == {"matrix_1", "matrix_2"}
    onnx.checker.check_model(model, full_check=True)


def test_a_reader_that_is_not_named_keeps_the_old_value() -> None:
    network = read(two_readers())
    model = with_constants(network, {Slot(2, 1): np.eye(4, dtype=np.float32)})
    assert readers(model) == [["x", "matrix"], ["MatMul_0_out"], ["Relu_1_out", "matrix_1"]]
    assert np.array_equal(values(model)["matrix"], network.constants["matrix"])


def test_an_output_keeps_the_old_value() -> None:
    network = read(two_readers(outputs=True))
    slots = [Slot(0, 1), Slot(2, 1)]
    model = with_constants(network, dict.fromkeys(slots, np.eye(4, dtype=np.float32)))
    assert values(model).keys() == {"matrix", "matrix_1"}
    assert np.array_equal(values(model)["matrix"], network.constants["matrix"])


def test_a_body_keeps_the_old_value_and_its_names() -> None:
    model = BY_NAME["constant_is_read_by_a_body"].model()
    branches = next(node for node in model.graph.node if node.op_type == "If")
    for branch in branches.attribute:
        branch.g.node[0].output[0] = branch.g.output[0].name = "kernel_1"
    network = read(model)
    conv = next(node.index for node in network.nodes if "kernel" in node.inputs)
    edited = with_constants(network, {Slot(conv, 1): np.zeros((4, 6, 1, 1), np.float32)})
    assert edited.graph.node[conv].input[1] == "kernel_2"
    assert np.array_equal(values(edited)["kernel"], network.constants["kernel"])


def test_constant_nodes_go_with_what_they_made() -> None:
    """A chain of nodes whose end is replaced; a part of it that something else reads stays."""
    net = Net()
    value = net.op("Constant", value=numpy_helper.from_array(net.noise(4, 4)))
    copied = net.op("Identity", value)
    h = net.op("MatMul", net.input("N", 4), net.op("Neg", copied))
    network = read(net.model(net.op("MatMul", h, copied)))
    slot = Slot(3, 1)
    model = with_constants(network, {slot: np.eye(4, dtype=np.float32)})
    assert [node.op_type for node in model.graph.node] == ["Constant", "Identity", "MatMul", "MatMul"]
    model = with_constants(network, {slot: np.eye(4, dtype=np.float32), Slot(4, 1): np.eye(4, dtype=np.float32)})
    assert [node.op_type for node in model.graph.node] == ["MatMul", "MatMul"]
    onnx.checker.check_model(model, full_check=True)


def test_what_nobody_read_before_stays() -> None:
    net = Net()
    net.constant(np.ones(3), "left over")
    network = read(net.model(head(net, stem(net))))
    assert "left over" in values(with_constants(network, {Slot(0, 1): np.ones((6, 3, 3, 3), np.float32)}))


def test_a_new_bias_is_named_after_its_node() -> None:
    net = Net()
    net.constant(np.ones(3), "layer_bias")
    h = net.conv(stem(net), 6, 5, bias=False, name="layer")
    network = read(net.model(head(net, h, 5)))
    model = with_constants(network, {Slot(1, 2): np.ones(5, np.float32)})
    assert model.graph.node[1].input[2] == "layer_bias_1"


def test_a_bias_that_was_left_out() -> None:
    net = Net()
    h = net.op("Gemm", net.input("N", 4), net.noise(4, 5), None, name="layer")
    network = read(net.model(h))
    model = with_constants(network, {Slot(0, 2): np.ones(5, np.float32)})
    assert list(model.graph.node[0].input) == ["x", "constant_0", "layer_bias"]
    onnx.checker.check_model(model, full_check=True)


def test_before_ir_4_a_new_constant_is_an_input() -> None:
    net = Net(ir=3, opset=8)
    ones = net.constant(np.ones(6, np.float32), "ones")
    h = net.op("BatchNormalization", stem(net), ones, net.noise(6), net.noise(6), ones)
    network = read(net.model(head(net, h)))
    model = with_constants(network, {Slot(1, 1): np.full(5, 2, np.float32)})
    declared = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input}
    assert declared["ones_1"] == [5]
    assert declared["ones"] == [6]


def test_attributes_are_set_and_removed() -> None:
    net = Net(opset=18)
    parts = net.ops("Split", stem(net), axis=1, num_outputs=2, outputs=2)
    network = read(net.model(*parts))
    model = with_constants(network, {}, {(1, "num_outputs"): None, (1, "axis"): -3})
    assert [(a.name, a.i) for a in model.graph.node[1].attribute] == [("axis", -3)]


def test_a_sparse_weight_becomes_dense() -> None:
    net = Net()
    model = net.model(head(net, stem(net)))
    dense = model.graph.initializer[2]
    weight = numpy_helper.to_array(dense).copy()
    weight[np.abs(weight) < 0.3] = 0
    places = np.flatnonzero(weight)
    model.graph.sparse_initializer.add(
        values=numpy_helper.from_array(weight.reshape(-1)[places], dense.name),
        indices=numpy_helper.from_array(places),
        dims=dense.dims,
    )
    del model.graph.initializer[2]
    network = read(model)
    assert np.array_equal(network.constants[network.nodes[1].inputs[1]], weight)
    edited = with_constants(network, {Slot(1, 1): weight[:, :5], Slot(0, 1): network.constants["constant_0"][:5]})
    assert not edited.graph.sparse_initializer


LOOPS = ("loop_reads_channels", "scan_reads_channels", "layer_in_a_body", "weights_in_sequences")


@pytest.mark.parametrize("name", ["body_beside", "constants_are_inputs@7", "constant_nodes", "resize_in_part", *LOOPS])
def test_a_part_computes_what_the_whole_does(name: str) -> None:
    model = _resized() if name == "resize_in_part" else BY_NAME[name].model()
    feeds = random_feeds(model, batch=2)
    everything = probe(model, feeds)
    network = read(model)
    for node in network.nodes:
        tensor = node.outputs[0]
        if tensor not in network.constants:
            piece = part(model, [tensor])
            assert difference({tensor: everything[tensor]}, Session(piece).run(feeds)) < 1e-5


def _resized() -> onnx.ModelProto:
    net = Net()
    h = stem(net)
    return net.model(head(net, net.op("Resize", h, None, [1.0, 1.0, 2.0, 2.0])))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    part(BY_NAME["stored_as_bfloat16"].model(), ["Conv_1_out"])
    assert capfd.readouterr() == ("", "")


def test_taking_a_part_leaves_the_model_as_it_was() -> None:
    net = Net()
    shape = numpy_helper.from_array(np.array([-1, 4]))
    assert not shape.HasField("name")
    h = net.op("Reshape", net.input("N", 2, 2), net.op("Constant", value=shape))
    model = net.model(net.op("Relu", h))
    before = model.SerializeToString(deterministic=True)
    part(model, [h])
    assert model.SerializeToString(deterministic=True) == before


def test_tensors_inside_a_part_are_inputs_of_it() -> None:
    """Those that it needs, with the rank that they are said to have; what makes them is gone."""
    model = BY_NAME["two_inputs"].model()
    inner, last = model.graph.node[0].output[0], model.graph.output[0].name
    float32 = np.dtype(np.float32)
    piece = part(model, [last], {inner: (float32, 4), last + "_unknown": (float32, 2)})
    assert inner in [value.name for value in piece.graph.input]
    assert inner not in [name for node in piece.graph.node for name in node.output]
    feeds = random_feeds(model, batch=2)
    everything = probe(model, feeds)
    found = Session(piece).run(feeds | {inner: everything[inner]})
    assert difference({last: everything[last]}, found) < 1e-5
    assert [value.name for value in part(model, [inner], {inner: (float32, 4)}).graph.input] == [inner]


def test_a_part_needs_only_its_own_inputs() -> None:
    model = BY_NAME["two_inputs"].model()
    piece = part(model, ["stem_out", "stem_out"])
    assert [value.name for value in piece.graph.input] == ["x"]
    assert [value.name for value in piece.graph.output] == ["stem_out"]
    assert piece.ir_version == model.ir_version
    assert len(piece.graph.initializer) == 2


@pytest.mark.parametrize("ir", [3, 8])
def test_a_node_runs_on_some_positions(ir: int) -> None:
    """The others repeat one of them; names and shapes stay, in files of any age."""
    net = Net(opset=9, ir=ir)
    model = net.model(net.op("LRN", net.input(2, 5, 3, 3), size=3, alpha=3.0, name="norm"))
    kept = np.array([False, True, False, True, True])
    narrowed = copy_model(model)
    narrow(narrowed, "norm_out", 1, kept)
    onnx.checker.check_model(narrowed, full_check=True)
    feeds = random_feeds(model)
    alone = {"x": feeds["x"][:, kept]}
    small = Net(opset=9, ir=ir)
    expected = Session(small.model(small.op("LRN", small.input(2, 3, 3, 3), size=3, alpha=3.0, name="norm"))).run(alone)
    found = Session(narrowed).run(feeds)["norm_out"]
    assert np.array_equal(found, expected["norm_out"][:, [0, 0, 0, 1, 2]])
