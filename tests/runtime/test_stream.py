"""Pieces of a network against the whole: the same tensors, every node run once, files gone at the end."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from examples.shapes import EXAMPLES
from nets import images, residual_net
from reap_onnx.data.dataset import Dataset
from reap_onnx.model.edit import with_constants
from reap_onnx.model.network import Network, Slot
from reap_onnx.runtime.session import probe
from reap_onnx.runtime.stream import MEMORY, Stream
from reap_onnx.runtime.verify import difference
from wiring import random_feeds, read

BY_NAME = {example.name: example for example in EXAMPLES}
SAMPLES = Dataset({"image": images(7)})
STOPS = ["stem/relu_out", "block1/relu1_out", "block1/add_out", "block2/relu1_out", "block2/add_out"]


def run(stream: Stream, network: Network, wanted: list[str], later: list[str]) -> dict[str, np.ndarray]:
    pieces = list(stream.run(network.proto, wanted, later))
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in wanted}


@pytest.mark.parametrize("memory", [MEMORY, 8_000, 0])
def test_pieces_compute_what_the_whole_does(memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = read(residual_net())
    expected = probe(network.proto, SAMPLES.inputs)
    with Stream(network, SAMPLES, batch=3, memory=memory) as stream:
        for number, name in enumerate(STOPS):
            found = run(stream, network, [name], STOPS[number + 1 :])
            assert difference({name: expected[name]}, found) < 1e-5
            assert bool(stream.spilled) == (memory < MEMORY and number + 1 < len(STOPS))
            assert not list(tmp_path.iterdir())  # the file has no name: it goes however the process ends


def test_what_has_run_stays_as_it_was() -> None:
    """Constants behind the cut may change, and what is kept in front of it does not run again."""
    network = read(residual_net())
    stem, last = network.producer["stem_out"], network.producer["block1/conv1_out"]
    zeros = {Slot(node.index, 1): np.zeros_like(network.constants[node.inputs[1]]) for node in (stem, last)}
    with Stream(network, SAMPLES, batch=4) as stream:
        run(stream, network, ["stem/relu_out"], ["block1/conv1_out"])
        (first, second) = stream.run(with_constants(network, zeros), ["block1/conv1_out"])
    bias = network.constants[last.inputs[2]]
    found = np.concatenate([first["block1/conv1_out"], second["block1/conv1_out"]])
    assert np.array_equal(found, np.broadcast_to(bias[:, None, None], found.shape))
    with Stream(network, SAMPLES, batch=4) as stream:
        run(stream, network, ["stem/relu_out"], ["block1/add_out"])
        pieces = list(
            stream.run(with_constants(network, {Slot(stem.index, 1): zeros[Slot(stem.index, 1)]}), ["block1/add_out"])
        )
    expected = probe(network.proto, SAMPLES.inputs)
    assert (
        difference({"y": expected["block1/add_out"]}, {"y": np.concatenate([p["block1/add_out"] for p in pieces])})
        < 1e-5
    )


def test_what_is_not_final_runs_again() -> None:
    """A tensor is seen before the constants in front of it are settled."""
    network = read(residual_net())
    conv = network.producer["block1/conv1_out"]
    zeros = {Slot(conv.index, 1): np.zeros_like(network.constants[conv.inputs[1]])}
    with Stream(network, SAMPLES, batch=4) as stream:
        first = list(stream.run(network.proto, ["block1/conv1_out"], ["block1/conv1_out"], ["stem/relu_out"]))
        second = list(stream.run(with_constants(network, zeros), ["block1/conv1_out"]))
    expected = probe(network.proto, SAMPLES.inputs)["block1/conv1_out"]
    np.testing.assert_allclose(np.concatenate([p["block1/conv1_out"] for p in first]), expected, atol=1e-5)
    assert all(np.ptp(piece["block1/conv1_out"], axis=(0, 2, 3)).max() == 0 for piece in second)


@pytest.mark.parametrize(
    "name", ["body_beside", "body_reads_channels", "constants_are_inputs@7", "two_inputs", "constant_nodes"]
)
def test_every_tensor_in_a_piece_of_its_own(name: str) -> None:
    model = BY_NAME[name].model()
    feeds = random_feeds(model, batch=1)
    network, expected = read(model), probe(model, feeds)
    names = [n for node in network.nodes for n in node.outputs if n in network.shapes and n not in network.constants]
    with Stream(network, Dataset(feeds), batch=1) as stream:
        for number, tensor in enumerate(names):
            assert difference({tensor: expected[tensor]}, run(stream, network, [tensor], names[number + 1 :])) < 1e-5
