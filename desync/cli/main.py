# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The ``desync`` program's entry: signals, the command, the exit code, which is 0 or 1.

Little is imported here, so that signals are dealt with while the rest still is.
"""

from __future__ import annotations

import os
import signal
import sys

# As in typing, which takes longer to import than everything else here.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from .streams import Streams


#: How soon an interrupt is tried again that came at the wrong time, in seconds.
_LATER = 0.005


def main(
    argv: Sequence[str] | None = None,
    *,
    standalone: bool = True,
    streams: Streams | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """
    Run the program.

    :param argv: what follows the program's name; None for the process's own.
    :param standalone: whether this process is the program. Then signals are dealt with, and the
        process is left at once when everything is done, without Python's tidying up, which takes
        some 50 ms. Otherwise the exit code is returned.
    :param streams: what to read and write; None for the process's own.
    :param environ: the environment; None for the process's own.
    :return: the exit code, 0 or 1.
    """
    try:
        if standalone:
            _prepare_process()
        from .invocation import Session
        from .program import run_program
        from .streams import standard_streams

        session = Session(
            standard_streams() if streams is None else streams,
            os.environ if environ is None else environ,
        )
        code = run_program(sys.argv[1:] if argv is None else argv, session)
        if standalone:
            _leave(code)
    except KeyboardInterrupt:
        # Before there was a command, or while another error was being reported.
        if not standalone:
            raise
        try:
            os.write(2, b"Error: interrupted\n")
        finally:
            os._exit(1)
    return code


def _leave(code: int) -> None:
    # Our own streams are flushed; this is for whatever printed by itself.
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        code = 1
    os._exit(code)


def _imports(frame: FrameType | None) -> bool:
    """
    Tell whether something is being imported, which must not be interrupted.

    Python keeps the lock of all imports if it is interrupted in between, and every thread that
    imports something waits for ever; or it makes another error of the interrupt.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _prepare_process() -> None:
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        # The first one interrupts the work. The second one doesn't interrupt the tidying up after
        # it; the third one means it.
        received.append(number)
        if len(received) == 1:
            act(frame)
        if len(received) > 2:
            os._exit(1)

    def act(frame: FrameType | None) -> None:
        if _imports(frame):
            signal.signal(signal.SIGALRM, lambda _, later: act(later))
            signal.setitimer(signal.ITIMER_REAL, _LATER)
        elif signal.getsignal(received[0]) is interrupt:
            raise KeyboardInterrupt
        else:
            # By now somebody else deals with it.
            signal.raise_signal(received[0])

    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever started us may have wanted us to ignore it: `nohup`, a shell's background job.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # `killall -1 desync` makes servers read their store files again; it must not end others.
        # A handler rather than SIG_IGN, because programs that we start would inherit the latter.
        signal.signal(signal.SIGHUP, lambda number, frame: None)
    try:
        # The name that killall knows us by, also as `python -m desync`.
        with open("/proc/self/comm", "w") as comm:
            comm.write("desync")
    except OSError:
        pass
