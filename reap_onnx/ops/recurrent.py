"""Recurrent cells: what they read stays."""

from __future__ import annotations

from reap_onnx.ops.registry import leave_alone

leave_alone("GRU", "LSTM", "RNN", why="recurrent cells are left alone, and what they read")
