from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from reap_onnx.data import place
from reap_onnx.data.dataset import Dataset, InputSpec
from reap_onnx.data.images import ImageOptions
from reap_onnx.data.load import load_dataset
from reap_onnx.data.place import append, in_file, let_go, pieces, placed, read, taken
from reap_onnx.errors import DataError

SPEC = (InputSpec("x", np.dtype(np.float32), (None, 3, 8, 8)),)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "PIECE", 2000)  # two samples or three


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float16, np.int64])
def test_parts_are_one_array_wherever_it_lies(dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    whole = np.random.default_rng(0).integers(0, 200, (7, 3, 5)).astype(dtype)
    parts = [whole[:3], whole[3:4], whole[4:]]
    near = placed(iter(parts), whole.shape, dtype, whole.nbytes)
    far = placed(iter(parts), whole.shape, dtype, whole.nbytes - 1)
    assert (in_file(near), in_file(far)) == (False, True)
    for found in (near, far, pickle.loads(pickle.dumps(far))):
        assert found.dtype == dtype
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, whole)
    let_go([far, far[2:], near, "no array"])
    np.testing.assert_array_equal(far, whole)
    assert not list(tmp_path.iterdir())


def test_pieces_are_all_samples_in_their_order(small_pieces: None) -> None:
    array = np.arange(10 * 200, dtype=np.float32).reshape(10, 200)
    starts, found = zip(*read(array), strict=True)
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate(found), array)
    np.testing.assert_array_equal(np.diff(starts), [len(some) for some in found[:-1]])
    order = np.random.default_rng(0).permutation(10)
    found = list(taken(array, order))
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate(found), array[order])
    assert not list(read(array[:0]))
    assert [some.stop - some.start for some in pieces(10, 800, 3)] == [2, 2, 2, 2, 2]
    assert [some.stop - some.start for some in pieces(10, 1, 3)] == [3, 3, 3, 1]
    assert [some.stop - some.start for some in pieces(3, 10**9)] == [1, 1, 1]


@pytest.mark.parametrize("count", [1, 3, 100_000])
def test_a_full_disk_is_said(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_full_disk(**words: Any) -> IO[bytes]:
        words.pop("prefix")
        return open("/dev/full", "wb", **words)

    monkeypatch.setattr(tempfile, "TemporaryFile", on_a_full_disk)
    with pytest.raises(DataError, match=f"samples .*{os.strerror(errno.ENOSPC)}") as caught:
        placed([np.ones(count)], (count,), np.float64, 0)
    assert "TMPDIR" in caught.value.hint


def test_what_the_address_space_has_no_room_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(np, "memmap", refuse)
    with pytest.raises(DataError, match=os.strerror(errno.ENOMEM)):
        placed([np.ones(3)], (3,), np.float64, 0)


def test_a_large_number_beside_the_samples_is_no_trouble(tmp_path: Path) -> None:
    x = np.ones((9, 3, 8, 8), np.float32)
    np.savez(tmp_path / "x.npz", x=x, note=np.array("long" * 1000))
    found = load_dataset(tmp_path / "x.npz", SPEC, memory=1000)
    np.testing.assert_array_equal(found.inputs["x"], x)
    assert "note" in found.description


def test_a_map_of_the_users_keeps_what_they_wrote(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 3), np.float32))
    theirs = np.load(tmp_path / "x.npy", mmap_mode="c")
    theirs[:] = 5
    let_go([theirs, np.asarray(theirs)])
    np.testing.assert_array_equal(theirs, 5)


SOURCES = ("npz", "compressed npz", "npy", "images", "folder", "columns first")


@pytest.mark.parametrize("kind", SOURCES)
def test_samples_are_the_same_in_memory_and_in_a_file(kind: str, tmp_path: Path, small_pieces: None) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 3, 8, 8), np.float32)
    pixels = rng.integers(0, 256, (9, 8, 8, 3), np.uint8)
    source: object = tmp_path / "x.npz"
    match kind:
        case "npz":
            np.savez(tmp_path / "x.npz", x=x, labels=np.arange(9))
        case "compressed npz":
            np.savez_compressed(tmp_path / "x.npz", x=x.astype(np.float64))
        case "npy":
            source = tmp_path / "x.npy"
            np.save(tmp_path / "x.npy", x)
        case "images":
            np.savez(tmp_path / "x.npz", x=pixels)
        case "columns first":
            np.savez(tmp_path / "x.npz", x=np.asfortranarray(x))
        case "folder":
            image = pytest.importorskip("PIL.Image")
            source = tmp_path
            for number, some in enumerate(pixels):
                image.fromarray(some).save(tmp_path / f"{number}.png")
    images = ImageOptions(preset="imagenet") if kind in ("images", "folder") else ImageOptions()
    for samples in (None, 5):
        near = load_dataset(source, SPEC, images=images, samples=samples, seed=1)
        far = load_dataset(source, SPEC, images=images, samples=samples, seed=1, memory=1000)
        assert not in_file(near.inputs["x"])
        assert in_file(far.inputs["x"])
        assert (near.digest(), near.description) == (far.digest(), far.description)
        for one, other in zip(near.shuffled(3).batches(4), far.shuffled(3).batches(4), strict=True):
            assert in_file(other["x"])
            np.testing.assert_array_equal(one["x"], other["x"])
        first, second = far.halves(0)
        assert len(first.without(second)) == len(first)


@pytest.mark.parametrize("samples", [5, None])
def test_arrays_that_are_not_packed_are_read_where_they_are(
    samples: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.random.default_rng(0).standard_normal((40, 3, 8, 8), np.float32)
    written: list[int] = []

    def counted(file: IO[bytes], array: np.ndarray, what: str) -> None:
        written.append(array.nbytes)
        append(file, array, what)

    monkeypatch.setattr(place, "append", counted)
    for name, save in (("stored", np.savez), ("packed", np.savez_compressed)):
        written.clear()
        save(tmp_path / f"{name}.npz", allow_pickle=False, first=np.arange(7), x=x, unused=x)
        load_dataset(tmp_path / f"{name}.npz", SPEC, samples=samples, memory=1000)
        copied = 2 * x.nbytes if name == "packed" else 0  # all arrays; a copy of all samples is theirs already
        chosen = 0 if name == "packed" and samples is None else (samples or 40) * x[0].nbytes
        assert sum(written) == copied + chosen


def test_a_stored_array_that_is_not_what_was_written_is_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 3, 8, 8), np.float32))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[3000] ^= 1
    (tmp_path / "x.npz").write_bytes(content)
    for memory in (None, 1000):
        with pytest.raises(DataError, match="cannot be read: Bad CRC"):
            load_dataset(tmp_path / "x.npz", SPEC, memory=memory)


def test_values_that_are_not_finite_are_found_in_any_piece(tmp_path: Path, small_pieces: None) -> None:
    x = np.zeros((9, 3, 8, 8), np.float32)
    x[[5, 8], 0, 0, 0] = np.inf, np.nan
    np.savez(tmp_path / "x.npz", x=x)
    with pytest.raises(DataError, match=r"infinite values in sample 5 \(2 such samples\)"):
        load_dataset(tmp_path / "x.npz", SPEC, memory=100)


def test_a_large_array_that_ends_early_is_damaged(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((9, 3, 8, 8), np.float32))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-50])
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_dataset(tmp_path / "x.npz", SPEC, memory=100)
    assert "damaged" in caught.value.hint


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read there")
def test_samples_in_a_file_take_no_memory(tmp_path: Path) -> None:
    """Five times the samples, as much memory, in processes of their own."""
    code = """
import sys
from pathlib import Path
import numpy as np
import onnx
from reap_onnx.data.dataset import InputSpec
from reap_onnx.data.load import load_dataset
from reap_onnx.model.network import Network
from reap_onnx.runtime.session import probe
from reap_onnx.runtime.stream import Stream
data = load_dataset(sys.argv[1], (InputSpec("x", np.dtype(np.float32), (None, 3, 100, 100)),), memory=1_000_000)
data = data.shuffled(0)
data.digest()
assert data.without(data.first(3)).inputs["x"] is not data.inputs["x"]
x, y = (onnx.helper.make_tensor_value_info(name, 1, ["N", 3, 100, 100]) for name in "xy")
graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
network = Network(model, probe(model, {"x": np.zeros((1, 3, 100, 100), np.float32)}))
with Stream(network, data, batch=10, memory=10_000_000) as stream:
    tensors = stream.run(model, ["y"], ["x"])
    print(sum(map(lambda batch: float(batch["y"].sum()), tensors)))
    assert stream.spilled == 0
print(dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())["VmHWM"].split()[0])
"""
    peaks = []
    for count in (400, 2000):
        x = np.random.default_rng(0).integers(1, 3, (count, 3, 100, 100)).astype(np.float32)
        np.savez(tmp_path / "x.npz", x=x)
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "x.npz"], capture_output=True, text=True, check=True
        )
        total, peak = map(float, done.stdout.split())
        assert total == x.sum(dtype=np.float64)
        peaks.append(peak * 1024)
    assert peaks[1] - peaks[0] < 40_000_000  # where the samples take 192 MB more


def test_a_dataset_of_the_users_stays_where_it_is() -> None:
    x = np.zeros((4, 3, 8, 8), np.float32)
    assert load_dataset(Dataset({"x": x}), SPEC, memory=1).inputs["x"] is x
