from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from reap_onnx.data import InputSpec
from reap_onnx.data.arrays import is_test_data, read_npy, read_npz, read_polygraphy, read_test_data, stack
from reap_onnx.errors import DataError

FLOAT = np.dtype(np.float32)
# Written by polygraphy 0.53 (run --save-inputs): x (1, 2) float32 and ids (1, 1) int64, values 1.5 and 0.
POLYGRAPHY_X = (
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPGY0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDEsIDIpLCB9ICAgICAg"
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAMA/AADAPw=="
)
POLYGRAPHY_IDS = (
    "k05VTVBZAQB2AHsnZGVzY3InOiAnPGk4JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwgJ3NoYXBlJzogKDEsIDEpLCB9ICAgICAg"
    "ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIAoAAAAAAAAAAA=="
)


def written_by_polygraphy(path: Path, iterations: int = 1) -> Path:
    arrays = {"x": POLYGRAPHY_X, "ids": POLYGRAPHY_IDS}
    item = {name: {"array": text, "polygraphy_class": "ndarray"} for name, text in arrays.items()}
    path.write_text(json.dumps([item] * iterations, indent=4))
    return path


# .npz and .npy


def test_npz_round_trip(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "labels": np.array([1, 0])}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "x.npz", **arrays)
        result = read_npz(tmp_path / "x.npz")
        assert result.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4)])
def test_npy_round_trip(tmp_path: Path, shape: tuple[int, int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.save(tmp_path / "x.npy", array)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), array)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    objects = np.array([np.zeros(2), np.zeros(3)], dtype=object)
    np.savez(tmp_path / "x.npz", ragged=objects)
    np.save(tmp_path / "x.npy", objects)
    objects.dump(tmp_path / "y.npy")
    for read, name in ((read_npz, "x.npz"), (read_npy, "x.npy"), (read_npy, "y.npy")):
        with pytest.raises(DataError, match="pickled arrays are not read") as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
        assert "plain arrays" in caught.value.hint


def test_foreign_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npy").write_text("hello")
    for read, name in ((read_npz, "text.npz"), (read_npz, "empty.npz"), (read_npy, "text.npy")):
        with pytest.raises(DataError, match="is not an") as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
        assert caught.value.hint


def test_truncated_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((20, 20)))
    np.save(tmp_path / "x.npy", np.zeros((20, 20)))
    for read, name in ((read_npz, "x.npz"), (read_npy, "x.npy")):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(DataError, match="cannot be read") as caught:
            read(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "damaged" in caught.value.hint


def test_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"readme\.txt"):
        read_npz(tmp_path / "x.npz")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
def test_a_wrong_byte_is_an_error_or_an_array_never_a_crash(tmp_path: Path, position: int, value: int) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(12, dtype=np.int64).reshape(3, 4))
    data = bytearray(buffer.getvalue())
    data[position % len(data)] = value
    (tmp_path / "x.npz").write_bytes(data)
    with contextlib.suppress(DataError):
        assert all(isinstance(array, np.ndarray) for array in read_npz(tmp_path / "x.npz").values())


# polygraphy


def test_polygraphy_json(tmp_path: Path) -> None:
    result = read_polygraphy(written_by_polygraphy(tmp_path / "in.json", iterations=2))
    np.testing.assert_array_equal(result["x"], np.full((2, 2), 1.5, np.float32))
    np.testing.assert_array_equal(result["ids"], np.zeros((2, 1), np.int64))
    assert result["x"].dtype == np.float32


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ('{"x": 1}', "not a list"),
        ("[]", "no samples"),
        ('[{"x": [1, 2]}]', "'x'"),
        ('[{"x": {"tensor": "AA==", "polygraphy_class": "Tensor"}}]', "not a numpy array"),
        ('[{"x": {"array": "???"}}]', "'x'"),
        ('[{"x": {"array": "AAAA"}}]', "'x'"),
    ],
)
def test_other_json(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_polygraphy(tmp_path / "in.json")
    assert "in.json" in str(caught.value)
    assert caught.value.hint


# TensorProtos


def write_set(folder: Path, *tensors: tuple[np.ndarray, str]) -> None:
    folder.mkdir(parents=True)
    for number, (array, name) in enumerate(tensors):
        (folder / f"input_{number}.pb").write_bytes(numpy_helper.from_array(array, name).SerializeToString())


SPECS = (InputSpec("a", FLOAT, (None, 2)), InputSpec("b", FLOAT, (None,)))


def test_test_data_sets_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        array = np.full((1, 2), number, np.float32)
        write_set(tmp_path / f"test_data_set_{number}", (array, ""), (array[:, 0], ""))
    assert is_test_data(tmp_path)
    assert read_test_data(tmp_path, SPECS)["b"].tolist() == [0, 2, 10]
    assert is_test_data(tmp_path / "test_data_set_2")
    assert read_test_data(tmp_path / "test_data_set_2", SPECS)["a"].tolist() == [[2, 2]]


def test_a_tensor_is_for_the_input_it_is_named_after(tmp_path: Path) -> None:
    write_set(tmp_path / "test_data_set_0", (np.ones(1, np.float32), "b"), (np.zeros((1, 2), np.float32), "a"))
    result = read_test_data(tmp_path, SPECS)
    assert (result["a"].shape, result["b"].shape) == ((1, 2), (1,))


def test_test_data_errors(tmp_path: Path) -> None:
    three = [(np.ones(1, np.float32), "")] * 3
    write_set(tmp_path / "many", *three)
    with pytest.raises(DataError, match="input number 2, the model has 2"):
        read_test_data(tmp_path / "many", SPECS)
    (tmp_path / "many" / "input_0.pb").write_bytes(b"no tensor at all")
    with pytest.raises(DataError, match=r"input_0\.pb cannot be read"):
        read_test_data(tmp_path / "many", SPECS)
    (tmp_path / "none" / "test_data_set_0").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no input_"):
        read_test_data(tmp_path / "none", SPECS)


# Batches


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_stack_undoes_splitting(sizes: list[int]) -> None:
    whole = np.arange(sum(sizes) * 2).reshape(-1, 2)
    parts = np.split(whole, np.cumsum(sizes)[:-1])
    np.testing.assert_array_equal(stack("here", ({"x": part} for part in parts))["x"], whole)


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "no samples"),
        ([np.zeros(3)], "batch 0 is a ndarray"),
        ([{"x": np.zeros(1)}, {"y": np.zeros(1)}], "batch 1 holds 'y', the first 'x'"),
        ([{"x": np.zeros((1, 2))}, {"x": np.zeros((1, 3))}], "1 x 3 in batch 1"),
        ([{"x": np.zeros(1, np.uint8)}, {"x": np.zeros(1)}], "float64 1 in batch 1"),
        ([{"x": 3.0}], "single float"),
        ([{"x": [[1], [1, 2]]}], "'x' is not an array"),
    ],
)
def test_batches_that_do_not_fit_together(batches: list[object], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        stack("here", batches)
    assert str(caught.value).startswith("here")
    assert "\n" not in str(caught.value)
    assert caught.value.hint
