"""Statistics written once: the same budgets read off them, whatever happened on the way to the file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from nets import CLASSES, Net, images, macs, outputs, residual_net
from reap_onnx import pipeline, steps
from reap_onnx.cli import main
from reap_onnx.data.dataset import Dataset
from reap_onnx.errors import OutputError, StatsError, UsageError
from reap_onnx.numerics.gram import Normal, Rows
from reap_onnx.options import EFFORTS, PruneOptions, Target
from reap_onnx.report.summary import Frontier
from reap_onnx.runtime import memory
from reap_onnx.runtime.shards import SHARD
from reap_onnx.stats import FORMAT, Stats

SAMPLES = images(450)  # three shards
HALF = PruneOptions(Target("macs", 0.5), method=EFFORTS["fast"])


def wide_net() -> onnx.ModelProto:
    """A convolution flattened into more columns than there are samples."""
    net = Net(np.random.default_rng(2))
    flat = net.op("Flatten", "flatten", net.relu("relu", net.conv("conv", "image", 3, 20)))
    weight = net.constant("w", net.rng.standard_normal((20 * 64, CLASSES)) / 30)
    return net.model(net.op("Gemm", "head", flat, weight, net.constant("b", np.zeros(CLASSES))), [CLASSES])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stats")
    onnx.save(residual_net(), folder / "net.onnx")
    np.savez(folder / "samples.npz", image=SAMPLES)
    pipeline.calibrate(folder / "net.onnx", SAMPLES, output=folder / "stats.npz", options=HALF)
    return folder


def test_samples_of_another_kind_are_named(place: Path) -> None:
    """The same samples give the same model; others give another, and it is said."""
    told = "measured on other samples"
    for samples, expected in ((SAMPLES, False), (SAMPLES[:300], True)):
        found = pipeline.prune(place / "net.onnx", samples, HALF, stats=place / "stats.npz")
        assert any(told in note for note in found.summary.notes) == expected


def test_fewer_samples_a_run_are_no_other_statistics(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "REUSED", 10 * 16 * 8 * 8 * 4)  # ten samples; 50 ran together when they were measured
    found = pipeline.prune(place / "net.onnx", None, HALF, stats=place / "stats.npz")
    assert found.plan.options["batch"] == HALF.batch


def same(a: Stats, b: Stats) -> None:
    """Both hold the same, to the last bit."""
    assert a.origin == b.origin
    assert list(a.layers) == list(b.layers)
    for name, blocks in a.layers.items():
        for mine, other in zip(blocks, b.layers[name], strict=True):
            assert type(mine) is type(other)
            assert mine.rows == other.rows
            for field in ("gram", "cross", "square", "total") if isinstance(mine, Normal) else ("x", "y"):
                np.testing.assert_array_equal(getattr(mine, field), getattr(other, field))
    assert list(a.paths) == list(b.paths)
    for name, (path, weight) in a.paths.items():
        assert weight == b.paths[name][1]
        np.testing.assert_array_equal(path.order, b.paths[name][0].order)
        np.testing.assert_array_equal(path.errors, b.paths[name][0].errors)
    np.testing.assert_array_equal(a.kept.inputs["image"], b.kept.inputs["image"])


@pytest.mark.parametrize("net", [residual_net, wide_net])
def test_a_file_holds_all_that_was_measured(tmp_path: Path, net: Callable[[], onnx.ModelProto]) -> None:
    found = pipeline.calibrate(net(), {"image": SAMPLES[:210], "labels": np.arange(210) % CLASSES}).stats
    found.save(tmp_path / "stats.npz")
    read = Stats.load(tmp_path / "stats.npz")
    same(found, read)
    np.testing.assert_array_equal(found.samples.labels, read.samples.labels)
    kinds = {type(block) for blocks in read.layers.values() for block in blocks}
    assert kinds == ({Normal} if net is residual_net else {Rows})
    assert {path.name for path in tmp_path.iterdir()} == {"stats.npz"}


def test_strings_are_kept_without_a_pickle(place: Path, tmp_path: Path) -> None:
    texts = Dataset({"text": np.array([["a"], ["bcd"]], object), "image": SAMPLES[:2]})
    replace(Stats.load(place / "stats.npz"), kept=texts).save(tmp_path / "stats.npz")
    kept = Stats.load(tmp_path / "stats.npz").kept
    assert kept.inputs["text"].dtype == object
    assert kept.inputs["text"].tolist() == [["a"], ["bcd"]]
    np.testing.assert_array_equal(kept.inputs["image"], SAMPLES[:2])


def test_any_zip_reader_gets_at_it(place: Path) -> None:
    with np.load(place / "stats.npz", allow_pickle=False) as arrays:
        document = json.loads(arrays["document"].tobytes())
        assert document["origin"]["data"]["samples"] == len(SAMPLES)
        assert arrays["input.0"].shape == (256, 3, 8, 8)
    with zipfile.ZipFile(place / "stats.npz") as archive:
        assert archive.testzip() is None


def test_with_samples_a_run_gives_what_it_gives_without_statistics(place: Path) -> None:
    written = []
    for stats in (None, place / "stats.npz", Stats.load(place / "stats.npz")):
        out = place / f"full{len(written)}.onnx"
        written.append(pipeline.prune(place / "net.onnx", SAMPLES, HALF, stats=stats, output=out))
    files = [(place / f"full{number}.onnx").read_bytes() for number in range(3)]
    assert files[0] == files[1] == files[2]
    assert "collecting statistics" in written[0].summary.seconds
    assert "collecting statistics" not in written[1].summary.seconds


def test_statistics_alone_are_enough(place: Path) -> None:
    result = pipeline.prune(place / "net.onnx", None, HALF, stats=place / "stats.npz")
    assert macs(result.model) <= macs(residual_net()) / 2
    assert result.summary.wiring_error < 1e-4
    compared = result.summary.comparison
    assert compared is not None
    assert compared.samples == 256
    assert "the 256 of them that the statistics keep" in compared.data
    assert any("from the statistics alone" in note for note in result.summary.notes)
    assert not any("other samples" in note for note in result.summary.notes)

    fresh, real = images(200, seed=9), residual_net()
    full = pipeline.prune(real, SAMPLES, HALF).model
    aim = outputs(real, fresh)
    quick, slow = (
        np.square(outputs(model, fresh) - aim).sum() / np.square(aim).sum() for model in (result.model, full)
    )
    assert slow < quick < 0.5


def test_a_sweep_reads_them(place: Path) -> None:
    targets = [Target("macs", share) for share in (0.4, 0.8)]
    swept = [
        pipeline.sweep(place / "net.onnx", data, targets, options=HALF, stats=stats, evaluate=SAMPLES[:50], write=write)
        for data, stats, write in ((SAMPLES, None, None), (None, place / "stats.npz", place / "models"))
    ]
    assert figures(swept[0]) == figures(swept[1])
    assert [Path(point.output).parent for point in swept[1].points] == [place / "models"] * 2
    assert any("from the statistics alone" in note for note in swept[1].notes)


def figures(frontier: Frontier) -> list[object]:
    return [(point.cost.macs, point.cost.params, point.comparison.outputs) for point in frontier.points]


# -- runs that were cut off --------------------------------------------------------------------------------------------


class Interrupted:
    """Progress that Ctrl-C ends once so many samples are measured."""

    def __init__(self, after: int) -> None:
        self._left = after

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        def advance(n: int = 1) -> None:
            if name == "collecting statistics":
                self._left -= n
                if self._left < 0:
                    raise KeyboardInterrupt

        yield advance


def count_shards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Places of the shards that are measured from now on."""
    found, real = list[int](), steps.measure_shard

    def measure(how, shard, advance):
        found.append(shard.start)
        return real(how, shard, advance)

    monkeypatch.setattr(steps, "measure_shard", measure)
    return found


def test_a_run_goes_on_where_it_was_interrupted(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "stats.npz"
    for after in (SHARD + 60, 2 * SHARD + 20):
        with pytest.raises(KeyboardInterrupt):
            pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, options=HALF, progress=Interrupted(after))
        assert {path.name for path in tmp_path.iterdir()} == {"stats.npz.partial"}
        with pytest.raises(StatsError, match="unfinished"):
            Stats.load(tmp_path / "stats.npz.partial")
    measured = count_shards(monkeypatch)
    result = pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, options=HALF)
    assert measured == [2 * SHARD]
    assert any("from 2 of 3 shards" in note for note in result.report.notes)
    assert out.read_bytes() == (place / "stats.npz").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"stats.npz"}


def test_a_run_that_replaces_a_file_goes_on_as_well(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stats.npz"
    out.write_bytes((place / "stats.npz").read_bytes()[:-1])
    with pytest.raises(KeyboardInterrupt):
        pipeline.calibrate(
            place / "net.onnx", SAMPLES, output=out, options=HALF, progress=Interrupted(SHARD + 60), force=True
        )
    measured = count_shards(monkeypatch)
    pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, options=HALF, force=True)
    assert measured == [SHARD, 2 * SHARD]
    assert out.read_bytes() == (place / "stats.npz").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"stats.npz"}


def test_what_was_begun_otherwise_is_not_gone_on_with(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "stats.npz"
    with pytest.raises(KeyboardInterrupt):
        pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, options=HALF, progress=Interrupted(SHARD + 60))
    begun = (tmp_path / "stats.npz.partial").read_bytes()
    other = replace(HALF, seed=1)
    for data, options in ((SAMPLES, other), (SAMPLES[::-1], HALF), (SAMPLES[:449], HALF)):
        with pytest.raises(OutputError, match="begun with another model, other samples, other options"):
            pipeline.calibrate(place / "net.onnx", data, output=out, options=options)
    rewritten(tmp_path / "stats.npz.partial", tmp_path / "older.npz", reap_onnx="0.0.1").replace(
        tmp_path / "stats.npz.partial"
    )
    with pytest.raises(OutputError, match="another version"):
        pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, options=HALF)
    (tmp_path / "stats.npz.partial").write_bytes(begun[:-10])
    with pytest.raises(OutputError, match="damaged"):
        pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, options=HALF)
    pipeline.calibrate(place / "net.onnx", SAMPLES, output=out, options=HALF, force=True)
    assert out.read_bytes() == (place / "stats.npz").read_bytes()


def test_a_killed_process_is_repeated_from_its_last_shard(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = 12
    np.savez(tmp_path / "samples.npz", image=images(shards * SHARD))
    out, partial, seen = tmp_path / "stats.npz", tmp_path / "stats.npz.partial", 0
    argv = ["calibrate", str(place / "net.onnx"), "--data", str(tmp_path / "samples.npz"), "-o", str(out), "-q"]
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-m", "reap_onnx", *argv], stdout=subprocess.DEVNULL)
        while process.poll() is None and (not partial.exists() or partial.stat().st_mtime_ns == seen):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not out.exists()
        seen = partial.stat().st_mtime_ns
    measured = count_shards(monkeypatch)
    assert main(argv) == 0
    assert len(measured) <= shards - 2
    gone_on = out.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"samples.npz", "stats.npz"}
    assert main([*argv, "--force"]) == 0
    assert measured[-shards:] == [SHARD * number for number in range(shards)]
    assert out.read_bytes() == gone_on


DYING = """
import os, signal, sys
from contextlib import contextmanager
import numpy as np
from reap_onnx import EFFORTS, PruneOptions, Target, pipeline

net, samples, out, moment, count = sys.argv[1:]
left = int(count)

def die(name):
    global left
    left -= name == moment
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

class Progress:
    @contextmanager
    def stage(self, name, total=None):
        yield lambda n=1: die(name)

sync, replace = os.fsync, os.replace
os.fsync = lambda file: (sync(file), die("written"))
os.replace = lambda *paths: (replace(*paths), die("renamed"))
options = PruneOptions(Target("macs", 0.5), method=EFFORTS["fast"])
pipeline.calibrate(net, np.load(samples)["image"], output=out, options=options, progress=Progress())
"""


@pytest.mark.parametrize(
    ("moment", "count", "done"),
    [
        ("collecting statistics", 3, 0),
        ("written", 1, 0),
        ("renamed", 1, 1),
        ("written", 3, 2),
        ("error paths", 2, 3),
        ("sensitivity", 3, 3),
        ("written", 4, 3),
    ],
)
def test_a_process_killed_at_any_moment_is_gone_on_with(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, count: int, done: int
) -> None:
    """While samples run, before and after a shard is kept, while channels are priced, before the file has its name."""
    die_at(place, tmp_path / "stats.npz", moment, count)
    assert not (tmp_path / "stats.npz").exists()
    measured = count_shards(monkeypatch)
    pipeline.calibrate(place / "net.onnx", SAMPLES, output=tmp_path / "stats.npz", options=HALF)
    assert measured == [SHARD * number for number in range(done, 3)]
    assert (tmp_path / "stats.npz").read_bytes() == (place / "stats.npz").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"stats.npz"}


def test_a_file_that_has_its_name_is_whole(place: Path, tmp_path: Path) -> None:
    die_at(place, tmp_path / "stats.npz", "renamed", 4)
    assert (tmp_path / "stats.npz").read_bytes() == (place / "stats.npz").read_bytes()


def die_at(place: Path, out: Path, moment: str, count: int) -> None:
    """Calibrate in a process that is killed when ``moment`` comes for the ``count``-th time."""
    argv = [place / "net.onnx", place / "samples.npz", out, moment, str(count)]
    assert subprocess.run([sys.executable, "-c", DYING, *argv], check=False).returncode == -signal.SIGKILL


# -- files that are not what they should be ----------------------------------------------------------------------------


def test_every_damage_is_seen(place: Path, tmp_path: Path) -> None:
    whole, good = (place / "stats.npz").read_bytes(), Stats.load(place / "stats.npz")
    rng, refused = np.random.default_rng(0), 0
    for position in (*rng.integers(0, len(whole), 60), *range(len(whole) - 300, len(whole), 7), *range(0, 200, 7)):
        broken = bytearray(whole)
        broken[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "broken.npz").write_bytes(broken)
        try:
            same(Stats.load(tmp_path / "broken.npz"), good)  # a date in the zip's directory, say
        except StatsError:
            refused += 1
    assert refused > 60


def rewritten(source: Path, target: Path, **changes: object) -> Path:
    """The same file with another document."""
    with np.load(source) as arrays:
        members = dict(arrays)
    document = json.loads(members["document"].tobytes()) | changes
    np.savez(target, **(members | {"document": np.frombuffer(json.dumps(document).encode(), np.uint8)}))
    return target


def test_statistics_that_do_not_fit_are_refused_in_a_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stats = place / "stats.npz"
    (tmp_path / "cut.npz").write_bytes(stats.read_bytes()[:-1000])
    rewritten(stats, tmp_path / "newer.npz", format=FORMAT + 1)
    rewritten(stats, tmp_path / "empty.npz", layers=[{}])
    onnx.save(residual_net(seed=1), tmp_path / "other.onnx")
    net = str(place / "net.onnx")
    cases = [
        ([net, "--stats", str(tmp_path / "missing.npz")], 1, "No such file"),
        ([net, "--stats", str(tmp_path / "cut.npz")], 1, "damaged, or cut short"),
        ([net, "--stats", str(place / "samples.npz")], 1, "no statistics"),
        ([net, "--stats", net], 1, "no statistics"),
        ([net, "--stats", str(tmp_path)], 1, "cannot be read"),
        ([net, "--stats", str(tmp_path / "newer.npz")], 1, f"of format {FORMAT + 1}, this version reads {FORMAT}"),
        ([net, "--stats", str(tmp_path / "empty.npz")], 1, "that this version knows"),
        ([str(tmp_path / "other.onnx"), "--stats", str(stats)], 1, "made from another model"),
        ([net, "--stats", str(stats), "--seed", "1"], 2, "made with seed 0, this run has 1"),
        ([net, "--stats", str(stats), "--batch", "32"], 2, "made with batch 50, this run has 32"),
        ([net, "--stats", str(stats), "--memory", "4G"], 2, "made with memory"),
        ([net, "--stats", str(stats)], 2, "made with selection rows 16000, this run has 32000"),
        ([net, "--stats", str(stats), "--freeze", "stem"], 2, "made with freeze none, this run has stem"),
        ([net], 2, "no samples"),
    ]
    for argv, status, reason in cases:
        assert main(["prune", *argv, "--macs", "0.5", "-o", str(tmp_path / "p.onnx"), "-q"]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert reason in err
        assert "hint: " in err
        assert err.count("\n") == 2
        assert not (tmp_path / "p.onnx").exists()


def test_effort_best_reads_what_default_measured(place: Path) -> None:
    stats = pipeline.calibrate(place / "net.onnx", SAMPLES).stats
    pipeline.prune(place / "net.onnx", None, replace(HALF, method=EFFORTS["best"]), stats=stats)


def test_the_statistics_are_not_overwritten(place: Path) -> None:
    with pytest.raises(OutputError, match="also an input"):
        pipeline.prune(
            place / "net.onnx", None, HALF, stats=place / "stats.npz", output=place / "stats.npz", force=True
        )
    with pytest.raises(OutputError, match="exists already"):
        pipeline.calibrate(place / "net.onnx", SAMPLES, output=place / "stats.npz")


def test_a_pattern_that_matches_nothing_is_named(place: Path) -> None:
    with pytest.raises(UsageError, match="--freeze nothing matches no layer"):
        pipeline.calibrate(place / "net.onnx", SAMPLES, options=replace(HALF, freeze=("nothing",)))


def test_on_the_command_line(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, data, stats = (str(place / name) for name in ("net.onnx", "samples.npz", "stats.npz"))
    assert main(["calibrate", net, "--data", data, "-o", str(tmp_path / "s.npz"), "--json", "-q"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["kind"] == "calibration"
    assert {group["name"] for group in report["groups"]} == set(Stats.load(stats).paths)
    assert (tmp_path / "s.npz").read_bytes() != b""
    assert main(["calibrate", net, "--data", data, "-q"]) == 2
    assert "-o FILE" in capsys.readouterr().err
    assert main(["prune", net, "--stats", str(tmp_path / "s.npz"), "--macs", "0.5", "--dry-run", "-q"]) == 0
    assert "with --data the model would be more accurate" in capsys.readouterr().out
    assert main(["sweep", net, "--stats", str(tmp_path / "s.npz"), "--macs", "0.5,0.7", "-q"]) == 0
    assert "Frontier" in capsys.readouterr().out
