from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from reap_onnx.numerics.rows import Window, conv_rows, conv_transpose_rows, feature_rows, sample_positions


def run_node(op, x, weight, **attributes):
    """The node's output in onnxruntime, the oracle."""
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], **attributes)],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, weight.shape),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "w": weight})[0]


def test_the_oracle_runs_a_valid_model():
    x = np.ones((1, 1, 3), np.float32)
    assert run_node("Conv", x, np.ones((1, 1, 3), np.float32)).item() == 3
    assert onnx.defs.onnx_opset_version() >= 17


@st.composite
def windows(draw, lowest_pad=0):
    axes = draw(st.integers(1, 3))
    each = lambda low, high, n=axes: tuple(draw(st.integers(low, high)) for _ in range(n))  # noqa: E731
    window = Window(each(1, 3), each(1, 3), each(lowest_pad, 2, 2 * axes), each(1, 2))
    return window, each(2, 6)


def attributes_of(window):
    return {
        "kernel_shape": window.kernel,
        "strides": window.strides,
        "pads": window.pads,
        "dilations": window.dilations,
    }


@settings(deadline=None, max_examples=60)
@given(windows(), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_conv_rows_give_what_onnxruntime_computes(case, seed, count):
    window, spatial = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, *spatial)).astype(np.float32)
    weight = rng.standard_normal((4, 3, *window.kernel)).astype(np.float32)
    try:
        shape = window.output_shape(spatial)
    except ValueError:
        assume(False)
    y = run_node("Conv", x, weight, **attributes_of(window))
    assert y.shape[2:] == shape
    positions = sample_positions(2, math.prod(shape), count, rng)
    rows = conv_rows(x, window, positions)
    assert rows.dtype == np.float32
    assert rows.shape == (positions.size, 3 * math.prod(window.kernel))
    np.testing.assert_allclose(rows @ weight.reshape(4, -1).T, feature_rows(y, positions), rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(windows(lowest_pad=-1), st.integers(0, 2**32 - 1))
def test_negative_pads_crop(case, seed):
    window, spatial = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, *spatial)).astype(np.float32)
    axes = len(spatial)
    begins, ends = np.array(window.pads[:axes]), np.array(window.pads[axes:])
    inner = [slice(max(0, -b), s - max(0, -e)) for b, e, s in zip(begins, ends, spatial, strict=True)]
    cropped = x[(slice(None), slice(None), *inner)]
    plain = Window(window.kernel, window.strides, tuple(np.maximum(window.pads, 0).tolist()), window.dilations)
    try:
        shape = window.output_shape(spatial)
    except ValueError:
        assume(False)
    assume(min(cropped.shape) > 0)
    positions = sample_positions(1, math.prod(shape), 10**6, rng)
    assert plain.output_shape(cropped.shape[2:]) == shape
    np.testing.assert_array_equal(conv_rows(x, window, positions), conv_rows(cropped, plain, positions))


@settings(deadline=None, max_examples=60)
@given(windows(), st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 1))
def test_conv_transpose_rows_give_what_onnxruntime_computes(case, seed, count, extra):
    window, spatial = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 3, *spatial)).astype(np.float32)
    weight = rng.standard_normal((3, 4, *window.kernel)).astype(np.float32)
    axes = len(spatial)
    output_padding = tuple(min(extra, s - 1) for s in window.strides)
    shape = tuple(
        s * (n - 1) + o + d * (k - 1) + 1 - b - e
        for s, n, o, d, k, b, e in zip(
            window.strides,
            spatial,
            output_padding,
            window.dilations,
            window.kernel,
            window.pads[:axes],
            window.pads[axes:],
            strict=True,
        )
    )
    assume(min(shape) > 0)
    y = run_node("ConvTranspose", x, weight, output_padding=output_padding, **attributes_of(window))
    assert y.shape[2:] == shape
    positions = sample_positions(2, math.prod(shape), count, rng)
    rows = conv_transpose_rows(x, window, shape, positions)
    assert rows.dtype == np.float32
    assert rows.shape == (positions.size, 3 * math.prod(window.kernel))
    ours = np.stack([rows @ weight[:, m].reshape(-1) for m in range(4)], axis=1)
    np.testing.assert_allclose(ours, feature_rows(y, positions), rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_sampled_positions_are_distinct_ascending_and_in_range(n, total, count, seed):
    positions = sample_positions(n, total, count, np.random.default_rng(seed))
    assert positions.dtype == np.int64
    assert positions.shape == (n, min(count, total))
    assert (np.diff(positions, axis=1) > 0).all()
    assert positions.min() >= 0
    assert positions.max() < total
    again = sample_positions(n, total, count, np.random.default_rng(seed))
    np.testing.assert_array_equal(positions, again)


def test_every_position_is_as_likely_as_any_other():
    positions = sample_positions(20_000, 10, 7, np.random.default_rng(0))
    share = np.bincount(positions.ravel(), minlength=10) / 20_000
    np.testing.assert_allclose(share, 0.7, atol=0.02)


def test_feature_rows_of_a_known_array():
    y = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 2, 2)
    rows = feature_rows(y, np.array([[0, 3], [1, 2]]))
    np.testing.assert_array_equal(rows, [[0, 4, 8], [3, 7, 11], [13, 17, 21], [14, 18, 22]])


def test_a_window_that_does_not_fit_is_refused():
    window = Window((3, 3), (1, 1), (0, 0, 0, 0), (2, 2))
    assert window.output_shape((5, 6)) == (1, 2)
    with pytest.raises(ValueError, match="does not fit"):
        window.output_shape((4, 6))
    with pytest.raises(ValueError, match="does not fit"):
        window.output_shape((5,))
    with pytest.raises(ValueError, match="do not fit"):
        Window((3, 3), (1,), (0, 0, 0, 0), (1, 1))
    with pytest.raises(ValueError, match="at least 1"):
        Window((3,), (0,), (0, 0), (1,))


def test_a_position_out_of_range_is_refused():
    window = Window((1,), (1,), (0, 0), (1,))
    with pytest.raises(ValueError, match="out of bounds"):
        conv_rows(np.zeros((1, 1, 4), np.float32), window, np.array([[4]]))
