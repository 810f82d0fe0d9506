# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A chunk server in several processes, which share one listening socket.

The parent listens, but accepts nothing: it hands the sockets down to worker processes
(:mod:`.worker`), starts those again that die, passes signals on, and adds up what they count. They
talk over pipes, in lines of JSON: settings first, then questions for figures one way, figures and
log lines the other. A worker whose pipe closes has lost its parent, and ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger

from desync.errors import UsageError
from desync.stores.reloading import on_hangup

from .counters import Counters
from .figures import Snapshot, add_up
from .listening import endpoint_description, is_tls_description, listen, shown_address

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from .metering import Troubles
    from .settings import ChunkServerSettings

_log = Logger(namespace="desync.server")

#: The first descriptor of a listening socket in a worker.
FIRST_SOCKET: Final = 3

#: Seconds that a worker is given to answer, and after which one that died is started again.
_ANSWER: Final = 2.0
_RESTART: Final = 1.0

#: Seconds that workers are given to end, beyond the grace of running requests.
_END: Final = 40.0

#: Bytes of one line of a worker.
_LONGEST_LINE: Final = 1 << 20


class WorkerProcess(ProcessProtocol):
    """The parent's side of one worker."""

    transport: Any

    def __init__(self, parent: WorkersService) -> None:
        self._parent = parent
        self._received = b""
        self._questions: list[Deferred[dict[str, Any]]] = []
        self.is_ready = False
        self._hung_up = False
        self.last: dict[str, Any] | None = None
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:  # noqa: N802
        self.say(self._parent.first_words)

    def say(self, message: Any) -> None:
        """Send a line."""
        self.transport.write(json.dumps(message).encode() + b"\n")

    def ask(self) -> Deferred[dict[str, Any]]:
        """Ask for its figures; the last ones it gave if it doesn't answer in time."""
        answer: Deferred[dict[str, Any]] = Deferred()
        self._questions.append(answer)
        self.say("figures")
        answer.addTimeout(_ANSWER, self._parent.reactor)

        def late(failure: Failure) -> Any:
            failure.trap(TimeoutError)
            if answer in self._questions:
                self._questions.remove(answer)
            return self.last or failure

        answer.addErrback(late)
        return answer

    def outReceived(self, data: bytes) -> None:  # noqa: N802
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > _LONGEST_LINE:
            self.send_signal("KILL")
            return
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "figures" in message:
            self.last = message["figures"]
            if self._questions:
                self._questions.pop(0).callback(message["figures"])
        elif "said" in message:
            self._parent.said(message["said"], error=message["error"])
        elif "trouble" in message:
            self._parent.troubles.add(message["trouble"])
        elif "about" in message:
            self.is_ready = True
            if self._hung_up:
                self.hang_up()
            self._parent.learn(message["about"])

    def send_signal(self, name: str) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(name)

    def hang_up(self) -> None:
        """Have it read its files again: once it serves, because SIGHUP would end it before."""
        self._hung_up = not self.is_ready
        if self.is_ready:
            self.send_signal("HUP")

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        self.is_ready = False
        questions, self._questions = self._questions, []
        for question in questions:
            if self.last is not None:
                question.callback(self.last)
            else:
                question.errback(reason)
        self._parent.lost(self, reason)
        self.ended.callback(None)


class WorkersService:
    """
    The parent of several processes that serve.

    :param settings: the server's, with the number of processes.
    :ivar workers: those that run.
    """

    def __init__(self, settings: ChunkServerSettings, reactor: Any, troubles: Troubles) -> None:
        self.reactor = reactor
        self.troubles = troubles
        self.ports: list[IListeningPort] = []
        self.workers: list[WorkerProcess] = []
        self._settings = settings
        self._descriptions = [endpoint_description(text) for text in settings.listen]
        if any(map(is_tls_description, self._descriptions)):
            raise UsageError("several processes speak TLS by --cert and --key, not by ssl:")
        self.first_words = settings.to_json()
        self._about: dict[str, str] = {}
        self._dead = Counters()
        self._stopping = False
        self._forget_hangup: Any = None
        self._ready: Deferred[None] | None = None
        self._failed = 0

    @property
    def addresses(self) -> list[str]:
        """Where it listens, for people."""
        return [shown_address(port, bool(self._settings.cert)) for port in self.ports]

    async def prepare(self) -> None:
        """
        Listen at all places, accepting nothing.

        :raises CannotListen: at the first where that can't be.
        """
        for description in self._descriptions:
            port = await listen(self.reactor, description, Factory())
            # Connections wait for the workers.
            port.stopReading()  # type: ignore[attr-defined]
            self.ports.append(port)

    async def start(self) -> None:
        """Start the processes, and wait until one of them serves."""
        self._forget_hangup = on_hangup(self.reactor, self._hang_up)
        self._ready = Deferred()
        for _ in range(self._settings.workers):
            self._spawn()
        await self._ready
        for address in self.addresses:
            _log.info("listening on {address}", address=address)

    def _spawn(self) -> None:
        if self._stopping:
            return
        worker = WorkerProcess(self)
        self.workers.append(worker)
        descriptors: dict[int, Any] = {0: "w", 1: "r", 2: 2}
        for number, port in enumerate(self.ports):
            descriptors[FIRST_SOCKET + number] = port.fileno()  # type: ignore[attr-defined]
        environ = dict(os.environ)
        environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.reactor.spawnProcess(
            worker,
            sys.executable,
            [sys.executable, "-m", "desync.services.worker", str(len(self.ports))],
            env=environ,
            childFDs=descriptors,
        )

    def learn(self, about: dict[str, str]) -> None:
        """Learn that a worker serves, and what."""
        self._about = about
        self._failed = 0
        if self._ready is not None and not self._ready.called:
            self._ready.callback(None)

    def said(self, line: str, *, error: bool) -> None:
        """Pass on what a worker has to say."""
        if error:
            _log.error("{line}", line=line)
        else:
            _log.info("{line}", line=line)

    def lost(self, worker: WorkerProcess, reason: Failure) -> None:
        """Learn that a worker is no more."""
        self.workers.remove(worker)
        if worker.last is not None:
            self._dead.add_json(worker.last["counters"])
        if self._stopping:
            return
        _log.error("a worker process ended: {why}", why=_why(reason))
        self._failed += 1
        if self._ready is not None and not self._ready.called:
            if not self.workers:
                self._ready.errback(UsageError("no worker process could be started"))
            return
        self.reactor.callLater(_RESTART, self._spawn)

    def _hang_up(self) -> None:
        for worker in self.workers:
            worker.hang_up()

    # Figures

    def about(self) -> dict[str, str]:
        """See :meth:`.figures.Figures.about`."""
        return {**self._about, "processes": str(self._settings.workers)}

    def snapshot(self) -> Deferred[Snapshot]:
        """See :meth:`.figures.Figures.snapshot`."""

        async def collect() -> Snapshot:
            asked: list[tuple[bool, Any]] = await DeferredList(
                [worker.ask() for worker in self.workers if worker.is_ready], consumeErrors=True
            )
            return add_up([answer for good, answer in asked if good], self._dead)

        return Deferred.fromCoroutine(collect())

    def is_ready(self) -> bool:
        """See :meth:`.figures.Figures.is_ready`."""
        return not self._stopping and any(worker.is_ready for worker in self.workers)

    async def stop(self) -> None:
        """End the processes, which let running requests finish."""
        self._stopping = True
        if self._forget_hangup is not None:
            self._forget_hangup()
            self._forget_hangup = None
        ending = [worker.ended for worker in self.workers]
        for worker in self.workers:
            worker.send_signal("TERM")
        if ending:
            late = self.reactor.callLater(_END, self._kill)
            await DeferredList(ending)
            if late.active():
                late.cancel()
        await self._close_ports()

    def _kill(self) -> None:
        for worker in self.workers:
            worker.send_signal("KILL")

    async def _close_ports(self) -> None:
        from twisted.internet.defer import maybeDeferred

        ports, self.ports = self.ports, []
        for port in ports:
            await maybeDeferred(port.stopListening)


def _why(reason: Failure) -> str:
    value: Any = reason.value
    if getattr(value, "signal", None):
        return f"signal {signal.Signals(value.signal).name}"
    return f"exit code {getattr(value, 'exitCode', '?')}"
