"""A latency predicted for a device that is known by times alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from nets import residual_net
from reap_onnx import pipeline
from reap_onnx.cli import main
from reap_onnx.data.times import Time, read_times
from reap_onnx.errors import DataError, TargetError, UsageError
from reap_onnx.graph.groups import find_groups
from reap_onnx.graph.trace import Trace
from reap_onnx.method.latency import foreign_cost, layers_of
from reap_onnx.numerics.allocate import Curve
from reap_onnx.options import Method, PruneOptions, Target
from reap_onnx.runtime.profile import Timing
from wiring import read

MODELS = Path(__file__).parent.parent / "models"
VGG = MODELS / "vgg_cifar10.onnx"
LAYERS = [node.name for node in onnx.load(VGG).graph.node if node.op_type in ("Conv", "Gemm")]
SAMPLES = {"input": np.random.default_rng(0).standard_normal((32, 3, 32, 32)).astype(np.float32)}
QUICK = Method(selection_rows=2000, refit_rows=2000, sensitivity_samples=0, pair_rows=0)


def profiled(folder: Path, model: onnx.ModelProto, name: str, array: np.ndarray) -> Path:
    """A profile as onnxruntime writes it."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {name: array})
    return Path(session.end_profiling())


def table(folder: Path, **ms: float) -> Path:
    """Every layer takes a millisecond, but for those whose numbers are named."""
    rows = {name: ms.get(f"conv{number}", 1.0) for number, name in enumerate(LAYERS)}
    (folder / "times.csv").write_text("name,ms\n" + "".join(f"{name},{value}\n" for name, value in rows.items()))
    return folder / "times.csv"


def options(share: float, file: Path) -> PruneOptions:
    return PruneOptions(Target("latency", share), latency_table=str(file), round_to=8, method=QUICK)


@pytest.mark.parametrize("which", ["residual", "vgg", "resnet20", "mobilenet"])
def test_every_layer_of_a_profile_of_onnxruntime_is_found(tmp_path: Path, which: str) -> None:
    model = residual_net() if which == "residual" else onnx.load(MODELS / f"{which}_cifar10.onnx")
    side = 8 if which == "residual" else 32
    file = profiled(tmp_path, model, model.graph.input[0].name, np.zeros((1, 3, side, side), np.float32))
    trace = Trace(read(model))
    found = layers_of(trace, read_times(file))
    reached = [node for _, nodes in found for node in nodes]
    assert sorted(reached) == sorted(layer.node.index for layer in trace.layers)
    for time, nodes in found:
        assert time.layer == bool(nodes)


def by_size(operator: object) -> Timing:
    return Timing(float(np.prod(operator.weight)) / 1000)  # type: ignore[attr-defined]


def test_times_of_the_device_are_what_counts() -> None:
    trace = Trace(read(residual_net()))
    groups = [group for group in find_groups(trace) if not group.frozen]
    curves = [Curve(len(group.units), np.zeros(len(group.units))) for group in groups]
    times = [
        Time(("stem", "stem/relu"), 3.0),
        Time(("block1/conv1",), 5.0),
        Time(("block1/conv2", "block2/conv1"), 7.0),
        Time(("something else",), 2.0),
    ]
    cost, missing = foreign_cost(trace, groups, curves, by_size, times)
    full = np.array([len(group.units) for group in groups])
    sizes = {layer.node.name: np.prod(trace.shape(layer.node.inputs[1])) for layer in trace.layers}
    assert missing == ["down", "block2/conv2", "head"]
    known = sum(size for name, size in sizes.items() if name not in missing)
    rest = 15.0 * sum(sizes[name] for name in missing) / known
    assert cost(full) == pytest.approx(17.0 + rest)
    inner = next(i for i, group in enumerate(groups) if group.name == "block1/conv1")
    cut = full.copy()
    cut[inner] = 1
    share = sizes["block1/conv2"] / (sizes["block1/conv2"] + sizes["block2/conv1"])
    layers = (5.0 + 7.0 * share) * (1 - 1 / full[inner])
    assert layers <= cost(full) - cost(cut) <= layers + 2.0


def test_the_dear_layer_of_the_device_is_cut(tmp_path: Path) -> None:
    """The second layer reads what the first makes, the sixth what the fifth does.

    How time falls with the width is measured here; on a busy machine another layer may make up for a last millisecond.
    """
    for dear, reader in (("conv1", 1), ("conv5", 5)):
        summary = pipeline.prune(VGG, SAMPLES, options(0.7, table(tmp_path, **{dear: 4000.0}))).summary
        kept = {group.name: group.kept / group.width for group in summary.groups}
        touched, far = LAYERS[reader - 1 : reader + 1], LAYERS[2]
        assert min(kept[name] for name in touched if name in kept) < 0.95 * kept[far]
        assert kept[far] > 0.75
        assert summary.latency is not None
        assert summary.latency.original_ms == pytest.approx(4000.0 + len(LAYERS) - 1)
        assert summary.latency.predicted_ms <= 0.7 * summary.latency.original_ms
        assert summary.latency.trials == ()


def test_it_is_said_that_it_is_predicted(tmp_path: Path) -> None:
    file = table(tmp_path)
    reports = (tmp_path / "r.html", tmp_path / "r.json")
    wanted = PruneOptions(Target("latency", absolute=5.5), latency_table=str(file), method=QUICK)
    assert wanted.rounding == 8
    result = pipeline.prune(VGG, SAMPLES, wanted, report=reports)
    told = json.loads(reports[1].read_text())["latency"]
    assert told["source"] == str(file)
    assert told["predicted_ms"] <= 5.5
    assert "no such device was measured" in reports[0].read_text()
    assert pipeline.apply(VGG, result.plan).model == result.model
    assert len(result.plan.kept) > 0


def test_what_does_not_go(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--latency-table goes with --latency"):
        PruneOptions(Target("macs", 0.5), latency_table="t.csv")
    (tmp_path / "t.csv").write_text("name,ms\nelsewhere,1\n")
    with pytest.raises(DataError, match="no layer of the model"):
        pipeline.prune(VGG, SAMPLES, options(0.5, tmp_path / "t.csv"))
    with pytest.raises(TargetError):
        pipeline.prune(VGG, SAMPLES, options(0.01, table(tmp_path)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prune", str(VGG), "--data", "random", "--samples", "16", "--effort", "fast", "-q"]
    command += ["-o", str(tmp_path / "out.onnx"), "--latency", "0.8"]
    assert main([*command, "--latency-table", str(table(tmp_path))]) == 0
    assert "predicted for the device" in " ".join(capsys.readouterr().out.split())
    assert main([*command, "--latency-table", str(tmp_path / "none.csv"), "--force"]) == 1
