"""Which kernels are asked for, and that they are those at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reap_onnx.openblas import VARIABLE, core_type, environment

AVX512 = "avx512f avx512dq avx512cd avx512bw avx512vl"
KERNELS = """
import os, json
import reap_onnx
from threadpoolctl import threadpool_info
found = [library.get("architecture") for library in threadpool_info() if library["internal_api"] == "openblas"]
print(json.dumps([found, os.environ.get("OPENBLAS_CORETYPE")]))
"""


def cpuinfo(vendor: str, family: int, flags: str) -> str:
    flags = f"fpu sse2 avx2 {flags}"
    core = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: 2\nflags\t\t: {flags}\npower management:\n"
    return f"processor\t: 0\n{core}\nprocessor\t: 1\n{core}\n"


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "expected"),
    [
        ("AuthenticAMD", 26, AVX512, "SkylakeX"),
        ("AuthenticAMD", 26, "", None),
        ("AuthenticAMD", 26, "avx512f", None),
        ("AuthenticAMD", 25, AVX512, None),
        ("GenuineIntel", 6, AVX512, None),
    ],
)
def test_kernels_for_a_processor_that_openblas_does_not_know(vendor, family, flags, expected):
    assert core_type(cpuinfo(vendor, family, flags)) == expected


def test_a_processor_that_says_nothing_of_itself():
    assert core_type("processor\t: 0\nBogoMIPS\t: 50.00\n") is None


def test_what_somebody_has_chosen_stays(monkeypatch):
    monkeypatch.setenv(VARIABLE, "Haswell")
    assert environment() == {}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
@pytest.mark.parametrize("chosen", [None, "Haswell"])
def test_the_kernels_at_work_and_an_environment_as_it_was(chosen):
    plain = {name: value for name, value in os.environ.items() if name != VARIABLE}
    given = plain | ({VARIABLE: chosen} if chosen else {})
    run = subprocess.run([sys.executable, "-c", KERNELS], env=given, capture_output=True, text=True, check=True)
    found, left = json.loads(run.stdout)
    wanted = chosen or core_type(Path("/proc/cpuinfo").read_text())
    assert left == chosen
    assert not found or wanted is None or set(found) == {wanted}
