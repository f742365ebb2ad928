"""Everything that can be wrong from outside: a documented status, one clear line, nothing left behind."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import reap_onnx
from nets import CLASSES, images, residual_net
from reap_onnx.cli import main

OUT = ["-o", "out.onnx"]
PRUNE = ["prune", "net.onnx", "--data", "samples.npz", "--macs", "0.5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good model, good samples, a good plan, and all the bad ones."""
    folder = tmp_path_factory.mktemp("bad")
    onnx.save(residual_net(), folder / "net.onnx")
    onnx.save(residual_net(seed=1), folder / "other.onnx")
    np.savez(folder / "samples.npz", image=images(32))
    (folder / "folder").mkdir()
    (folder / "exists.onnx").write_bytes(b"mine")
    write_bad_models(folder)
    write_bad_samples(folder)
    assert run_in(folder, [*PRUNE, "--dry-run", "--plan", "plan.json", "-q", "--json"]) == 0
    plan = (folder / "plan.json").read_text()
    (folder / "cut_plan.json").write_text(plan[: len(plan) // 2])
    (folder / "changed_plan.json").write_text(plan.replace('"seed": 0', '"seed": 1'))
    return folder


def run_in(folder: Path, argv: list[str]) -> int:
    back = Path.cwd()
    os.chdir(folder)
    try:
        return main(argv)
    finally:
        os.chdir(back)


def write_bad_models(folder: Path) -> None:
    good = (folder / "net.onnx").read_bytes()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes(good[: len(good) // 2])
    (folder / "text.onnx").write_text("this is no model, but a page of text\n" * 50)
    (folder / "picture.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8)

    def save(name: str, change: Callable[[onnx.ModelProto], None]) -> None:
        model = residual_net()
        change(model)
        (folder / name).write_bytes(model.SerializeToString())

    save("no_nodes.onnx", lambda m: m.graph.ClearField("node"))
    save("unknown_op.onnx", lambda m: setattr(m.graph.node[1], "op_type", "Levitate"))
    save("foreign_op.onnx", foreign)
    save("loose_end.onnx", lambda m: m.graph.node[3].input.__setitem__(0, "nowhere"))
    save("short_weight.onnx", lambda m: setattr(m.graph.initializer[0], "raw_data", b"\x00" * 8))
    save("unknown_type.onnx", lambda m: setattr(m.graph.initializer[0], "data_type", 99))
    save("does_not_run.onnx", lambda m: m.graph.initializer[-2].CopyFrom(wrong_head()))
    save("open_size.onnx", lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_param", "H"))
    for name in ("data_missing", "data_cut"):
        model = residual_net()
        onnx.save(model, folder / f"{name}.onnx", save_as_external_data=True, location=f"{name}.bin", size_threshold=0)
    (folder / "data_missing.bin").unlink()
    os.truncate(folder / "data_cut.bin", 1000)


def foreign(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain = "far.away"
    model.opset_import.append(helper.make_opsetid("far.away", 1))


def wrong_head() -> TensorProto:
    return numpy_helper.from_array(np.zeros((CLASSES, 99), np.float32), "head_w")


def write_bad_samples(folder: Path) -> None:
    good = images(16)
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        array = good.copy()
        array[3, 1, 2, 2] = value
        np.savez(folder / f"{name}.npz", image=array)
    np.savez(folder / "wrong_names.npz", pictures=good, more=good)
    np.savez(folder / "wrong_size.npz", image=good[..., :5])
    np.savez(folder / "wrong_rank.npz", image=good.reshape(16, -1))
    np.savez(folder / "strings.npz", image=np.full((16, 3, 8, 8), "x"))
    np.savez(folder / "complex.npz", image=good.astype(np.complex64))
    np.savez(folder / "none.npz", image=good[:0])
    np.savez(folder / "huge.npz", image=good * np.float32(1e30))
    np.savez(folder / "pictures.npz", image=(good[..., None, 0] > 0).astype(np.uint8).repeat(3, -1))
    np.savez(folder / "objects.npz", image=np.array([{"a": 1}] * 4, dtype=object))
    np.savez(folder / "few_labels.npz", image=good, labels=np.zeros(5, np.int64))
    np.savez(folder / "float_labels.npz", image=good, labels=np.zeros(16))
    np.savez(folder / "high_labels.npz", image=good, labels=np.full(16, CLASSES))
    (folder / "pickled.npz").write_bytes(pickle.dumps({"image": good}))
    (folder / "cut.npz").write_bytes((folder / "samples.npz").read_bytes()[:2000])
    (folder / "text.npz").write_text("image\n1\n2\n")
    (folder / "table.csv").write_text("image\n1\n2\n")
    (folder / "broken.py").write_text("def load_data():\n    return 1 / 0\n")
    (folder / "other.py").write_text("def something_else():\n    return []\n")


MODELS = {
    "missing.onnx": "no such file",
    "empty.onnx": "not an ONNX model",
    "cut.onnx": "not an ONNX model, or cut short",
    "text.onnx": "not an ONNX model",
    "picture.onnx": "not an ONNX model",
    "samples.npz": "not an ONNX model",
    "folder": "cannot be read: Is a directory",
    "no_nodes.onnx": "has no graph",
    "unknown_op.onnx": "not a valid ONNX model: No Op registered for Levitate",
    "foreign_op.onnx": "foreign_op.onnx: onnxruntime does not load the model",
    "loose_end.onnx": "not a valid ONNX model",
    "short_weight.onnx": "stem_w",
    "unknown_type.onnx": "onnxruntime does not load the model",
    "does_not_run.onnx": "does_not_run.onnx: onnxruntime does not",
    "data_missing.onnx": "external data cannot be read",
    "data_cut.onnx": "external data cannot be read",
    "x" * 300: "File name too long",
}
SAMPLES = {
    "missing.npz": "missing.npz does not exist",
    "nan.npz": "sample 3",
    "infinite.npz": "sample 3",
    "wrong_names.npz": "no array for input 'image'; arrays found: 'pictures', 'more'",
    "wrong_size.npz": "16 x 3 x 8 x 5",
    "wrong_rank.npz": "16 x 192",
    "strings.npz": "'image'",
    "complex.npz": "complex64",
    "none.npz": "no samples",
    "huge.npz": "not finite",
    "pictures.npz": "nothing says how images become input 'image'",
    "objects.npz": "pickled arrays are not read",
    "pickled.npz": "pickled arrays are not read",
    "few_labels.npz": "labels",
    "float_labels.npz": "labels",
    "high_labels.npz": "label 5 is not one of the 5 classes",
    "cut.npz": "cut.npz",
    "text.npz": "is not an .npz file",
    "table.csv": "no kind of data that is known here",
    "net.onnx": "no kind of data that is known here",
    "folder": "holds no images",
    "broken.py": "broken.py, line 2: ZeroDivisionError",
    "other.py": "has no function 'load_data'",
    "samples.npz:load": "does not exist",
}
CASES: dict[str, tuple[list[str], int, str]] = {
    "no room for a folder": ([*PRUNE, "-o", "missing/out.onnx"], 1, "there is no folder missing"),
    "a file as folder": ([*PRUNE, "-o", "net.onnx/out.onnx"], 1, "net.onnx/out.onnx: "),
    "output is a folder": ([*PRUNE, "-o", "folder", "--force"], 1, "folder: exists and is no file"),
    "output is a device": ([*PRUNE, "-o", os.devnull, "--force"], 1, "exists and is no file"),
    "output is the input": ([*PRUNE, "-o", "./net.onnx", "--force"], 1, "is also an input"),
    "output are the samples": ([*PRUNE, "-o", "samples.npz", "--force"], 1, "is also an input"),
    "output exists": ([*PRUNE, "-o", "exists.onnx"], 1, "exists already"),
    "output has no name": ([*PRUNE, "-o", "."], 1, "names no file"),
    "output of a long name": ([*PRUNE, "-o", "x" * 300], 1, "File name too long"),
    "a folder nobody can write to": ([*PRUNE, "-o", "/proc/out.onnx"], 1, "/proc"),
    "plan in no folder": ([*PRUNE, *OUT, "--plan", "missing/plan.json"], 1, "there is no folder missing"),
    "plan exists": ([*PRUNE, "--dry-run", "--plan", "plan.json"], 1, "plan.json: exists already"),
    "report in no folder": ([*PRUNE, *OUT, "--report", "missing/out.html"], 1, "no folder missing"),
    "report over the input": ([*PRUNE[:3], "samples.npz", *PRUNE[4:], *OUT, "--report", "net.onnx"], 2, "net.onnx"),
    "two outputs of one name": ([*PRUNE, *OUT, "--plan", "out.onnx"], 2, "two outputs have the same name"),
    "target out of reach": ([*PRUNE[:-1], "0.0001", *OUT], 3, "smallest that can be reached"),
    "target too small for a number": ([*PRUNE[:-2], "--params", "100", *OUT], 3, "smallest that can be reached"),
    "everything frozen": ([*PRUNE, *OUT, "--freeze", "*"], 3, "no group of channels can be pruned"),
    "freeze matches nothing": ([*PRUNE, *OUT, "--freeze", "typo"], 2, "--freeze typo matches no layer"),
    "no such provider": ([*PRUNE, *OUT, "--provider", "abacus"], 2, "no provider 'abacus'"),
    "model of open size": (["inspect", "open_size.onnx"], 1, "leaves a size open"),
    "plan of another model": (["apply", "other.onnx", "plan.json", *OUT], 1, "made for another model"),
    "plan cut short": (["apply", "net.onnx", "cut_plan.json", *OUT], 1, "cut_plan.json: not a plan, or cut short"),
    "plan changed": (["apply", "net.onnx", "changed_plan.json", *OUT], 1, "changed_plan.json: damaged or changed"),
    "model as plan": (["apply", "net.onnx", "net.onnx", *OUT], 1, "net.onnx: not a plan"),
    "folder as plan": (["apply", "net.onnx", "folder", *OUT], 1, "folder: cannot be read"),
    "no plan": (["apply", "net.onnx", "missing.json", *OUT], 1, "missing.json: cannot be read"),
    "plan over itself": (["apply", "net.onnx", "plan.json", "-o", "plan.json", "--force"], 1, "is also an input"),
    "second model broken": (["compare", "net.onnx", "cut.onnx", "--data", "samples.npz"], 1, "cut.onnx"),
    "label of no class": (["compare", "net.onnx", "net.onnx", "--data", "high_labels.npz"], 1, "label 5"),
}
CASES |= {f"model {name}": (["prune", name, *PRUNE[2:], *OUT], 1, said) for name, said in MODELS.items()}
CASES |= {f"samples {name}": ([*PRUNE[:3], name, *PRUNE[4:], *OUT], 1, said) for name, said in SAMPLES.items()}


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize(("argv", "status", "said"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_said_in_a_line_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], argv: list[str], status: int, said: str
) -> None:
    before = listing(place)
    found = run_in(place, [*argv, "-q"])
    out, err = capsys.readouterr()
    assert found == status, err
    assert out == ""
    lines = err.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["error", "hint"], err
    assert said in lines[0]
    assert listing(place) == before


@pytest.mark.parametrize("argv", [["--wrong"], ["prune", "--wrong"], [*PRUNE, *OUT, "--mac", "0.5"], ["prunes"]])
def test_unknown_flags_and_verbs(place: Path, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    before = listing(place)
    assert run_in(place, argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "No such" in err
    assert "Traceback" not in err
    assert listing(place) == before


def start(folder: Path, argv: list[str], limit: int = resource.RLIM_INFINITY) -> subprocess.Popen[str]:
    """The real command in a process of its own, which may write files of ``limit`` bytes at most."""
    program = (
        f"import resource as r, signal, sys; r.setrlimit(r.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts without\n"
        "from reap_onnx.cli import main"
    )
    return subprocess.Popen(
        [sys.executable, "-B", "-c", f"{program}\nsys.exit(main())", *argv],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(reap_onnx.__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("external", [False, True])
def test_no_room_to_write(place: Path, tmp_path: Path, external: bool) -> None:
    """A limit on the size of files stands for a full disk: the write fails half-way, for root too."""
    model = residual_net()
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=external, location="net.bin", size_threshold=0)
    before = listing(tmp_path)
    argv = ["prune", "net.onnx", "--data", str(place / "samples.npz"), "--macs", "0.9", *OUT, "-q"]
    with start(tmp_path, argv, limit=12_000) as run:
        out, err = run.communicate(timeout=60)
    assert run.returncode == 1, err
    assert out == ""
    assert err.startswith("error: out.onnx: cannot be written: File too large")
    assert err.count("\n") == 2
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("delay", "sent"), [(0.0, signal.SIGINT), (0.4, signal.SIGINT), (0.4, signal.SIGTERM), (1.5, signal.SIGTERM)]
)
def test_interrupt_in_the_middle(
    tmp_path: Path, delay: float, sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spilled").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spilled"))
    onnx.save(residual_net(), tmp_path / "net.onnx")
    np.save(tmp_path / "many.npy", np.tile(images(500), (40, 1, 1, 1)))
    script = "def load_data():\n    pathlib.Path('started').touch()\n    return numpy.load('many.npy')\n"
    (tmp_path / "samples.py").write_text(f"import pathlib, numpy\n{script}")
    argv = ["prune", "net.onnx", "--data", "samples.py", "--macs", "0.5", *OUT, "--plan", "plan.json"]
    argv += ["--memory", "1M"]
    with start(tmp_path, argv) as run:
        while not (tmp_path / "started").exists() and run.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        run.send_signal(sent)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert out == ""
    assert err == "error: interrupted; nothing more is written\n"
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "many.npy", "samples.py", "started", "spilled"}
    assert not list((tmp_path / "spilled").glob("reap-onnx-*"))
