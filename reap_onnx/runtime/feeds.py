"""Inputs for single runs: shapes that suit a model, made-up numbers, cuts of the samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reap_onnx.data.dataset import Dataset, InputSpec
from reap_onnx.errors import ModelError
from reap_onnx.model.network import Network


def probe_shapes(specs: Sequence[InputSpec], dataset: Dataset | None) -> dict[str, tuple[int, ...]]:
    """Shapes of one run of one sample: what the model fixes, else what the samples have."""
    shapes = {}
    for spec in specs:
        shape = [spec.batch or fixed_batch(specs) or 1, *spec.shape[1:]][: len(spec.shape)]
        if dataset is not None:
            shape[1:] = dataset.inputs[spec.name].shape[1:]
        if None in shape:
            raise ModelError(f"input {spec} leaves a size open", "give samples with --data, for their shape")
        shapes[spec.name] = tuple(int(size or 1) for size in shape)
    return shapes


def fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    """Number of samples that the model takes at once, None for any."""
    fixed = {spec.name: spec.batch for spec in specs if spec.batch}
    if len(set(fixed.values())) > 1:
        listing = ", ".join(f"{name!r} {batch}" for name, batch in fixed.items())
        raise ModelError(
            f"the inputs differ in the batch they are fixed to: {listing}", "make the first axis the batch"
        )
    return next(iter(fixed.values()), None)


def probe_feeds(specs: Sequence[InputSpec], shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Made-up inputs, the same whenever the shapes are: seeded noise, ones for integers and truth values."""
    rng = np.random.default_rng(0)
    feeds = {}
    for spec in specs:
        noise = rng.standard_normal(shapes[spec.name])
        feeds[spec.name] = (noise if spec.dtype.kind == "f" else np.ones_like(noise)).astype(spec.dtype)
    return feeds


def random_feeds(specs: Sequence[InputSpec], network: Network) -> dict[str, np.ndarray]:
    """Made-up inputs of the shapes that a network was run with."""
    return probe_feeds(specs, {spec.name: network.shapes[spec.name] for spec in specs})


def one_run(specs: Sequence[InputSpec], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds for a single run: cut to the model's own batch size, where it has one."""
    return {spec.name: feeds[spec.name][: fixed_batch(specs)] for spec in specs}
