"""Routines of LAPACK and the BLAS that let other threads go on: scipy's own wrappers hold the interpreter up meanwhile.

Called at the addresses that scipy has for Cython (``scipy.linalg.cython_lapack``). Matrices are float64 in Fortran
order and are worked on in place; of symmetric ones only the lower triangle is looked at.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import ModuleType

import numpy as np
import numpy.typing as npt
from scipy.linalg import cython_blas, cython_lapack

Doubles = npt.NDArray[np.float64]


def cholesky(matrix: Doubles) -> bool:
    """Put the factor ``L`` of ``matrix`` (D, D) into its lower triangle; False, and half of it, where it has none."""
    size, info = ctypes.c_int(len(matrix)), ctypes.c_int()
    _POTRF(b"L", ctypes.byref(size), _at(matrix), ctypes.byref(size), ctypes.byref(info))
    return info.value == 0


def invert(lower: Doubles) -> None:
    """Put the inverse of ``L L'`` into the lower triangle of ``L`` (D, D)."""
    size, info = ctypes.c_int(len(lower)), ctypes.c_int()
    _POTRI(b"L", ctypes.byref(size), _at(lower), ctypes.byref(size), ctypes.byref(info))


def solve(lower: Doubles, right: Doubles) -> None:
    """Put the ``x`` of ``L L' x = right`` into ``right`` (D, M)."""
    size, columns, info = ctypes.c_int(len(lower)), ctypes.c_int(right.shape[1]), ctypes.c_int()
    of_size = ctypes.byref(size)
    _POTRS(b"L", of_size, ctypes.byref(columns), _at(lower), of_size, _at(right), of_size, ctypes.byref(info))


def subtract_square(f: Doubles, matrix: Doubles) -> None:
    """Take ``F F'``, of ``F`` (D, n), off the lower triangle of ``matrix`` (D, D)."""
    size, columns = ctypes.c_int(len(f)), ctypes.c_int(f.shape[1])
    minus, one = ctypes.c_double(-1.0), ctypes.c_double(1.0)
    of_size, both = ctypes.byref(size), (ctypes.byref(minus), ctypes.byref(one))
    _SYRK(b"L", b"N", of_size, ctypes.byref(columns), both[0], _at(f), of_size, both[1], _at(matrix), of_size)


def _at(matrix: Doubles) -> ctypes.c_void_p:
    if matrix.dtype != np.float64 or matrix.ndim != 2 or not matrix.flags.f_contiguous:
        raise ValueError("a float64 matrix in Fortran order is due")
    return ctypes.c_void_p(matrix.ctypes.data)


def _routine(module: ModuleType, name: str) -> Callable[..., None]:
    """A routine at its address; ctypes calls it without the interpreter's lock."""
    name_of, address_of = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    address_of.restype, address_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = module.__pyx_capi__[name]
    return ctypes.CFUNCTYPE(None)(address_of(capsule, name_of(capsule)))


_POTRF, _POTRI, _POTRS = (_routine(cython_lapack, name) for name in ("dpotrf", "dpotri", "dpotrs"))
_SYRK = _routine(cython_blas, "dsyrk")
