from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from examples.net import Net, head, stem
from examples.shapes import EXAMPLES
from reap_onnx.errors import ModelError, UsageError
from reap_onnx.runtime import session
from reap_onnx.runtime.session import Session, find_providers, probe, probe_sizes
from wiring import random_feeds

BY_NAME = {example.name: example for example in EXAMPLES}


def small() -> onnx.ModelProto:
    net = Net()
    return net.model(head(net, net.op("Relu", stem(net))))


def test_runs_a_model_and_a_file(tmp_path: Path) -> None:
    model = small()
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    feeds = random_feeds(model, batch=2)
    [expected] = ReferenceEvaluator(model).run(None, feeds)
    for source in (model, path, str(path)):
        session = Session(source)
        assert session.outputs == ("head_out",)
        assert [spec.name for spec in session.inputs] == ["x"]
        assert session.batch is None
        assert np.allclose(session.run(feeds)["head_out"], expected, atol=1e-5)


def test_feeds_that_it_has_no_input_for_are_left_out() -> None:
    model = small()
    feeds = random_feeds(model) | {"more": np.zeros(3)}
    assert list(Session(model).run(feeds, ["head_out"])) == ["head_out"]


def test_a_fixed_batch() -> None:
    assert Session(BY_NAME["fixed_batch"].model()).batch == 4


def test_what_onnxruntime_refuses_is_a_model_error() -> None:
    model = small()
    model.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ModelError, match="does not load") as caught:
        Session(model)
    assert "\n" not in str(caught.value)


def test_what_does_not_run_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="does not run"):
        Session(small()).run({"x": np.zeros((1, 4, 8, 8), np.float32)})


def test_providers_by_part_of_their_name() -> None:
    assert find_providers(["cpu"]) == ["CPUExecutionProvider"]
    assert find_providers(["CPUExec", "cpu"]) == ["CPUExecutionProvider"]
    assert Session(small(), ("cpu",), threads=1).providers == ("CPUExecutionProvider",)
    with pytest.raises(UsageError, match="no provider 'abacus'") as caught:
        find_providers(["abacus"])
    assert "cpu" in caught.value.hint


def test_a_provider_that_does_not_load_is_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build may name what its machine lacks: onnxruntime then runs on the processor without a word."""
    real, both = session.ort.InferenceSession, ["CUDAExecutionProvider", "CPUExecutionProvider"]

    asked = []

    def without_its_libraries(*arguments: Any, providers: list[str], provider_options: list[dict[str, str]]) -> Any:
        assert providers == both
        asked.append(provider_options)
        return real(*arguments, providers=both[1:])

    monkeypatch.setattr(session.ort, "get_available_providers", lambda: both)
    monkeypatch.setattr(session.ort, "InferenceSession", without_its_libraries)
    with pytest.raises(UsageError, match="provider CUDAExecutionProvider does not load"):
        Session(small(), ("cuda",))
    with pytest.raises(UsageError, match="provider CUDAExecutionProvider does not load"):
        Session(small(), ("cuda",), full_precision=True)
    assert asked == [[{}, {}], [{"use_tf32": "0"}, {}]], "times are taken as they are elsewhere"


def test_a_probe_has_every_tensor() -> None:
    model = small()
    feeds = random_feeds(model)
    values = probe(model, feeds)
    names = {name for node in model.graph.node for name in (*node.input, *node.output)}
    assert values.keys() == names
    assert np.array_equal(np.maximum(values["stem_out"], 0), values["Relu_1_out"])
    assert np.array_equal(values["x"], feeds["x"])
    assert [output.name for output in model.graph.output] == ["head_out"], "the model is left alone"


def test_sizes_of_larger_inputs() -> None:
    """Open sizes are doubled, all of them or the batch alone, whatever the model runs with."""
    net = Net()
    h = net.op("Relu", net.input("N", 3, "H", 8))
    net.op("Shape", h)
    flexible = net.model(h)
    feeds = random_feeds(flexible)
    assert probe_sizes(flexible, feeds)["Shape_1_out"].tolist() == [2, 3, 16, 8]
    fixed = net.model(net.op("Add", h, net.noise(8, 1)))
    assert probe_sizes(fixed, feeds)["Shape_1_out"].tolist() == [2, 3, 8, 8]
    single = net.model(net.op("Add", net.op("Reshape", h, [1, 3, 8, 8]), 1.0))
    assert probe_sizes(single, feeds) == {}
    assert probe_sizes(small(), random_feeds(small())) == {}


def test_a_probe_of_bodies_and_shapes() -> None:
    model = BY_NAME["body_reads_a_shape"].model()
    values = probe(model, random_feeds(model))
    assert values["Shape_1_out"].tolist() == [1, 6, 8, 8]
    assert "inner" not in values
