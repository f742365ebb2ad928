from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from reap_onnx.data import Dataset, InputSpec, input_specs
from reap_onnx.errors import DataError, ModelError


def model_of(*inputs: onnx.ValueInfoProto, constants: tuple[onnx.TensorProto, ...] = ()) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "graph", list(inputs), [], list(constants)))


def test_specs_are_the_inputs_that_are_not_initializers() -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, None])
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, -1])
    weight = helper.make_tensor_value_info("w", TensorProto.FLOAT, [2])
    model = model_of(image, weight, ids, constants=(helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0]),))
    assert input_specs(model) == (
        InputSpec("image", np.dtype(np.float32), (None, 3, 8, None)),
        InputSpec("ids", np.dtype(np.int64), (1, None)),
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]), "not a tensor"),
        (helper.make_tensor_value_info("s", TensorProto.FLOAT, None), "no shape"),
        (helper.make_tensor_value_info("s", TensorProto.UNDEFINED, [1]), "not a tensor"),
    ],
)
def test_inputs_that_cannot_be_fed(value: onnx.ValueInfoProto, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        input_specs(model_of(value))
    assert "'s'" in str(caught.value)
    assert caught.value.hint


def test_batches_cover_all_samples_in_order() -> None:
    data = Dataset({"a": np.arange(14).reshape(7, 2), "b": np.arange(7)})
    batches = list(data.batches(3))
    assert [len(batch["b"]) for batch in batches] == [3, 3, 1]
    for name, array in data.inputs.items():
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), array)


def test_subset_takes_labels_along() -> None:
    data = Dataset({"a": np.arange(10.0)}, np.arange(10), "ten", {"size": [1, 1]})
    part = data.subset([7, 2])
    np.testing.assert_array_equal(part.inputs["a"], [7.0, 2.0])
    np.testing.assert_array_equal(part.labels, [7, 2])
    assert (len(part), part.description, part.preprocessing) == (2, "ten", {"size": [1, 1]})
    assert Dataset({"a": np.arange(3.0)}).subset(np.array([0])).labels is None


def test_datasets_that_do_not_hold_together() -> None:
    with pytest.raises(DataError, match="no inputs"):
        Dataset({})
    with pytest.raises(DataError, match="'a' 2, 'b' 3"):
        Dataset({"a": np.zeros(2), "b": np.zeros(3)})
    with pytest.raises(DataError, match="labels have shape 3, samples number 2"):
        Dataset({"a": np.zeros(2)}, np.zeros(3, dtype=np.int64))


def test_an_input_may_be_a_single_number() -> None:
    spec = input_specs(model_of(helper.make_tensor_value_info("rate", TensorProto.INT64, [])))[0]
    assert (spec.shape, spec.batch) == ((), None)


def test_samples_that_others_have_are_left_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 2, 3)).astype(np.float32), np.arange(6.0)
    whole = Dataset({"x": x, "y": y}, labels=np.arange(6))
    left = whole.without(whole.subset([4, 1, 1]))
    assert left.labels is not None
    assert left.labels.tolist() == [0, 2, 3, 5]
    assert whole.without(whole.shuffled(3)).labels is not None
    assert len(whole.without(whole.shuffled(3))) == 0
    assert whole.without(Dataset({"x": x, "y": y + 1})) is whole


def test_strings_are_told_apart_by_their_texts() -> None:
    def texts(*rows: str) -> Dataset:
        return Dataset({"x": np.array([["".join(letter)] for letter in rows], object)})

    assert texts("a", "bc").digest() == texts("a", "bc").digest()
    assert len({texts(*rows).digest() for rows in (("a", "bc"), ("ab", "c"), ("bc", "a"), ("a", "bd"))}) == 4
    assert texts("a", "bc", "d").without(texts("bc")).inputs["x"].tolist() == [["a"], ["d"]]
