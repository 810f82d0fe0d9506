# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""How ``ssh`` is run: the user's own, with its configuration, agent and jump hosts."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from twisted.internet.error import ConnectionLost, ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import StoreError, UsageError

from .process_output import ProcessOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .location import Location

#: How long ssh may take to end by itself once its input is closed, in seconds.
_PATIENCE: Final = 5.0


class SshTarget:
    """
    What a location says about the other end.

    :param location: with the scheme ``ssh`` or ``sftp``.
    :param environ: ``CASYNC_SSH_PATH`` names another program than ``ssh``, ``CASYNC_REMOTE_PATH``
        what is run on the other machine instead of ``casync``.
    :ivar port: of the machine's sshd; empty for what ssh's configuration says.
    :ivar path: on the other machine; ``~`` and blanks in it mean nothing special.
    :raises UsageError: if there is no host, or one that ssh would take for a flag.
    """

    def __init__(self, location: Location, environ: Mapping[str, str]) -> None:
        user = unquote(location.user_info.partition(":")[0], errors="surrogateescape")
        host, port = location.host, ""
        if ":" in host.rpartition("]")[2]:
            host, _, port = host.rpartition(":")
        host = host.strip("[]")
        self.destination = f"{user}@{host}" if user else host
        self.path = unquote(location.path, errors="surrogateescape") or "/"
        self.port = port
        self.shown = location.shown
        if not host or self.destination.startswith("-") or host.startswith("-"):
            raise UsageError(
                f"{location.shown}: invalid ssh destination {self.destination!a}:"
                " must not begin with '-'"
            )
        if "\0" in self.path or "\n" in self.path:
            raise UsageError(f"{location.shown}: the path holds a control character")
        self.program = environ.get("CASYNC_SSH_PATH") or "ssh"
        self._remote = environ.get("CASYNC_REMOTE_PATH") or "casync"

    def is_same_host(self, other: SshTarget) -> bool:
        """Tell whether another target is for the same user of the same machine."""
        return (self.destination, self.port) == (other.destination, other.port)

    def _ssh(self) -> list[str]:
        return [self.program, *(["-p", self.port] if self.port else [])]

    def casync(self, verb: str, index: str, store: str) -> list[str]:
        """
        Give the command line that speaks the casync protocol with the other end.

        :param verb: ``pull`` or ``push``.
        :param index: path of an index there; ``-`` for none.
        :param store: path of a store there; ``-`` for none.
        """
        words = [path if path == "-" else _quoted(path) for path in ("-", "-", index, store)]
        remote = " ".join([self._remote, verb, *words])
        return [*self._ssh(), "--", self.destination, remote]

    def sftp(self) -> list[str]:
        """Give the command line that speaks SFTP with the other end."""
        return [*self._ssh(), "-s", "--", self.destination, "sftp"]


def _quoted(path: str) -> str:
    # Always in quotes, as Go desync does: a server may have a rule for exactly that.
    return "'" + path.replace("'", "'\\''") + "'"


@implementer(IPushProducer)
class _Unstopped:
    """
    A producer that isn't told when the process closes its input: it is about to end, and only then
    is it known how.
    """

    def __init__(self, producer: Any) -> None:
        self.pauseProducing = producer.pauseProducing
        self.resumeProducing = producer.resumeProducing

    def stopProducing(self) -> None:  # noqa: N802
        pass


class _Pipes:
    """A process's standard input and output as a transport."""

    disconnecting = False

    def __init__(self, process: Any, output: ProcessOutput) -> None:
        self._process = process
        self._output = output

    def write(self, data: bytes) -> None:
        self._process.write(data)

    def writeSequence(self, data: Any) -> None:  # noqa: N802
        self._process.writeSequence(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        pipe = self._process.pipes.get(0)
        if pipe is not None:
            pipe.registerProducer(_Unstopped(producer), streaming)

    def unregisterProducer(self) -> None:  # noqa: N802
        pipe = self._process.pipes.get(0)
        if pipe is not None:
            pipe.unregisterProducer()

    def pauseProducing(self) -> None:  # noqa: N802
        self._output.pause()

    def resumeProducing(self) -> None:  # noqa: N802
        self._output.resume()

    def loseConnection(self) -> None:  # noqa: N802
        self._process.closeStdin()


class PipedProcess(ProcessProtocol):
    """
    Speaks a protocol with a process. What it says on stderr goes to ours.

    :param protocol: is connected to the process's input and output.
    :param reactor: ends the process if it doesn't end by itself.
    :param name: of the program, for messages.
    :ivar status: why the process ended, once it has; None if it ended well or still runs.
    """

    def __init__(self, protocol: Protocol, reactor: Any, name: str) -> None:
        self.protocol = protocol
        self.name = name
        self.status: str | None = None
        self._reactor = reactor
        self._timer: Any = None
        self._waiting: list[Any] = []
        self._is_silent = False
        self._why: Failure | None = None
        self.ended = False
        self.output = ProcessOutput(reactor, protocol.dataReceived, self._fell_silent)

    def connectionMade(self) -> None:  # noqa: N802
        self.output.begin()
        self.protocol.makeConnection(_Pipes(self.transport, self.output))

    def inConnectionLost(self) -> None:  # noqa: N802
        # Our input to it is closed: by us, after which it has some time, or because it is ending.
        if self._timer is None and not self.ended:
            self._timer = self._reactor.callLater(_PATIENCE, self.kill)

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        if self._why is None:
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")  # type: ignore[union-attr]
        # Perhaps a child of it has the pipe, which is nobody to wait for.
        self.output.close()

    def _fell_silent(self) -> None:
        # Whether the process failed, and so what to say, is known only when it has ended.
        self._is_silent = True
        if self._why is None and self._timer is None:
            self._timer = self._reactor.callLater(_PATIENCE, self.kill)
        self._end_if_over()

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        self._why = reason
        if self._timer is None and not self._is_silent:
            self._timer = self._reactor.callLater(_PATIENCE, self.kill)
        self._end_if_over()

    def _end_if_over(self) -> None:
        # What it wrote last may have to be read still when it has ended.
        reason = self._why
        if reason is None or not self._is_silent or self.ended:
            return
        self.ended = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not reason.check(ProcessDone):
            value: Any = reason.value
            self.status = (
                f"ended with exit code {value.exitCode}"
                if value.exitCode is not None
                else f"ended by signal {value.signal}"
            )
        lost = connectionDone
        if self.status is not None:
            lost = Failure(ConnectionLost(f"{self.name} {self.status}"))
        self.protocol.connectionLost(lost)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    def wait(self) -> Any:
        """Give what fires when the process has ended."""
        from twisted.internet.defer import Deferred, succeed

        if self.ended:
            return succeed(None)
        ending: Deferred[None] = Deferred()
        self._waiting.append(ending)
        return ending


def spawn(reactor: Any, arguments: list[str], protocol: Protocol, shown: str) -> PipedProcess:
    """
    Run a program and connect a protocol to it. No shell sees the arguments.

    :raises StoreError: if it can't be run.
    """
    program = shutil.which(arguments[0])
    if program is None:
        raise StoreError(shown, f"{arguments[0]}: command not found")
    piped = PipedProcess(protocol, reactor, os.path.basename(program))
    encoded = [os.fsencode(word) for word in arguments]
    try:
        reactor.spawnProcess(
            piped,
            os.fsencode(program),
            encoded,
            env=None,
            childFDs={0: "w", 1: piped.output.writing_end, 2: 2},
        )
    except OSError as error:
        piped.output.discard()
        raise StoreError(shown, f"{program}: {error.strerror or error}") from None
    return piped
