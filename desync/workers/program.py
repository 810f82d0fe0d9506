# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The worker: a process that takes units of a job from one pipe and answers on another until its
parent is gone.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from desync.errors import DesyncError
from desync.workers.messages import FAILED, JOB, NOTE, READY, RESULT, UNIT, FrameReader, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: What a worker starts with blocked, until it has said what it does about them.
STARTING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: ``MemoryError()`` as :mod:`pickle` has it, there when it is needed.
_OUT_OF_MEMORY: Final = b"cbuiltins\nMemoryError\n)R."


class WorkerHalf(Protocol):
    """What a job does in the worker."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Prepare: open files, make buffers. Errors fail the first unit."""

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes | bytearray | memoryview:
        """
        Do one unit.

        :param note: tells the parent something before the unit is done.
        :returns: the unit's result.
        """

    def close(self) -> None:
        """Let go of what was opened."""


def load(name: str, settings: dict[str, Any]) -> WorkerHalf:
    """Make the worker's half of the job that is called ``module:class``."""
    module, _, attribute = name.partition(":")
    __import__(module)
    half: WorkerHalf = getattr(sys.modules[module], attribute)(settings)
    return half


def describe_error(error: BaseException) -> bytes:
    """Pack an exception for the parent, which raises it again."""
    if isinstance(error, MemoryError):
        return _OUT_OF_MEMORY

    import pickle

    try:
        data = pickle.dumps(error)
        pickle.loads(data)
        return data
    except Exception:
        import traceback

        text = "".join(traceback.format_exception(error))
        return pickle.dumps(RuntimeError(text))


def serve(requests: int, answers: int) -> None:
    """
    Work until there is nothing more to read.

    :param requests: the descriptor that frames come from.
    :param answers: the descriptor that frames go to.
    """

    def say(kind: int, payload: bytes | bytearray | memoryview = b"") -> None:
        data = memoryview(frame(kind, payload))
        while data:
            data = data[os.write(answers, data) :]

    reader = FrameReader()
    name, settings, half = "", b"", None
    say(READY)
    while True:
        data = os.read(requests, 1 << 16)
        if not data:
            return
        for kind, payload in reader.feed(data):
            if kind == JOB:
                if half is not None:
                    half.close()
                half = None
                name, settings = marshal.loads(payload)
            elif kind == UNIT:
                try:
                    if half is None:
                        half = load(name, marshal.loads(settings))
                    answer = half.run(payload, lambda noted: say(NOTE, noted))
                except Exception as error:
                    say(FAILED, describe_error(error))
                else:
                    say(RESULT, answer)


def _import(modules: Iterable[str]) -> None:
    from importlib import import_module

    for module in modules:
        with suppress(ImportError):
            import_module(module)


def main(modules: Iterable[str] = ()) -> None:
    """
    Run as a process: frames come from standard input and go to what standard output was.

    :param modules: imported before the first frame is read. What can't be is left to the job, which
        says so.

    Interrupts are the parent's business. SIGTERM ends the unit that is under way through its
    clean-up.
    """

    def stop(number: int, stack: object) -> None:
        # A process group gets it from others and from the parent: once is enough to end, and twice
        # would interrupt the clean-up.
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STARTING)
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)  # what anything prints by mistake must not look like a frame
    code = 0
    try:
        from desync.chunking import kernels

        with suppress(DesyncError):  # kernels that aren't there: the job says so
            kernels.keep_memory()
        _import(modules)
        serve(requests, answers)
    except SystemExit:
        pass
    except BrokenPipeError:
        pass  # the parent has gone, or wants no more
    except KeyboardInterrupt:
        code = 1
    os._exit(code)
