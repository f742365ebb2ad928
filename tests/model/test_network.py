from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from examples.net import Net, head, stem
from reap_onnx.model.network import Network, Node, Slot
from reap_onnx.runtime.session import probe
from wiring import random_feeds, read


def test_who_makes_and_who_reads() -> None:
    net = Net()
    h = stem(net)
    total = net.op("Add", h, net.op("Relu", h))
    network = read(net.model(head(net, total)))
    assert network.producer[h].name == "stem"
    assert [node.op for node in network.readers[h]] == ["Relu", "Add"]
    assert list(network.slots(h)) == [Slot(1, 0), Slot(2, 0)]
    assert not network.read_once(h)
    assert network.read_once(total)
    assert network.is_read("head_out")
    assert network.inputs == ("x",)
    assert network.outputs == ("head_out",)
    assert network.shapes[h] == (1, 6, 8, 8)
    assert network.opset == 17


def test_one_node_may_read_a_tensor_twice() -> None:
    net = Net()
    h = stem(net)
    network = read(net.model(net.op("Mul", h, h)))
    assert list(network.slots(h)) == [Slot(1, 0), Slot(1, 1)]
    assert len(network.readers[h]) == 1
    assert not network.read_once(h)


def test_an_output_that_is_read_once_is_read_by_the_world_too() -> None:
    net = Net()
    h = stem(net)
    network = read(net.model(h, head(net, h)))
    assert not network.read_once(h)


def test_what_depends_on_no_input_is_constant() -> None:
    net = Net()
    h = stem(net)
    copied = net.op("Transpose", net.op("Identity", net.noise(6, 4)), perm=[1, 0])
    drawn = net.op("RandomNormal", shape=[6, 1, 1])
    shape = net.op("Shape", h)
    first = net.op("Slice", shape, [0], [2])
    network = read(net.model(head(net, net.op("Add", h, drawn)), copied, first))
    assert network.constants[copied].shape == (4, 6)
    assert drawn not in network.constants
    assert shape not in network.constants
    assert network.small[first].tolist() == [1, 6]
    known = network.known(first)
    assert known is not None
    assert known.tolist() == [1, 6]
    assert network.known(h) is None
    assert network.known("") is None


def test_large_integers_are_no_shapes() -> None:
    net = Net()
    x = net.input(100, dtype=TensorProto.INT64)
    network = read(net.model(net.op("Neg", x)))
    assert network.known("Neg_0_out") is None


def test_names_for_people() -> None:
    named = Node(0, helper.make_node("Relu", ["a"], ["b"], name="first"))
    nameless = Node(3, helper.make_node("Relu", ["a"], ["", "b"], domain="ai.onnx"))
    foreign = Node(4, helper.make_node("Relu", ["a"], [""], domain="org.example"))
    assert (named.name, nameless.name, foreign.name) == ("first", "b", "org.example.Relu 4")
    assert (named.op, nameless.op, foreign.op) == ("Relu", "Relu", "org.example.Relu")
    assert (named.input(0), named.input(1)) == ("a", "")


def test_bodies_read_from_outside_at_any_depth() -> None:
    """An inner body reads a, the outer one b; what a body makes or is given is its own."""
    inner = helper.make_graph([helper.make_node("Add", ["a", "given"], ["r"])], "inner", [], [_value("r")])
    deep = helper.make_node("If", ["b"], ["s"], then_branch=inner, else_branch=inner)
    outer = helper.make_graph([deep], "outer", [_value("given"), _value("i"), _value("c")], [_value("c"), _value("d")])
    node = Node(0, helper.make_node("Loop", ["", "", "x"], ["y"], body=outer))
    assert node.captured == ("a", "b", "d")


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def test_initializers_that_are_inputs_too() -> None:
    net = Net(ir=3, opset=8)
    network = read(net.model(head(net, stem(net))))
    assert network.inputs == ("x",)
    assert len(network.constants) == 4


def test_what_a_sample_leaves_behind() -> None:
    net = Net()
    h = net.op("Relu", stem(net))
    model = net.model(head(net, h), net.op("Transpose", net.noise(70, 70)))  # of no sample, and larger
    for batch in (1, 3):
        values = probe(model, {"x": np.zeros((batch, 3, 8, 8), np.float32)})
        found = Network(model, values).bytes_of_a_sample
        assert max(found) * batch == values[h].nbytes
        assert 2 * max(found) < sum(found) < sum(value.nbytes for value in values.values()) / batch


def test_the_batch_of_the_run() -> None:
    net = Net()
    model = net.model(head(net, stem(net)))
    assert Network(model, probe(model, random_feeds(model, batch=3))).batch == 3
