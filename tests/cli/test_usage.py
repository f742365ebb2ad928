from __future__ import annotations

import re
import subprocess
import sys

import pytest

from reap_onnx.cli import main
from reap_onnx.cli.flags import image_options
from reap_onnx.data.images import ImageOptions
from reap_onnx.errors import UsageError
from reap_onnx.version import VERSION

PRUNE = ["prune", "net.onnx", "--data", "samples.npz"]
NOTHING = {"preset": None, "mean": None, "std": None, "size": None, "crop": None, "layout": None, "color": None}


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    out, err = capsys.readouterr()
    return tuple(" ".join(re.sub("\x1b\\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split()) for text in (out, err))


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (
            [*PRUNE, "-o", "p.onnx"],
            "error: no target: one of --macs, --params, --size, --latency, --max-drop is needed",
        ),
        ([*PRUNE, "-o", "p.onnx", "--macs", "0.5", "--latency", "fast"], "error: --latency 'fast' is not a number"),
        ([*PRUNE, "-o", "p.onnx", "--latency", "4"], "hint: a fraction kept, --latency 0.5, or an absolute value"),
        ([*PRUNE, "-o", "p.onnx", "--size", "224"], "pixels of images are --image-size"),
        ([*PRUNE, "-o", "p.onnx", "--latency", "0.5", "--latency-batch", "0"], "--latency-batch"),
        ([*PRUNE, "-o", "p.onnx", "--macs", "0.5", "--round-to", "0"], "error: --round-to '0' is not a positive"),
        ([*PRUNE, "-o", "p.onnx", "--macs", "0.5", "--round-to", "best"], "error: --round-to 'best' is not a positive"),
        ([*PRUNE, "--macs", "0.5"], "hint: say where the pruned model goes with -o FILE, or use --dry-run"),
        ([*PRUNE, "-o", "p.onnx", "--macs", "half"], "error: --macs 'half' is not a number"),
        ([*PRUNE, "-o", "p.onnx", "--macs", "0.5", "--max-cut", "1.5"], "error: --max-cut 1.5 is not in (0, 1]"),
        ([*PRUNE, "-o", "p.onnx", "--macs", "0.5", "--mean", "a,b"], "error: --mean 'a,b' is not made of numbers"),
        ([*PRUNE, "-o", "p.onnx", "--macs", "0.5", "--preset", "my"], "error: unknown --preset 'my'"),
        ([*PRUNE, "-o", "p.onnx", "--macs", "0.5", "--effort", "most"], "hint: use one of fast, default, best"),
        ([*PRUNE, "--macs", "0.5", "--batch", "0"], "--batch"),
        (["prune", "net.onnx", "-o", "p.onnx", "--macs", "0.5"], "--data"),
        (["apply", "net.onnx", "plan.json"], "error: no output file"),
        (["compare", "net.onnx", "--data", "samples.npz"], "PRUNED"),
        (["compare", "a.onnx", "b.onnx", "--data", "d.npz", "--latency-batch", "0"], "--latency-batch"),
        (["trim", "net.onnx"], "trim"),
        (["inspect", "net.onnx", "--wrong"], "--wrong"),
    ],
)
def test_wrong_usage_is_status_2_and_named(capsys: pytest.CaptureFixture[str], argv: list[str], reason: str) -> None:
    assert main(argv) == 2
    out, err = said(capsys)
    assert out == ""
    assert reason in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ([], "inspect prune calibrate sweep apply compare demo --version"),
        (["inspect"], "MODEL --data --freeze --prunability --max-drop --metric --eval-data --json"),
        (
            ["prune"],
            "MODEL --output -o --data --stats --macs --params --size --latency --latency-batch --latency-table "
            "--max-drop --metric --effort --round-to --freeze --max-cut --min-channels --overrides --seed "
            "--samples --batch --provider --preset --mean --std --image-size --crop --layout --color --eval-data "
            "--dry-run "
            "--plan --keep-failed --force --report --json --quiet -q",
        ),
        (
            ["sweep"],
            "MODEL --data --stats --macs --params --size --latency --memory --write --report --round-to --eval-data "
            "--json",
        ),
        (
            ["calibrate"],
            "MODEL --data --output -o --samples --seed --batch --freeze --effort --memory --provider --preset --mean "
            "--force --json --quiet",
        ),
        (["apply"], "MODEL PLAN --output -o --force"),
        (["compare"], "ORIGINAL PRUNED --data --samples --seed --batch --provider --latency-batch --mean --json"),
        (["demo"], "--output --json"),
    ],
)
def test_help_names_every_flag_and_shows_examples(
    capsys: pytest.CaptureFixture[str], verb: list[str], words: str
) -> None:
    assert main([*verb, "--help"]) == 0
    out, err = said(capsys)
    assert err == ""
    assert set(words.split()) <= set(out.split())
    if verb:
        assert f"reap-onnx {verb[0]}" in out.partition("Examples:")[2]


def test_help_defines_macs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["prune", "--help"])
    assert "of Conv, ConvTranspose, Gemm and MatMul at batch 1" in said(capsys)[0]


def test_no_arguments_show_help(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "Usage: reap-onnx" in " ".join(said(capsys))


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{VERSION}\n"


def test_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "reap_onnx", "prune"], capture_output=True, text=True, check=False)
    assert "Usage: reap-onnx prune" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ({}, ImageOptions()),
        ({"size": "224"}, ImageOptions(size=(224, 224))),
        ({"size": "224x320"}, ImageOptions(size=(224, 320))),
        ({"size": "224,320"}, ImageOptions(size=(224, 320))),
        ({"mean": "0.5", "std": "0.1, 0.2,0.3"}, ImageOptions(mean=(0.5,), std=(0.1, 0.2, 0.3))),
        (
            {"preset": "yolo", "crop": 0.5, "layout": "nhwc", "color": "bgr"},
            ImageOptions(preset="yolo", crop=0.5, layout="nhwc", color="bgr"),
        ),
    ],
)
def test_image_flags(texts: dict[str, str], options: ImageOptions) -> None:
    assert image_options(**(NOTHING | texts)) == options


@pytest.mark.parametrize("size", ["", "big", "1,2,3", "2.5"])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(UsageError, match="--image-size"):
        image_options(**(NOTHING | {"size": size}))
