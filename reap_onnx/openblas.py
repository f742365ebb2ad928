"""numpy's and scipy's OpenBLAS, told what the processor can do where they would not find it out.

OpenBLAS up to 0.3.31 takes an AMD Zen 5 for a processor without AVX-512 (OpenMathLib/OpenBLAS, issue 6029), which
makes products take twice as long. It reads the environment when it is loaded: so this comes before numpy, and takes
back what it has set.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
_NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # by the kernels for SkylakeX
_ZEN_5 = 26  # its family


def core_type(cpuinfo: str) -> str | None:
    """The kernels to ask for on the processor that ``/proc/cpuinfo`` tells of; None for those that OpenBLAS knows."""
    facts = dict(re.findall(r"^([^\t:]+)\t*: ?(.*)$", cpuinfo, re.MULTILINE))
    known = facts.get("vendor_id") != "AuthenticAMD" or int(facts.get("cpu family", 0)) < _ZEN_5
    return None if known or not set(facts.get("flags", "").split()) >= _NEEDED else "SkylakeX"


def environment() -> dict[str, str]:
    """What to set on this processor before the libraries are loaded; nothing where somebody has chosen."""
    if sys.platform != "linux" or VARIABLE in os.environ:
        return {}
    try:
        wanted = core_type(Path("/proc/cpuinfo").read_text())
    except OSError:
        return {}
    return {VARIABLE: wanted} if wanted else {}


def load() -> None:
    """Load numpy and scipy with the kernels that suit the processor, unless they are there already."""
    wanted = {} if "numpy" in sys.modules else environment()
    os.environ.update(wanted)
    try:
        for name in ("numpy", "scipy.linalg"):
            import_module(name)
    finally:
        for name in wanted:
            del os.environ[name]


load()
