# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What a process writes, read in large pieces: Twisted reads 8 KiB of a process at a time, with a turn
of the reactor for each.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

try:
    import fcntl
except ImportError:  # where there are no processes with pipes either
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

#: How much a pipe should hold, and how much is read at a time, in bytes. Linux gives that much to
#: anybody; other systems, and users with many pipes, have smaller ones.
_PIPE_SIZE: Final = 1 << 20
_READ_SIZE: Final = 1 << 18


@implementer(IReadDescriptor)
class ProcessOutput:
    """
    The reading end of a pipe that a process writes to.

    :param reactor: an ``IReactorFDSet``.
    :param received: takes what was read.
    :param ended: called once, when nothing more comes.
    :ivar writing_end: what the process gets; see :meth:`begin`.
    """

    def __init__(
        self, reactor: Any, received: Callable[[bytes], None], ended: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._received = received
        self._ended = ended
        self._descriptor, self.writing_end = os.pipe()
        os.set_blocking(self._descriptor, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # a smaller one will do
                fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)

    def begin(self) -> None:
        """Begin to read; the process has its end by now."""
        os.close(self.writing_end)
        self.resume()

    def discard(self) -> None:
        """Close both ends: there is no process."""
        os.close(self.writing_end)
        os.close(self._descriptor)
        self._descriptor = -1

    def pause(self) -> None:
        """Read no more for now."""
        self._reactor.removeReader(self)

    def resume(self) -> None:
        """Go on reading."""
        if self._descriptor >= 0:
            self._reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def doRead(self) -> None:  # noqa: N802
        try:
            data = os.read(self._descriptor, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._received(data)
        else:
            self.close()

    def close(self) -> None:
        """Read no more, ever."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1
            self._ended()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        self.close()

    def logPrefix(self) -> str:  # noqa: N802
        return "output of a process"
