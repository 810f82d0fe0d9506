# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Store files, and a store whose parts are replaced while it is used, when the file is read again.

A store file is JSON, ``{"stores": ["http://a/|http://b/", "/local"], "cache": "/cache"}``, as
servers and mounts take it with ``--store-file``::

    def stack(file: StoreFile) -> IChunkSource:
        return open_source(file.stores, options, reactor, cache=file.cache)

    store = Reloading(stack(read_store_file(path)))
    reader = StoreFileReader(path, stack, store, report)
    stop = on_hangup(reactor, reader.read_again)
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import alsoProvides, implementer

from desync.errors import DesyncError, UsageError, describe_os_error
from desync.interfaces import IBatch, IBatchRenewer, IChunkSource, IChunkTarget

from .batches import close_all, require

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import TypeVar

    from twisted.internet.interfaces import IReactorFromThreads

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink

    _T = TypeVar("_T")

#: Bytes that a store file has at most.
_LARGEST: Final = 1 << 20


class StoreFile(NamedTuple):
    """
    What a store file says.

    :param stores: locations, in the order of asking; at least one.
    :param cache: where chunks are cached, if anywhere.
    """

    stores: tuple[str, ...]
    cache: str | None = None


def read_store_file(path: str) -> StoreFile:
    """
    Read a store file. Names of fields match in any case, unknown ones are ignored.

    :raises UsageError: if it can't be read, isn't one, or names no store.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise _refusal(path, error.strerror or describe_os_error(error)) from None
    if len(content) > _LARGEST:
        raise _refusal(path, f"larger than {_LARGEST} bytes")
    try:
        document = json.loads(content.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise _refusal(path, str(error)) from None
    if not isinstance(document, dict):
        raise _refusal(path, "not a JSON object")
    fields = {name.lower(): value for name, value in document.items()}
    stores, cache = fields.get("stores"), fields.get("cache")
    if stores is not None and not (
        isinstance(stores, list) and all(isinstance(store, str) for store in stores)
    ):
        raise _refusal(path, '"stores" is not a list of strings')
    if cache is not None and not isinstance(cache, str):
        raise _refusal(path, '"cache" is not a string')
    if not stores:
        raise UsageError("no store provided")
    return StoreFile(tuple(stores), cache or None)


def _refusal(path: str, why: str) -> UsageError:
    return UsageError(f"failed to read store-file '{path}': {why}")


class _Stack:
    """One store under a :class:`Reloading`, and how many operations use it."""

    def __init__(self, store: IChunkSource) -> None:
        self.store = store
        self.users = 0
        self.idle: Deferred[None] | None = None

    def release(self) -> None:
        self.users -= 1
        if not self.users and self.idle is not None:
            self.idle.callback(None)

    def when_idle(self) -> Deferred[None]:
        """Fire when nobody uses it any more. Nobody begins to."""
        self.idle = Deferred()
        if not self.users:
            self.idle.callback(None)
        return self.idle


@implementer(IChunkSource, IBatch)
class Reloading:
    """
    A store in whose place another can be put at any moment.

    Operations that run then finish on the one they began with, which is closed after the last of
    them. Over a store that can be written to, this is one too
    (:class:`desync.interfaces.IChunkTarget`), and only such a one can be put in its place.

    :param store: must provide IChunkSource and IBatch.
    """

    def __init__(self, store: IChunkSource) -> None:
        require(store, IChunkSource, IBatch)
        self._stack = _Stack(store)
        self._closing: set[Deferred[None]] = set()
        for interface in IChunkTarget, IBatchRenewer:
            if interface.providedBy(store):
                alsoProvides(self, interface)

    def __repr__(self) -> str:
        return f"<Reloading {self.current!r}>"

    @property
    def current(self) -> Any:
        """The store that operations which begin now use."""
        return self._stack.store

    @property
    def location(self) -> str:
        """How a user names the store that is used now."""
        location: str = self.current.location
        return location

    def replace(self, store: IChunkSource) -> None:
        """
        Use another store from now on.

        :raises UsageError: if the present one can be written to and the new one can't.
        """
        require(store, IChunkSource, IBatch)
        if IChunkTarget.providedBy(self.current) and not IChunkTarget.providedBy(store):
            raise UsageError("a writable store can only be updated with another writable one")
        old, self._stack = self._stack, _Stack(store)
        done = Deferred.fromCoroutine(_close_when_idle(old))
        self._closing.add(done)

        def closed(outcome: object) -> None:
            # What an old store says while it is let go of is nobody's concern any more.
            self._closing.discard(done)

        done.addBoth(closed)

    def _run(self, operation: Callable[[Any], Deferred[_T]]) -> Deferred[_T]:
        stack = self._stack
        stack.users += 1

        def finish(outcome: Any) -> Any:
            stack.release()
            return outcome

        try:
            result = operation(stack.store)
        except BaseException:
            stack.release()
            raise
        result.addBoth(finish)
        return result

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        return self._run(lambda store: store.get(chunk_id))

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        return self._run(lambda store: store.has(chunk_id))

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""
        return self._run(lambda store: store.get_many(ids, sink))

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return self._run(lambda store: store.missing(ids))

    def put(self, chunk: Chunk) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkTarget.put`."""
        return self._run(lambda store: store.put(chunk))

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkTarget.renew`."""
        return self._run(lambda store: store.renew(chunk_id))

    def renew_many(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """
        See :meth:`desync.interfaces.IBatchRenewer.renew_many`; a store that can't renew only tells.
        """

        def renew(store: Any) -> Deferred[ChunkIds]:
            renewer = IBatchRenewer(store, None)
            if renewer is None:
                return IBatch(store).missing(ids)
            return renewer.renew_many(ids)

        return self._run(renew)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`. Old stores in use still are closed too."""

        async def close() -> None:
            try:
                await close_all([self.current])
            finally:
                for done in list(self._closing):
                    await done

        return Deferred.fromCoroutine(close())


async def _close_when_idle(stack: _Stack) -> None:
    await stack.when_idle()
    await stack.store.close()


class StoreFileReader:
    """
    Reads a store file again and puts what it says in the place of what is used.

    :param path: the file's.
    :param stack: opens the stores of a file, with whatever layers belong over them.
    :param store: whose parts are replaced.
    :param report: takes one line about what came of it.
    """

    def __init__(
        self,
        path: str,
        stack: Callable[[StoreFile], IChunkSource],
        store: Reloading,
        report: Callable[[str], None],
    ) -> None:
        self._path = path
        self._stack = stack
        self._store = store
        self._report = report

    def read_again(self) -> bool:
        """
        Read the file and use what it says. If that can't be, say so and leave all as it is.

        :returns: whether what it says is used now.
        """
        try:
            new = self._stack(read_store_file(self._path))
            try:
                self._store.replace(new)
            except BaseException:
                new.close().addErrback(lambda _: None)
                raise
        except (DesyncError, OSError) as error:
            why = describe_os_error(error) if isinstance(error, OSError) else str(error)
            self._report(f"failed to reload configuration: {why}")
            return False
        self._report(f"reloaded {self._path}: {self._store.location}")
        return True


def on_hangup(reactor: IReactorFromThreads, function: Callable[[], object]) -> Callable[[], None]:
    """
    Have a function called in the reactor thread whenever the process gets SIGHUP.

    :returns: what undoes that. Where there is no SIGHUP, or the process was started to ignore it
        (``nohup``), nothing is done.
    """
    number = getattr(signal, "SIGHUP", None)
    if number is None or signal.getsignal(number) is signal.SIG_IGN:
        return lambda: None

    def hang_up(received: int, frame: FrameType | None) -> None:
        # Not from here: a signal handler runs between any two instructions of anything.
        reactor.callFromThread(function)

    previous = signal.signal(number, hang_up)

    def undo() -> None:
        signal.signal(number, previous)

    return undo
