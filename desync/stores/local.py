# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The store on local files, for the reactor: threads work on the files, on many chunks at a time.

:class:`desync.stores.local_files.LocalFiles` does the work. Commands whose stores are all local use
it directly, without this module and without a reactor.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ChunkInvalid, ChunkMissing, DesyncError
from desync.formats.chunk import Chunk
from desync.formats.ids import ID_SIZE, ChunkIds
from desync.formats.stored import MAX_CHUNK_SIZE, Malformed, form_named
from desync.interfaces import IBatch, IBatchRenewer, IChunkRemover, IChunkTarget, ILocalFiles

from .batches import blocks, check_id, guarded, packed
from .concurrently import concurrently
from .listing import PART, Parts
from .local_batches import read_together
from .pruning import membership
from .threads import StoreThreads, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any, Concatenate, ParamSpec

    from twisted.internet.interfaces import IReactorFromThreads

    from desync.formats.stored import StoredForm
    from desync.interfaces import IChunkSink

    from .batches import Guard
    from .listing import TakeIds
    from .local_files import LocalFiles, StoredFile
    from .pruning import Pruned

    _P = ParamSpec("_P")

_T = TypeVar("_T")

#: How many chunks a thread reads at a time, and how many bytes at most make it stop earlier.
_READ_COUNT: Final = 32
_READ_BYTES: Final = 4 << 20

#: Larger files are read one by one, in bytes: so many of the others are no more than the above.
_SMALL: Final = _READ_BYTES // _READ_COUNT

#: How many files a thread looks for at a time.
_LOOK_COUNT: Final = 512


class Found(NamedTuple):
    """
    What a thread read.

    :ivar chunks: those that were there and are good.
    :ivar absent: ids of those that weren't there, packed.
    :ivar failed: ids of the others, and why.
    :ivar done: how many ids were dealt with; the rest would have been too much at a time.
    """

    chunks: list[Chunk]
    absent: list[bytes]
    failed: list[tuple[bytes, DesyncError]]
    done: int


def read_some(files: LocalFiles, ids: Sequence[bytes], enough: int = _READ_BYTES) -> Found:
    """
    Read some chunks and verify them together, unless the store skips that. Blocks.

    :param enough: stop after the chunk that brings the sum of what was read to so many bytes.
    """
    chunks: list[Chunk] = []
    absent: list[bytes] = []
    failed: list[tuple[bytes, DesyncError]] = []
    unverified: list[tuple[bytes, bytes, bytes, StoredForm]] = []
    read = done = 0
    # Most are read in one go. What is large, absent or odd gets a closer look.
    for chunk_id, stored in zip(ids, read_together(files, ids, _SMALL), strict=True):
        done += 1
        form = files.form
        try:
            if stored is None:
                stored, form = files.read(chunk_id)
            if files.skip_verify:
                # A form of its own: this store's codec must stay with this store's thread.
                own = form_named(form.extension, files.level)
                chunks.append(Chunk(chunk_id, stored=stored, form=own))
                read += len(stored)
            else:
                plain = form.decode(stored, MAX_CHUNK_SIZE)
                unverified.append((chunk_id, plain, stored, form))
                read += len(plain) + len(stored)
        except ChunkMissing:
            absent.append(chunk_id)
        except Malformed as error:
            failed.append((chunk_id, ChunkInvalid(chunk_id, str(error), files.location)))
        except DesyncError as error:
            failed.append((chunk_id, error))
        if read >= enough:
            break
    digests = files.digest.ids_of_buffers([plain for _, plain, _, _ in unverified])
    for position, (chunk_id, plain, stored, form) in enumerate(unverified):
        found = digests[position * ID_SIZE : (position + 1) * ID_SIZE]
        if found == chunk_id:
            chunks.append(Chunk(chunk_id, plain, stored, form, verified=True))
        else:
            why = f"its {files.digest.name} is {found.hex()}"
            failed.append((chunk_id, ChunkInvalid(chunk_id, why, files.location)))
    return Found(chunks, absent, failed, done)


def _without(files: LocalFiles, ids: ChunkIds) -> list[bytes]:
    return [chunk_id for chunk_id in ids if not files.has(chunk_id)]


def _not_renewed(files: LocalFiles, ids: ChunkIds) -> list[bytes]:
    return [chunk_id for chunk_id in ids if not files.renew(chunk_id)]


def _some_ids(files: LocalFiles, listing: Iterator[StoredFile]) -> list[bytes]:
    # A file in a wrong subdirectory isn't in the store: get and remove don't find it.
    right = (file.chunk_id for file in listing if file.path == files.path_of(file.chunk_id))
    return list(islice(right, PART))


@implementer(IChunkTarget, IChunkRemover, IBatch, IBatchRenewer, ILocalFiles)
class LocalStore:
    """
    A store in a directory of this machine.

    :param files: the directory.
    :param reactor: where the threads' results arrive.
    :param threadpool: what blocks; some threads of the store's own if not given.
    """

    def __init__(
        self,
        files: LocalFiles,
        reactor: IReactorFromThreads,
        threadpool: Threads | None = None,
    ) -> None:
        self._files = files
        self.location = files.location
        self._owns_threads = threadpool is None
        self._threads: Threads = StoreThreads(reactor) if threadpool is None else threadpool
        # Each thread has files of its own, for a codec can't be shared.
        self._of_thread = threading.local()

    def __repr__(self) -> str:
        return f"<LocalStore {self.location}>"

    def _run(
        self, function: Callable[Concatenate[LocalFiles, _P], _T], *args: _P.args, **more: _P.kwargs
    ) -> Deferred[_T]:
        def call() -> _T:
            files: LocalFiles | None = getattr(self._of_thread, "files", None)
            if files is None:
                files = self._of_thread.files = self._files.twin()
            return function(files, *args, **more)

        return self._threads.run(call)

    def _run_one(
        self, function: Callable[[LocalFiles, bytes], _T], chunk_id: bytes
    ) -> Deferred[_T]:
        check_id(chunk_id)
        return self._run(function, chunk_id)

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        return self._run_one(lambda files, one: files.get(one), chunk_id)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        return self._run_one(lambda files, one: files.has(one), chunk_id)

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkTarget.renew`."""
        return self._run_one(lambda files, one: files.renew(one), chunk_id)

    def put(self, chunk: Chunk) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkTarget.put`."""
        check_id(chunk.chunk_id)
        # The thread converts the chunk while the caller may go on using it.
        own = chunk if chunk.verified else chunk.copy()
        return self._run(lambda files: files.put_chunk(own))

    def remove(self, chunk_id: bytes) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.remove`."""
        return self._run_one(lambda files, one: files.remove(one), chunk_id)

    def list_ids(self, take: TakeIds) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.list_ids`."""

        async def run() -> None:
            parts = Parts(take)
            listing = self._files.all_files()
            while found := await self._run(_some_ids, listing):
                await parts.add(found)
            await parts.finish()

        return Deferred.fromCoroutine(run())

    def prune(self, keep: ChunkIds, min_age: float, dry_run: bool = False) -> Deferred[Pruned]:
        """See :meth:`desync.interfaces.IChunkRemover.prune`. Cancelling stops it soon."""
        stopped = threading.Event()

        def pause(_: int) -> None:
            if stopped.is_set():
                raise CancelledError

        def work(files: LocalFiles) -> Pruned:
            return files.prune(membership(keep), min_age, dry_run=dry_run, pause=pause)

        async def run() -> Pruned:
            try:
                return await self._run(work)
            except CancelledError:
                stopped.set()
                raise

        return Deferred.fromCoroutine(run())

    def sync(self) -> Deferred[None]:
        """Make everything that was written last: see :meth:`.local_files.LocalFiles.sync`."""
        return self._run(lambda files: files.sync())

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""
        todo = iter(ids.sorted_unique())

        def transfer(guard: Guard) -> Coroutine[Deferred[Any], Any, None]:
            return self._in_lanes(lambda: self._read_lane(todo, guard))

        return guarded(sink, transfer)

    async def _in_lanes(self, lane: Callable[[], Coroutine[Deferred[Any], Any, None]]) -> None:
        # One for each thread, so that all are busy, and no more is read than they can hold.
        width = self._threads.size
        await concurrently((lane() for _ in range(width)), width)

    async def _read_lane(self, todo: Iterator[bytes], guard: Guard) -> None:
        while True:
            ids = list(islice(todo, _READ_COUNT))
            if not ids:
                return
            while ids:
                found = await self._run(read_some, ids)
                ids = ids[found.done :]
                guard.absent(packed(found.absent))
                for chunk_id, why in found.failed:
                    guard.failed(packed([chunk_id]), Failure(why))
                await guard.deliver(found.chunks)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return self._collect(_without, ids)

    def renew_many(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatchRenewer.renew_many`."""
        return self._collect(_not_renewed, ids)

    def _collect(
        self, look: Callable[[LocalFiles, ChunkIds], list[bytes]], ids: ChunkIds
    ) -> Deferred[ChunkIds]:
        todo = blocks(ids, _LOOK_COUNT)
        found: dict[bytes, bytes] = {}

        async def lane() -> None:
            for block in todo:
                left = await self._run(look, block)
                if left:
                    found[left[0]] = b"".join(left)

        async def run() -> ChunkIds:
            await self._in_lanes(lane)
            joined = b"".join(found[first] for first in sorted(found))
            return ChunkIds.from_bytes(joined, is_sorted=True)

        return Deferred.fromCoroutine(run())

    def local_files(self) -> tuple[LocalFiles, ...]:
        """See :meth:`desync.interfaces.ILocalFiles.local_files`."""
        return (self._files,)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return self._threads.stop() if self._owns_threads else succeed(None)
