"""Fetch real models out of wheels on PyPI, each wheel pinned by its SHA-256, for ``tools/check_models.py wheels``.

Usage: python tools/fetch_models.py FOLDER
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEELS = {
    "magika==1.0.3": "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
    "nudenet==3.4.2": "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
    "rapidocr-onnxruntime==1.4.4": "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    "silero-vad==6.2.3": "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
}


def fetch(folder: Path) -> list[Path]:
    """Download the wheels, which pip checks against their digests, and take the ONNX files out of them."""
    found = []
    with tempfile.TemporaryDirectory() as work:
        pins = Path(work) / "pins.txt"
        pins.write_text("".join(f"{wheel} --hash=sha256:{digest}\n" for wheel, digest in WHEELS.items()))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--platform=manylinux_2_28_x86_64", "--require-hashes", f"--dest={work}", f"--requirement={pins}"]
        subprocess.run(command, check=True)
        for wheel in sorted(Path(work).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(".onnx"):
                        target = folder / f"{Path(name).parts[0]}_{Path(name).name}"
                        target.write_bytes(archive.read(name))
                        found.append(target)
    return found


def main() -> None:
    """Read the arguments and fetch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the models go; made where it is not there")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for path in fetch(folder):
        print(path)


if __name__ == "__main__":
    main()
