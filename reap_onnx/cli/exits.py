"""The one place that turns errors into exit statuses."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from reap_onnx.errors import ReapError

INTERRUPTED = 130
BROKEN_PIPE = 1
BUG = 70

P = ParamSpec("P")


def exits(verb: Callable[P, None]) -> Callable[P, None]:
    """Make a verb leave with the exit status of its error, said on stderr; see ``reap_onnx.errors`` for the statuses.

    A request to terminate (SIGTERM) is an interrupt. A reader of stdout that went away is no reason to say anything;
    anything unexpected keeps its traceback.
    """

    @functools.wraps(verb)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            verb(*args, **kwargs)
            sys.stdout.flush()
        except ReapError as error:
            _say("error", str(error))
            if error.hint:
                _say("hint", error.hint)
            raise typer.Exit(error.exit_status) from None
        except KeyboardInterrupt:
            _say("error", "interrupted; nothing more is written")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush complains
            raise typer.Exit(BROKEN_PIPE) from None
        except Exception:
            traceback.print_exc()
            _say("error", "this is a bug in reap-onnx; please report it with the command and the traceback above")
            raise typer.Exit(BUG) from None

    return run


def _say(kind: str, text: str) -> None:
    print(f"{kind}: {' '.join(text.split())}", file=sys.stderr)
