# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stores of chunks and of indexes over SFTP, ``sftp://[user@]host/path``."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ChunkInvalid, ChunkMissing, DesyncError, IndexMissing, UsageError
from desync.formats.chunk import Chunk
from desync.formats.index import Index
from desync.formats.stored import (
    DEFAULT_LEVEL,
    MAX_CHUNK_SIZE,
    chunk_id_of_name,
    chunk_name,
    form_named,
    other_form,
)
from desync.interfaces import (
    IBatch,
    IBatchRenewer,
    IChunkRemover,
    IChunkTarget,
    IIndexTarget,
)

from .batches import check_id, guarded, packed
from .concurrently import concurrently
from .index_files import check_index_name
from .listing import Parts
from .pruning import Pruned, membership
from .sftp_client import Link, NoSuchFile, SftpFiles
from .ssh_command import PipedProcess, SshTarget, spawn
from .threads import StoreThreads, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from desync.chunking.digests import Digest
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink
    from desync.options import StoreOptions

    from .batches import Guard
    from .listing import TakeIds
    from .location import Location
    from .opening import Reactor

#: How many chunks of a batch are under way on a connection.
_PER_LINK: Final = 24

#: How many files are looked at or removed at a time on a connection.
_LOOKS: Final = 64

_SUBDIRECTORY: Final = re.compile(r"[0-9a-f]{4}")
_TEMPORARY: Final = re.compile(r"[0-9a-f]{64}(\.cacnk)?\.[0-9]{1,20}")

#: The largest index that is read, in bytes.
_INDEX_LIMIT: Final = 4 << 30


@implementer(IChunkTarget, IChunkRemover, IBatch, IBatchRenewer)
class SftpStore:
    """
    A directory of chunks on a server.

    :param files: of the server.
    :param path: of the directory there.
    :param threads: for decoding, encoding and verifying.
    :param extension: the form that is written, and looked for first.
    """

    def __init__(
        self,
        files: SftpFiles,
        path: str,
        threads: Threads,
        digest: Digest,
        *,
        extension: str = ".cacnk",
        level: int = DEFAULT_LEVEL,
        skip_verify: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.location = files.location
        self._files = files
        self._path = path.rstrip("/")
        self._threads = threads
        self._digest = digest
        self._extension = extension
        self._level = level
        self._skip_verify = skip_verify
        self._now = now
        self._is_checked = False

    def __repr__(self) -> str:
        return f"<SftpStore {self.location}>"

    def _path_of(self, chunk_id: bytes, extension: str | None = None) -> str:
        name = chunk_name(chunk_id, self._extension if extension is None else extension)
        return f"{self._path}/{name}"

    async def _check(self) -> None:
        # A store that isn't there would look like an empty one.
        if not self._is_checked:
            await self._files.check(self._path or "/")
            self._is_checked = True

    # One chunk

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._get(chunk_id))

    async def _get(self, chunk_id: bytes) -> Chunk:
        await self._check()
        for extension in (self._extension, other_form(form_named(self._extension)).extension):
            form = form_named(extension)
            limit = form.stored_limit(MAX_CHUNK_SIZE)
            try:
                stored = await self._files.read(self._path_of(chunk_id, extension), limit)
            except NoSuchFile:
                continue
            if len(stored) > limit:
                raise ChunkInvalid(chunk_id, "it is too large", self.location)
            chunk = Chunk(chunk_id, stored=stored, form=form)
            if not self._skip_verify:
                try:
                    await self._threads.run(chunk.verify, self._digest)
                except ChunkInvalid as error:
                    raise ChunkInvalid(chunk_id, error.why, self.location) from None
            return chunk
        raise ChunkMissing(chunk_id, self.location)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._has(chunk_id))

    async def _has(self, chunk_id: bytes) -> bool:
        await self._check()
        try:
            await self._files.stat(self._path_of(chunk_id))
        except NoSuchFile:
            return False
        return True

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkTarget.renew`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._renew(chunk_id))

    async def _renew(self, chunk_id: bytes) -> bool:
        await self._check()
        try:
            await self._files.renew(self._path_of(chunk_id), self._now())
        except NoSuchFile:
            return False
        return True

    def put(self, chunk: Chunk) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkTarget.put`."""
        check_id(chunk.chunk_id)
        own = chunk if chunk.verified else chunk.copy()
        return Deferred.fromCoroutine(self._put(own))

    async def _put(self, chunk: Chunk) -> None:
        def encode() -> bytes:
            chunk.verify(self._digest)
            return chunk.stored_as(form_named(self._extension, self._level))

        await self._check()
        stored = await self._threads.run(encode)
        await self._files.write(self._path_of(chunk.chunk_id), [stored])

    def remove(self, chunk_id: bytes) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.remove`."""
        check_id(chunk_id)

        async def remove() -> None:
            await self._check()
            try:
                await self._files.remove(self._path_of(chunk_id))
            except NoSuchFile:
                raise ChunkMissing(chunk_id, self.location) from None

        return Deferred.fromCoroutine(remove())

    # Many

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""
        todo = iter(ids.sorted_unique())

        async def lane(guard: Guard) -> None:
            for chunk_id in todo:
                try:
                    chunk = await self._get(chunk_id)
                except ChunkMissing:
                    guard.absent(packed([chunk_id]))
                except DesyncError:
                    guard.failed(packed([chunk_id]), Failure())
                else:
                    await guard.deliver([chunk])

        def transfer(guard: Guard) -> Coroutine[Deferred[Any], Any, None]:
            width = self._files.size * _PER_LINK
            return concurrently((lane(guard) for _ in range(width)), width)

        return guarded(sink, transfer)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return self._collect(self._has, ids)

    def renew_many(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatchRenewer.renew_many`."""
        return self._collect(self._renew, ids)

    def _collect(
        self, look: Callable[[bytes], Coroutine[Deferred[Any], Any, bool]], ids: ChunkIds
    ) -> Deferred[ChunkIds]:
        todo = iter(ids.sorted_unique())
        lacking: list[bytes] = []

        async def lane() -> None:
            for chunk_id in todo:
                if not await look(chunk_id):
                    lacking.append(chunk_id)

        async def run() -> ChunkIds:
            width = self._files.size * _LOOKS
            await concurrently((lane() for _ in range(width)), width)
            return packed(lacking)

        return Deferred.fromCoroutine(run())

    # Listing and removing

    async def _subdirectories(self) -> list[str]:
        await self._check()
        found = await self._files.entries(self._path or "/")
        return sorted(name for name, _ in found if _SUBDIRECTORY.fullmatch(name))

    def list_ids(self, take: TakeIds) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.list_ids`."""
        parts = Parts(take)

        async def look(directory: str) -> None:
            found = []
            for name, _ in await self._files.entries(f"{self._path}/{directory}"):
                chunk_id = chunk_id_of_name(name, self._extension)
                if chunk_id is not None and name.startswith(directory):
                    found.append(chunk_id)
            await parts.add(found)

        async def run() -> None:
            names = await self._subdirectories()
            await concurrently(map(look, names), self._files.size * _LOOKS)
            await parts.finish()

        return Deferred.fromCoroutine(run())

    def prune(self, keep: ChunkIds, min_age: float, dry_run: bool = False) -> Deferred[Pruned]:
        """See :meth:`desync.interfaces.IChunkRemover.prune`."""

        async def run() -> Pruned:
            pruning = _Pruning(self, membership(keep), min_age, dry_run)
            # Subdirectory by subdirectory, as what is to be kept is unpacked in that order.
            for directory in await self._subdirectories():
                await pruning.look(directory)
            return Pruned(**pruning.counts)

        return Deferred.fromCoroutine(run())

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return _close(self._files, self._threads)


class _Pruning:
    """One prune."""

    def __init__(
        self, store: SftpStore, keep: Callable[[bytes], bool], min_age: float, dry_run: bool
    ) -> None:
        self._store = store
        self._keep = keep
        self._min_age = min_age
        self._dry_run = dry_run
        self.counts = dict.fromkeys(Pruned._fields, 0)

    def _is_young(self, mtime: int) -> bool:
        return self._min_age > 0 and self._store._now() - mtime < self._min_age

    async def look(self, directory: str) -> None:
        """Look through a subdirectory."""
        store = self._store
        unwanted: list[tuple[str, bool]] = []
        for name, _ in await store._files.entries(f"{store._path}/{directory}"):
            chunk_id = chunk_id_of_name(name, store._extension)
            if chunk_id is not None and self._keep(chunk_id):
                self.counts["kept"] += 1
            elif chunk_id is not None or _TEMPORARY.fullmatch(name):
                unwanted.append((f"{store._path}/{directory}/{name}", chunk_id is not None))
        width = store._files.size * _LOOKS
        await concurrently((self._remove(*each) for each in unwanted), width)

    async def _remove(self, path: str, is_chunk: bool) -> None:
        files = self._store._files
        try:
            # The age is read as late as can be: a writer that finds a chunk present renews it.
            found = await files.stat(path)
            removed = not self._is_young(found.mtime)
            if removed and not self._dry_run:
                removed = await self._remove_old(path, is_chunk)
        except NoSuchFile:
            return
        if removed:
            self.counts["removed" if is_chunk else "leftovers"] += 1
        elif is_chunk:
            self.counts["spared"] += 1
        if is_chunk:
            self.counts["removed_bytes" if removed else "spared_bytes"] += found.size

    async def _remove_old(self, path: str, is_chunk: bool) -> bool:
        """Remove a file, unless it has become young since."""
        files = self._store._files
        if not is_chunk:
            await files.remove(path)
            return True
        # Out of the way first, where no writer finds it, and back if it was renewed meanwhile.
        aside = f"{path}.{int.from_bytes(os.urandom(8), 'big')}"
        await files.rename(path, aside)
        try:
            if self._is_young((await files.stat(aside)).mtime):
                await files.rename(aside, path)
                return False
        except BaseException:
            await files.rename(aside, path)
            raise
        await files.remove(aside)
        return True


@implementer(IIndexTarget)
class SftpIndexStore:
    """
    A directory of indexes on a server.

    :param files: of the server.
    :param path: of the directory there.
    :param threads: for parsing.
    :param digest: the algorithm that ids must be made with; either, if None.
    """

    def __init__(
        self, files: SftpFiles, path: str, threads: Threads, digest: Digest | None = None
    ) -> None:
        self.location = files.location
        self._files = files
        self._path = path.rstrip("/")
        self._threads = threads
        self._digest = digest

    def __repr__(self) -> str:
        return f"<SftpIndexStore {self.location}>"

    def get_index(self, name: str) -> Deferred[Index]:
        """See :meth:`desync.interfaces.IIndexSource.get_index`."""

        async def get() -> Index:
            check_index_name(name)
            where = f"{self.location.rstrip('/')}/{name}"
            try:
                data = await self._files.read(f"{self._path}/{name}", _INDEX_LIMIT)
            except NoSuchFile:
                raise IndexMissing(where, "no such index") from None
            return await self._threads.run(Index.parse, data, where, self._digest)

        return Deferred.fromCoroutine(get())

    def put_index(self, name: str, index: Index) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexTarget.put_index`."""

        async def put() -> None:
            check_index_name(name)
            pieces = [bytes(piece) for piece in index.pieces()]
            await self._files.write(f"{self._path}/{name}", pieces, sync=True)

        return Deferred.fromCoroutine(put())

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexSource.close`."""
        return _close(self._files, self._threads)


def _close(files: SftpFiles, threads: Threads) -> Deferred[None]:
    async def close() -> None:
        await files.close()
        await threads.stop()

    return Deferred.fromCoroutine(close())


def _server(location: Location, options: StoreOptions, reactor: Reactor) -> tuple[SftpFiles, str]:
    if options.encryption:
        raise UsageError(f"{location.shown}: encrypted stores are not supported by this version")
    target = SshTarget(location, os.environ)

    def connect(link: Link) -> PipedProcess:
        process = spawn(reactor, target.sftp(), link, target.shown)
        if options.patience is not None:
            link.watch(reactor, options.patience)
        return process

    return SftpFiles(target.shown, connect, options.n), target.path


def open_sftp(
    location: Location, options: StoreOptions, digest: Digest, reactor: Reactor
) -> SftpStore:
    """
    Open a store of chunks. Nothing is connected before it is used.

    :raises UsageError: if the location can't be used.
    """
    files, path = _server(location, options, reactor)
    return SftpStore(
        files,
        path,
        StoreThreads(reactor),
        digest,
        extension="" if options.uncompressed else ".cacnk",
        level=options.compression_level,
        skip_verify=options.skip_verify,
    )


def open_sftp_indexes(
    location: Location, options: StoreOptions, digest: Digest, reactor: Reactor
) -> SftpIndexStore:
    """
    Open a store of indexes. Nothing is connected before it is used.

    :raises UsageError: if the location can't be used.
    """
    files, path = _server(location, options._replace(n=1), reactor)
    return SftpIndexStore(files, path, StoreThreads(reactor, size=1), digest)
