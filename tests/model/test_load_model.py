from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from examples.net import Net, head, stem
from reap_onnx.errors import ModelError
from reap_onnx.model.load import load_model


def small() -> onnx.ModelProto:
    net = Net()
    return net.model(head(net, stem(net)))


def test_a_file_and_a_model_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(small(), path)
    from_file, from_memory = load_model(path), load_model(small())
    assert from_file.model == from_memory.model
    assert from_file.sha256 == from_memory.sha256
    assert from_file.name == str(path)
    assert from_memory.name == "model in memory"


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(small(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert load_model(path).model.graph.initializer[0].raw_data == small().graph.initializer[0].raw_data
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=str(path)):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"no model at all", small().SerializeToString()[:-100]])
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=str(path)) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "small.onnx")


def test_an_invalid_graph_is_refused() -> None:
    model = small()
    model.graph.node[1].input[0] = "nowhere"
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(model)
