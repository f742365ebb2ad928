"""Every error a user can meet, and the exit status of each.

    ReapError              1   expected failure: one line and a hint
    |-- ModelError         1   the model cannot be read, is not valid, or does not run
    |-- DataError          1   the samples cannot be read or do not fit the model
    |-- PlanError          1   the plan cannot be read or is not for this model
    |-- StatsError         1   the statistics cannot be read or are not for this model
    |-- ClusterError       1   the dask cluster does not answer, or is lost
    |-- OutputError        1   the result cannot be written where it was asked for
    |-- UsageError         2   an option is wrong or options contradict each other
    |-- TargetError        3   the target cannot be met; nothing is written
    `-- CheckError         3   the result failed a check; nothing is written
        `-- LatencyError   3   the result was measured to be slower than asked for; nothing is written

Anything else that escapes is a bug: exit status 70, with its traceback.
"""

from __future__ import annotations


class ReapError(Exception):
    """An expected failure.

    Parameters
    ----------
    message
        What is wrong, in one line, naming the file, node or tensor.
    hint
        What to do about it, in one line.
    """

    exit_status = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ModelError(ReapError):
    """The model cannot be read, is not valid, or does not run."""


class DataError(ReapError):
    """The samples cannot be read or do not fit the model."""


class PlanError(ReapError):
    """The plan cannot be read or is not for this model."""


class StatsError(ReapError):
    """The statistics cannot be read or are not for this model."""


class ClusterError(ReapError):
    """The dask cluster does not answer, or is lost."""


class OutputError(ReapError):
    """The result cannot be written where it was asked for."""


class UsageError(ReapError):
    """An option is wrong or options contradict each other."""

    exit_status = 2


class TargetError(ReapError):
    """The target cannot be met; nothing is written."""

    exit_status = 3


class CheckError(ReapError):
    """The result failed a check; nothing is written."""

    exit_status = 3


class LatencyError(CheckError):
    """The result was measured to be slower than asked for; nothing is written.

    Parameters
    ----------
    message, hint
        As for :class:`ReapError`.
    share
        Its latency over the one asked for.
    """

    def __init__(self, message: str, hint: str = "", share: float = 1.0) -> None:
        super().__init__(message, hint)
        self.share = share
