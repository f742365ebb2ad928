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
    size, info = len(matrix), ctypes.c_int64()
    _POTRF(b"L", _number(size), _at(matrix, (size, size)), _number(size), ctypes.byref(info))
    return info.value == 0


def invert(lower: Doubles) -> None:
    """Put the inverse of ``L L'`` into the lower triangle of ``L`` (D, D)."""
    size, info = len(lower), ctypes.c_int64()
    _POTRI(b"L", _number(size), _at(lower, (size, size)), _number(size), ctypes.byref(info))


def solve(lower: Doubles, right: Doubles) -> None:
    """Put the ``x`` of ``L L' x = right`` into ``right`` (D, M)."""
    size, columns, info = len(lower), right.shape[1], ctypes.c_int64()
    both = _at(lower, (size, size)), _number(size), _at(right, (size, columns)), _number(size)
    _POTRS(b"L", _number(size), _number(columns), *both, ctypes.byref(info))


def subtract_square(f: Doubles, matrix: Doubles) -> None:
    """Take ``F F'``, of ``F`` (D, n), off the lower triangle of ``matrix`` (D, D)."""
    size, columns = f.shape
    minus, one = ctypes.byref(ctypes.c_double(-1.0)), ctypes.byref(ctypes.c_double(1.0))
    to, of = (_at(matrix, (size, size)), _number(size)), (_at(f, f.shape), _number(size))
    _SYRK(b"L", b"N", _number(size), _number(columns), minus, *of, one, *to)


def _number(value: int) -> object:
    """A number by its address; builds with integers of 32 bits read its lower half, which comes first."""
    return ctypes.byref(ctypes.c_int64(value))


def _at(matrix: Doubles, shape: tuple[int, ...]) -> ctypes.c_void_p:
    fits = matrix.shape == shape and matrix.size and matrix.dtype == np.float64
    if not (fits and matrix.flags.f_contiguous and matrix.flags.writeable):
        raise ValueError(f"a writeable float64 matrix {shape} in Fortran order is due")
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
