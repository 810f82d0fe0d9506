# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
One process of a chunk server that has several; see :mod:`.processes`.

It takes connections one at a time: a process that is busy leaves them to the others.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import globalLogBeginner
from zope.interface import implementer

from desync.errors import DesyncError

from .chunk_server import ChunkServing
from .logs import operator_log
from .processes import FIRST_SOCKET
from .settings import ChunkServerSettings

if TYPE_CHECKING:
    from twisted.internet.interfaces import IProtocolFactory
    from twisted.python.failure import Failure


@implementer(IReadDescriptor)
class Acceptor:
    """
    Accepts connections of a socket that other processes accept from too.

    :param listening: the socket, not blocking.
    :param factory: what connections are given to.
    """

    def __init__(self, listening: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        self._socket = listening
        self._factory = factory
        self._reactor = reactor

    def start(self) -> None:
        """Begin."""
        self._factory.doStart()
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Accept no more."""
        self._reactor.removeReader(self)
        self._socket.close()
        self._factory.doStop()

    def fileno(self) -> int:
        return self._socket.fileno()

    def doRead(self) -> None:  # noqa: N802
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return  # another one was faster, the client has left, or there is no descriptor left
        try:
            self._reactor.adoptStreamConnection(
                connection.fileno(), self._socket.family, self._factory
            )
        finally:
            connection.close()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        self._reactor.removeReader(self)

    def logPrefix(self) -> str:  # noqa: N802
        return "desync"


class Parent:
    """What a worker says to its parent, and hears from it."""

    def __init__(self, reactor: Any) -> None:
        self.gone: Deferred[None] = Deferred()
        self._serving: ChunkServing | None = None
        self._received = b""
        self._reactor = reactor

    def say(self, **message: Any) -> None:
        """Send a line; a parent that is gone doesn't hear it."""
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError:
            pass

    def listen_to(self, serving: ChunkServing) -> None:
        """Answer questions from now on."""
        from twisted.internet import stdio

        self._serving = serving
        connect: Any = stdio.StandardIO
        connect(_Questions(self), stdin=0, stdout=os.dup(2), reactor=self._reactor)

    def asked(self) -> None:
        """Give the figures."""
        if self._serving is not None:
            self.say(figures=self._serving.figures.take().to_json())

    def lost(self) -> None:
        """Learn that there is nobody any more."""
        if not self.gone.called:
            self.gone.callback(None)


def _questions_class() -> type:
    from twisted.protocols.basic import LineOnlyReceiver

    class Questions(LineOnlyReceiver):
        delimiter = b"\n"

        def __init__(self, parent: Parent) -> None:
            self._parent = parent

        def lineReceived(self, line: bytes) -> None:  # noqa: N802
            self._parent.asked()

        def connectionLost(self, reason: Any = None) -> None:  # noqa: N802
            self._parent.lost()

    return Questions


_Questions: Any = _questions_class()


async def _serve(reactor: Any, parent: Parent, words: Any, sockets: list[socket.socket]) -> None:
    from twisted.internet.defer import CancelledError

    settings = ChunkServerSettings.from_json(words)
    serving = ChunkServing(settings, reactor, os.environ)
    serving.troubles.tell(lambda what: parent.say(trouble=what))
    service = serving.service
    service.adopted = [Acceptor(listening, service.factory, reactor) for listening in sockets]
    await service.prepare()
    await service.start()
    parent.listen_to(serving)
    parent.say(about=serving.about())
    with suppress(CancelledError):
        await parent.gone
    await service.stop()


def main() -> None:
    """Be a worker."""
    from desync.running import run_with_reactor

    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write("desync")
    except OSError:
        pass
    # A signal of the terminal reaches the parent too, which knows what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    words = json.loads(_read_line())
    sockets = []
    for number in range(int(sys.argv[1])):
        listening = socket.socket(fileno=FIRST_SOCKET + number)
        listening.setblocking(False)
        sockets.append(listening)

    async def operation(reactor: Any) -> None:
        parent = Parent(reactor)

        def say(line: str) -> None:
            parent.say(said=line, error=line.startswith(("failed", "internal", "Error")))

        globalLogBeginner.beginLoggingTo([operator_log(say)], redirectStandardIO=False)
        try:
            await _serve(reactor, parent, words, sockets)
        except DesyncError as error:
            parent.say(said=f"Error: {error}", error=True)

    run_with_reactor(operation)


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(1)
        line += byte
    return line


if __name__ == "__main__":
    main()
