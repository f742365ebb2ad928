from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from examples import arrivals, networks
from examples.net import Example, Net, head, stem
from nets import images, residual_net
from reap_onnx import PruneOptions, Target, inspect, prune
from reap_onnx.errors import TargetError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.model.normalise import normalise
from reap_onnx.runtime.session import Session
from reap_onnx.runtime.verify import difference
from wiring import prove, random_feeds, read

BY_NAME = {example.name: example for example in arrivals.EXAMPLES}
OTHERWISE = ("branch_is_decided", "fused_convolutions@10", "fused_convolutions@17", "fused_products")
LEVELS = {
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def optimised(model: onnx.ModelProto, level: str, path: Path) -> onnx.ModelProto:
    """What onnxruntime makes of a model."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = LEVELS[level]
    options.optimized_model_filepath = str(path)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


@dataclass(frozen=True)
class Optimised(Example):
    level: str
    path: Path

    def model(self) -> onnx.ModelProto:
        return optimised(super().model(), self.level, self.path)


@pytest.mark.parametrize("name", OTHERWISE)
def test_the_normal_form_computes_the_same(name: str) -> None:
    model = BY_NAME[name].model()
    before = model.SerializeToString(deterministic=True)
    normal = normalise(model)
    feeds = random_feeds(model, batch=2)
    assert normal is not model
    assert model.SerializeToString(deterministic=True) == before
    assert normalise(normal) is normal
    assert difference(Session(model).run(feeds), Session(normal).run(feeds)) < 1e-5


def test_a_model_in_normal_form_is_left_alone() -> None:
    model = residual_net()
    assert normalise(model) is model


def test_names_and_order_stay() -> None:
    nodes = normalise(BY_NAME["fused_convolutions@17"].model()).graph.node
    expected = "Conv Relu Conv LeakyRelu Conv Clip Conv Conv Add Tanh Conv Cast Reshape".split()
    assert [node.op_type for node in nodes if node.op_type != "Constant"] == expected
    assert [node.output[0] for node in nodes if node.op_type in ("Relu", "LeakyRelu", "Clip", "Tanh")] == [
        "FusedConv_0_out",
        "FusedConv_1_out",
        "FusedConv_2_out",
        "FusedConv_4_out",
    ]


@pytest.mark.parametrize("level", ["basic", "extended"])
@pytest.mark.parametrize("example", networks.EXAMPLES, ids=str)
def test_optimised_by_onnxruntime(example: Example, level: str, tmp_path: Path) -> None:
    """Its groups are the same, if in another order."""
    known = (example.frozen, example.opset, example.ir, level, tmp_path / "optimised.onnx")
    groups = find_groups(Trace(read(normalise(Optimised(example.name, example.build, (), *known).model()))))
    units = tuple(len(group.units) for group in groups if not group.frozen)
    assert sorted(units) == sorted(example.units)
    prove(Optimised(example.name, example.build, units, *known))


def test_a_layout_of_one_processor_is_refused(tmp_path: Path) -> None:
    """Weights are interleaved for the processor at hand: nothing can be pruned, and why is said."""
    model = optimised(residual_net(), "all", tmp_path / "all.onnx")
    if not any(node.domain == "com.microsoft.nchwc" for node in model.graph.node):
        pytest.skip("onnxruntime has no such layout here")
    found = inspect(model).inspection
    assert any("com.microsoft.nchwc.Conv" in note and "before" in note for note in found.notes)
    with pytest.raises(TargetError, match="no group"):
        prune(model, images(20), PruneOptions(Target("macs", 0.5)))


def with_functions() -> onnx.ModelProto:
    """A block of two layers as a function that is called twice, and one that it calls itself."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("blocks", 1)]
    act = helper.make_function("blocks", "Act", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], opsets[:1])
    nodes = [
        helper.make_node("Conv", ["a", "w"], ["h"], name="first"),
        helper.make_node("Act", ["h"], ["g"], domain="blocks"),
        helper.make_node("Conv", ["g", "v"], ["b"], name="second"),
    ]
    block = helper.make_function("blocks", "Block", ["a", "w", "v"], ["b"], nodes, opsets)
    net = Net()
    h = stem(net)
    for number, (before, after) in enumerate(((6, 5), (6, 7))):
        weights = [net.noise(after, before, 1, 1), net.noise(6, after, 1, 1)]
        h = net.op("Block", h, *weights, domain="blocks", name=f"block{number}")
    head(net, h)
    net.graph.output.append(helper.make_tensor_value_info("head_out", TensorProto.FLOAT, ["N", 4, 8, 8]))
    return helper.make_model(net.graph, opset_imports=opsets, functions=[act, block], ir_version=8)


def test_functions_are_inlined() -> None:
    model = with_functions()
    normal = normalise(model)
    feeds = random_feeds(model, batch=2)
    assert not normal.functions
    assert difference(Session(model).run(feeds), Session(normal).run(feeds)) == 0
    groups = inspect(model).inspection.groups
    assert [group.width for group in groups if not group.frozen] == [6, 5, 6, 7, 6]


def test_a_model_with_functions_is_pruned_and_saved(tmp_path: Path) -> None:
    onnx.save(with_functions(), tmp_path / "functions.onnx")
    samples = np.random.default_rng(0).standard_normal((40, 3, 8, 8)).astype(np.float32)
    options = PruneOptions(Target("macs", 0.7))
    result = prune(tmp_path / "functions.onnx", samples, options, output=tmp_path / "out.onnx")
    assert result.summary.after.macs <= 0.7 * result.summary.before.macs
    assert Session(tmp_path / "out.onnx").run({"x": samples})["head_out"].shape == (40, 4, 8, 8)


def test_nothing_asked_for_nothing_changed() -> None:
    model = with_functions()
    samples = np.zeros((4, 3, 8, 8), np.float32)
    result = prune(model, samples, PruneOptions(Target("macs", 1.0)))
    assert result.model == model


def test_a_default_decides_nothing() -> None:
    """Whoever runs the model may give another value; before IR version 4 all constants were inputs."""
    for ir, decided in ((8, False), (3, True)):
        net = Net(ir=ir)
        flag = net.constant(np.array(True), "flag")
        bodies = [
            helper.make_graph([helper.make_node(kind, ["stem_out"], ["y"])], kind, [], [onnx.ValueInfoProto(name="y")])
            for kind in ("Relu", "Neg")
        ]
        stem(net)
        h = net.op("If", flag, then_branch=bodies[0], else_branch=bodies[1])
        if ir >= 4:
            net.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
        assert (normalise(net.model(head(net, h))).graph.node[1].op_type == "Relu") == decided


def test_constants_of_a_branch_come_along() -> None:
    """Two branches have names in common."""
    net = Net()
    h = stem(net)
    for _ in range(2):
        body = onnx.GraphProto(name="body")
        body.initializer.append(numpy_helper.from_array(net.noise(6, 6, 1, 1), "inner"))
        body.node.append(helper.make_node("Conv", [h, "inner"], ["y"]))
        body.node.append(helper.make_node("Relu", ["y"], ["z"]))
        body.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, list("nchw")) for name in "zy")
        a, b = net.ops("If", np.array(True), then_branch=body, else_branch=body, outputs=2)
        h = net.op("Add", a, b)
    model = net.model(head(net, h))
    normal = normalise(model)
    feeds = random_feeds(model)
    assert difference(Session(model).run(feeds), Session(normal).run(feeds)) < 1e-6
    assert "If" not in {node.op_type for node in normal.graph.node}
    onnx.checker.check_model(normal, full_check=True)
