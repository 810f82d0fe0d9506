# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Files over SFTP: Conch's client on the pipes of ``ssh -s host sftp``, or of any program that speaks
it, and what stores do with files.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

from twisted.conch.ssh.common import NS
from twisted.conch.ssh.filetransfer import (
    FX_FAILURE,
    FX_NO_SUCH_FILE,
    FX_PERMISSION_DENIED,
    FXF_CREAT,
    FXF_EXCL,
    FXF_READ,
    FXF_TRUNC,
    FXF_WRITE,
    FileTransferClient,
    SFTPError,
)
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from zope.interface import provider

from desync.errors import DesyncError, StoreError

from .silence import SilenceWatch

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.logger import LogEvent

    from .ssh_command import PipedProcess

    #: Starts a program that speaks SFTP with a client.
    Spawn: TypeAlias = "Callable[[Link], PipedProcess]"

_T = TypeVar("_T")

#: How much is read and written by a request, in bytes: what every server can.
READ_SIZE: Final = 1 << 16
WRITE_SIZE: Final = 1 << 15

#: How many requests of one large file are under way at a time.
_WINDOW: Final = 16

#: The longest answer that is taken, in bytes. A directory's entries come some 100 at a time.
_ANSWER_LIMIT: Final = 1 << 20

_HEADER = struct.Struct("!LB")


class NoSuchFile(StoreError):
    """There is no such file."""


class Attributes(NamedTuple):
    """
    What a server says of a file.

    :param size: in bytes.
    :param mtime: seconds since 1970.
    """

    size: int
    mtime: int


@provider(ILogObserver)
def _nobody(event: LogEvent) -> None:
    pass


class Link(FileTransferClient):
    """One connection. It is ready when :attr:`ready` has fired."""

    _log = Logger(observer=_nobody)  # it would tell of every packet

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ready: Deferred[None] = Deferred()
        self.is_lost = False
        self.busy = 0
        self.reads_whole = False
        self._heard = 0
        self._watch: SilenceWatch | None = None
        self._gathered = bytearray()

    def gotServerVersion(self, serverVersion: int, extData: Any) -> None:  # noqa: N802, N803
        """The server has answered."""
        if not self.ready.called:
            self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take answers, of a bounded length; without copying all there is for each of them."""
        self._heard += 1
        gathered = self._gathered
        gathered += data
        begin = 0
        while len(gathered) - begin >= 9:
            size, kind = _HEADER.unpack_from(gathered, begin)
            if size > _ANSWER_LIMIT:
                self._give_up()
                return
            end = begin + 4 + size
            if len(gathered) < end:
                break
            body = bytes(gathered[begin + 5 : end])
            begin = end
            handle = getattr(self, f"packet_{self.packetTypes.get(kind, '')}", None)
            if handle is None:
                self._give_up()
                return
            try:
                handle(body)
            except Exception:
                # What isn't the protocol: an answer that nobody waits for, or too short a one.
                self._give_up()
                return
        del gathered[:begin]

    def watch(self, reactor: IReactorTime, patience: float) -> None:
        """
        Give the connection up when it owes an answer and nothing has come for some time.

        It may take as long as it likes to begin: somebody may have to type a password for ssh.

        :param patience: in seconds.
        """
        self._watch = SilenceWatch(
            reactor,
            patience,
            owes=lambda: self.ready.called and bool(self.openRequests),
            heard=lambda: self._heard,
            give_up=lambda why: self._give_up(Failure(ConnectionLost(why))),
        )

    def _give_up(self, why: Failure = connectionDone) -> None:
        self._gathered = bytearray()
        self.transport.loseConnection()  # type: ignore[union-attr]
        self.connectionLost(why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Fail what is under way."""
        if self.is_lost:
            return
        self.is_lost = True
        self.connected = 0
        if self._watch is not None:
            self._watch.stop()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if not self.ready.called:
            self.ready.errback(reason)


class SftpFiles:
    """
    The files of one server, over some connections.

    :param location: of the store, as messages name it.
    :param spawn: begins a connection.
    :param n: how many connections at once.
    """

    def __init__(self, location: str, spawn: Spawn, n: int) -> None:
        self.location = location
        self.size = max(1, n)
        self._spawn = spawn
        self._links: list[Link] = []
        self._processes: list[PipedProcess] = []
        self._beginning: Link | None = None
        self._waiting: list[Deferred[None]] = []
        self._is_closed = False

    async def _link(self) -> Link:
        """Find the connection with the least to do; a new one if all are busy."""
        while True:
            if self._is_closed:
                raise StoreError(self.location, "the store is closed")
            self._links = [link for link in self._links if not link.is_lost]
            link = min(self._links, key=lambda each: each.busy, default=None)
            if link is not None and (link.busy < 2 or len(self._links) >= self.size):
                return link
            # One after the other: agents don't like to be asked for many keys at once. Whoever
            # stops waiting doesn't stop it for the others.
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            if len(self._waiting) == 1:
                Deferred.fromCoroutine(self._begin()).addBoth(self._begun)
            await waiting

    async def _begin(self) -> None:
        link = Link()
        process = self._spawn(link)
        self._processes = [each for each in self._processes if not each.ended]
        self._processes.append(process)
        self._beginning = link
        try:
            await link.ready
        except Exception as error:
            raise self._lost(error, process) from None
        self._links.append(link)

    def _begun(self, outcome: Any) -> None:
        self._beginning = None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.called:
                one.callback(outcome)

    def _lost(self, error: BaseException, process: PipedProcess | None = None) -> StoreError:
        why = "the connection was lost"
        detail = " ".join(str(each) for each in error.args) if error.args else ""
        if process is not None and process.status is not None:
            detail = f"{process.name} {process.status}"
        return StoreError(self.location, f"{why} ({detail})" if detail else why)

    async def _with_link(
        self, path: str, work: Callable[[Link], Coroutine[Deferred[Any], Any, _T]]
    ) -> _T:
        link = await self._link()
        link.busy += 1
        try:
            return await work(link)
        except SFTPError as error:
            raise self._error(error, path) from None
        except (ConnectionLost, EOFError, NotImplementedError) as error:
            if isinstance(error, ConnectionLost):
                raise self._lost(error.__cause__ or error) from None
            raise StoreError(self.location, f"{_name(path)}: {error or 'not supported'}") from None
        except Exception as error:
            if link.is_lost and not isinstance(error, DesyncError):
                raise self._lost(error) from None
            raise
        finally:
            link.busy -= 1

    def _error(self, error: SFTPError, path: str) -> StoreError:
        if error.code == FX_NO_SUCH_FILE:
            return NoSuchFile(self.location, f"{_name(path)}: No such file or directory")
        words = {FX_PERMISSION_DENIED: "Permission denied", FX_FAILURE: "the server refused"}
        why = words.get(error.code) or str(error.message)
        return StoreError(self.location, f"{_name(path)}: {why}")

    # What stores do

    async def check(self, path: str) -> None:
        """
        Make sure that a directory is there.

        :raises StoreError: if it isn't.
        """
        await self._with_link(path, lambda link: _settled(link.getAttrs(os.fsencode(path), 1)))  # type: ignore[no-untyped-call]

    async def stat(self, path: str) -> Attributes:
        """Look at a file, not following links."""

        async def work(link: Link) -> Attributes:
            found = await link.getAttrs(os.fsencode(path))  # type: ignore[no-untyped-call]
            return Attributes(found.get("size", 0), found.get("mtime", 0))

        return await self._with_link(path, work)

    async def renew(self, path: str, now: float) -> None:
        """Make a file young."""
        times = {"atime": int(now), "mtime": int(now)}
        await self._with_link(
            path,
            lambda link: _settled(link.setAttrs(os.fsencode(path), times)),  # type: ignore[no-untyped-call]
        )

    async def remove(self, path: str) -> None:
        """Remove a file."""
        await self._with_link(path, lambda link: _settled(link.removeFile(os.fsencode(path))))  # type: ignore[no-untyped-call]

    async def entries(self, path: str) -> list[tuple[str, Attributes]]:
        """List a directory."""

        async def work(link: Link) -> list[tuple[str, Attributes]]:
            directory: Any = await link.openDirectory(os.fsencode(path))  # type: ignore[no-untyped-call]
            found: list[tuple[str, Attributes]] = []
            try:
                while True:
                    try:
                        some = await directory.read()
                    except EOFError:
                        return found
                    for name, _, attributes in some:
                        seen = Attributes(attributes.get("size", 0), attributes.get("mtime", 0))
                        found.append((os.fsdecode(name), seen))
            finally:
                directory.close().addErrback(lambda _: None)

        return await self._with_link(path, work)

    async def read(self, path: str, limit: int) -> bytes:
        """
        Read a file.

        :param limit: the most bytes it may have.
        :returns: its bytes, or more than the limit.
        """
        return await self._with_link(path, lambda link: _read(link, path, limit))

    async def write(self, path: str, pieces: list[bytes], *, sync: bool = False) -> None:
        """
        Write a file that replaces another, or appears, only once it is complete.

        The directory is made if it isn't there.

        :param sync: have the server make it last, if it can.
        """
        await self._with_link(path, lambda link: _replace(link, path, pieces, sync))

    async def rename(self, old: str, new: str) -> None:
        """Rename a file, over another if there is one."""
        await self._with_link(old, lambda link: _rename(link, os.fsencode(old), os.fsencode(new)))

    def close(self) -> Deferred[None]:
        """End the connections."""
        self._is_closed = True

        async def close() -> None:
            for link in [*self._links, self._beginning]:
                if link is not None and not link.is_lost:
                    link.transport.loseConnection()  # type: ignore[union-attr]
            await gatherResults([each.wait() for each in self._processes], consumeErrors=True)

        return Deferred.fromCoroutine(close())


def _name(path: str) -> str:
    return path.rpartition("/")[2] or path


async def _all(results: list[Deferred[Any]]) -> list[Any]:
    try:
        return await gatherResults(results, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()


async def _settled(result: Deferred[Any]) -> Any:
    return await result


async def _read(link: Link, path: str, limit: int) -> bytes:
    file: Any = await link.openFile(os.fsencode(path), FXF_READ, {})  # type: ignore[no-untyped-call]
    try:
        data: bytes = await file.readChunk(0, READ_SIZE)
        if len(data) < READ_SIZE and link.reads_whole:
            return data  # nearly every chunk
        if len(data) == READ_SIZE:
            # From now on a short answer of this server is known to be the file's end.
            link.reads_whole = True
        gathered = bytearray(data)
        while len(gathered) <= limit:
            count = min(_WINDOW, max(1, len(gathered) // READ_SIZE))
            at = len(gathered)
            wanted = [at + number * READ_SIZE for number in range(count)]
            answers = await _all([_piece(file.readChunk(begin, READ_SIZE)) for begin in wanted])
            for piece in answers:
                gathered += piece
                if len(piece) < READ_SIZE:
                    break  # what follows would have a gap before it
            if not answers[0] or (link.reads_whole and len(gathered) < at + count * READ_SIZE):
                break
        return bytes(gathered)
    except EOFError:
        return b""
    finally:
        file.close().addErrback(lambda _: None)


def _piece(reading: Deferred[bytes]) -> Deferred[bytes]:
    def at_end(why: Failure) -> bytes:
        why.trap(EOFError)
        return b""

    return reading.addErrback(at_end)


async def _replace(link: Link, path: str, pieces: list[bytes], sync: bool) -> None:
    temporary = os.fsencode(f"{path}.{int.from_bytes(os.urandom(8), 'big')}")
    flags = FXF_WRITE | FXF_CREAT | FXF_TRUNC | FXF_EXCL
    attributes = {"permissions": 0o644}
    try:
        file: Any = await link.openFile(temporary, flags, attributes)  # type: ignore[no-untyped-call]
    except SFTPError as error:
        if error.code != FX_NO_SUCH_FILE:
            raise
        with contextlib.suppress(SFTPError):  # somebody else may have made it
            parent = os.fsencode(path.rpartition("/")[0])
            await link.makeDirectory(parent, {"permissions": 0o755})  # type: ignore[no-untyped-call]
        file = await link.openFile(temporary, flags, attributes)  # type: ignore[no-untyped-call]
    try:
        try:
            writes = []
            for begin, piece in _divided(pieces):
                writes.append(file.writeChunk(begin, piece))
                if len(writes) == _WINDOW:
                    await _all(writes)
                    writes = []
            await _all(writes)
            if sync:
                with contextlib.suppress(SFTPError, NotImplementedError):
                    await link.extendedRequest(b"fsync@openssh.com", file.handle)  # type: ignore[no-untyped-call]
        finally:
            closing = file.close()
        await closing
        await _rename(link, temporary, os.fsencode(path))
    except BaseException:
        link.removeFile(temporary).addErrback(lambda _: None)  # type: ignore[no-untyped-call]
        raise


async def _rename(link: Link, old: bytes, new: bytes) -> None:
    try:
        await link.extendedRequest(b"posix-rename@openssh.com", NS(old) + NS(new))  # type: ignore[no-untyped-call]
    except NotImplementedError:
        # Servers without it refuse to rename over a file.
        with contextlib.suppress(SFTPError):
            await link.removeFile(new)  # type: ignore[no-untyped-call]
        await link.renameFile(old, new)  # type: ignore[no-untyped-call]


def _divided(pieces: list[bytes]) -> Iterator[tuple[int, bytes]]:
    at = 0
    for piece in pieces:
        for begin in range(0, len(piece), WRITE_SIZE):
            part = bytes(memoryview(piece)[begin : begin + WRITE_SIZE])
            yield at, part
            at += len(part)
