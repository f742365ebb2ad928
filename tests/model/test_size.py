from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from nets import images, outputs, residual_net
from reap_onnx import PruneOptions, Target, apply, inspect, prune
from reap_onnx.errors import ModelError
from reap_onnx.model import size
from reap_onnx.model.edit import copy_model
from reap_onnx.model.load import load_model
from reap_onnx.model.size import byte_size, digest, is_large
from reap_onnx.runtime.session import Session
from wiring import random_feeds

OPTIONS = PruneOptions(Target("macs", 0.6))
MODEL = residual_net()
WHOLE = onnx.ModelProto.SerializeToString


def test_sizes() -> None:
    model = residual_net()
    assert not is_large(model)
    assert byte_size(model) == len(model.SerializeToString())


def test_every_byte_counts_in_the_digest() -> None:
    """Of weights, of where they are, of everything else."""
    model, found = residual_net(), {digest(residual_net())}
    tensors = model.graph.initializer
    first, second = tensors[0].raw_data, tensors[2].raw_data
    tensors[0].raw_data = first[:-1] + bytes([first[-1] ^ 1])
    found.add(digest(model))
    tensors[0].raw_data, tensors[2].raw_data = first + second[:4], second[4:]
    found.add(digest(model))
    tensors[0].raw_data, tensors[2].raw_data = first, second
    assert digest(model) in found
    model.doc_string += "."
    found.add(digest(model))
    assert len(found) == 4


@pytest.fixture
def small_protobufs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a protobuf could hold 4 kB: what is larger is never serialised in one piece."""
    limit = 4000
    for name, value in (("EXTERNAL_FROM", limit), ("APART_FROM", limit), ("INLINE", 100)):
        monkeypatch.setattr(size, name, value)

    def serialize(model: onnx.ModelProto, **options: bool) -> bytes:
        data: bytes = WHOLE(model, **options)
        weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        assert weights <= limit, "too large for one piece"
        return data

    monkeypatch.setattr(onnx.ModelProto, "SerializeToString", serialize)


@pytest.mark.usefixtures("small_protobufs")
def test_models_that_no_protobuf_holds(tmp_path: Path) -> None:
    """Read, pruned, written with their data in a file of its own, and replayed."""
    assert is_large(MODEL)
    onnx.save(
        copy_model(MODEL), tmp_path / "in.onnx", save_as_external_data=True, location="in.bin", size_threshold=100
    )
    result = prune(tmp_path / "in.onnx", images(60), OPTIONS, output=tmp_path / "out.onnx", plan=tmp_path / "plan.json")
    assert {path.name for path in tmp_path.iterdir()} == {"in.onnx", "in.bin", "out.onnx", "out.onnx.data", "plan.json"}
    assert result.summary.before.size > result.summary.after.size
    assert outputs(str(tmp_path / "out.onnx"), images(5)).shape == (5, 5)
    again = apply(tmp_path / "in.onnx", tmp_path / "plan.json", output=tmp_path / "again.onnx")
    assert again.model == result.model
    assert inspect(MODEL).inspection.reach == 1.0


@pytest.mark.usefixtures("small_protobufs")
def test_weights_of_a_large_model_go_beside_it() -> None:
    """No protobuf is made of them; what is computed, and the bytes counted, stay the same."""
    feeds, large = random_feeds(MODEL), Session(MODEL)
    assert large.weights
    assert byte_size(MODEL) == pytest.approx(len(WHOLE(MODEL)), rel=0.05)
    exposed = Session(MODEL, expose=[MODEL.graph.node[0].output[0]]).run(feeds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(size, "APART_FROM", size.EXTERNAL_FROM * 1000)
        patch.setattr(onnx.ModelProto, "SerializeToString", WHOLE)
        small = Session(MODEL)
        assert not small.weights
        assert np.array_equal(large.run(feeds)["head_out"], small.run(feeds)["head_out"])
        whole = Session(MODEL, expose=list(exposed)).run(feeds)
    assert all(np.array_equal(exposed[name], whole[name]) for name in whole)


@pytest.mark.usefixtures("small_protobufs")
def test_what_onnxruntime_does_not_take_as_an_array_stays_in_the_graph() -> None:
    """Weights that nothing reads, types that numpy lacks, vectors of whole numbers."""
    model = copy_model(MODEL)
    unread = onnx.numpy_helper.from_array(np.ones((10, 10), np.float32), "unread")
    half = onnx.helper.make_tensor("half", onnx.TensorProto.BFLOAT16, [16, 16], b"\0" * 512, raw=True)
    shape = onnx.numpy_helper.from_array(np.arange(50), "shape")
    model.graph.initializer.extend([unread, half, shape])
    model.graph.node.extend(
        [
            onnx.helper.make_node("Cast", ["half"], ["single"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Identity", ["shape"], ["same"]),
        ]
    )
    session = Session(model, expose=["single", "same", "head_out"])
    assert session.weights
    assert not {"unread", "half", "shape"} & set(session.weights)
    found = session.run(random_feeds(MODEL))
    assert found["single"].shape == (16, 16)
    np.testing.assert_allclose(found["head_out"], Session(MODEL).run(random_feeds(MODEL))["head_out"], rtol=1e-4)


@pytest.mark.usefixtures("small_protobufs")
def test_a_large_model_is_checked() -> None:
    broken = copy_model(MODEL)
    broken.graph.node[0].op_type = "Cnov"
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(broken)


def test_data_of_constant_nodes_is_external_too(tmp_path: Path) -> None:
    model = residual_net()
    tensor = model.graph.initializer[0]
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[0]
    convert = {"save_as_external_data": True, "location": "data.bin", "size_threshold": 0, "convert_attribute": True}
    onnx.save(copy_model(model), tmp_path / "in.onnx", **convert)
    source = load_model(tmp_path / "in.onnx")
    assert source.files == (tmp_path / "in.onnx", tmp_path / "data.bin")
    result = prune(tmp_path / "in.onnx", images(60), OPTIONS, output=tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").exists()
    assert np.array_equal(outputs(str(tmp_path / "out.onnx"), images(5)), outputs(result.model, images(5)))
