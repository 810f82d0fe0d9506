# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Storing the chunks of a file in a store of any kind, while the file is still being cut if there is
no index yet.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredQueue

from desync.assembly.upload import Uploaded
from desync.formats.id_set import IdSet
from desync.jobs.upload import Place, UploadJob
from desync.stores.batches import packed
from desync.stores.concurrently import concurrently
from desync.stores.presence import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.formats.stored import StoredForm
    from desync.interfaces import IChunkTarget
    from desync.jobs.cut import CutSegment
    from desync.jobs.source import SourceFile
    from desync.progress import Progress
    from desync.workers.pool import Runner

#: How many questions the store is asked at a time about what it lacks, and about how many chunks of
#: an index each of them is.
_QUESTIONS: Final = 2
_ASKED_TOGETHER: Final = 512


class ChunkUploads:
    """
    Stores what a store doesn't have.

    :param target: where chunks go.
    :param concurrency: how many chunks are put there at a time.
    :param form: what the pool encodes chunks in, which should be the store's: the store encodes
        what comes in another. None to leave it to the store.
    """

    installs = False

    def __init__(
        self, target: IChunkTarget, concurrency: int, form: StoredForm | None = None
    ) -> None:
        self._target = target
        self._concurrency = concurrency
        self._form = form

    async def upload(
        self, source: SourceFile, index: Index, ids: ChunkIds, pool: Runner, progress: Progress
    ) -> Uploaded:
        """See :meth:`desync.assembly.upload.Uploads.upload`."""
        wanted = ids.sorted_unique()
        with progress.start("Storing", len(wanted), "chunks") as tracker:
            upload = self._begin(source, index.digest, lambda count, _: tracker.add(count))
            return await upload.run_known(_places(index, wanted), pool)

    async def cut_and_upload(
        self,
        source: SourceFile,
        sizes: ChunkSizes,
        digest: Digest,
        take: Callable[[CutSegment], object],
        pool: Runner,
        progress: Progress,
    ) -> Uploaded:
        """See :meth:`desync.assembly.upload.EarlyUploads.cut_and_upload`."""
        with progress.start("Chunking", source.size, "bytes") as tracker:
            upload = self._begin(source, digest, lambda _, size: tracker.add(size))
            return await upload.run_cutting(sizes, take, pool)

    def _begin(
        self, source: SourceFile, digest: Digest, settled: Callable[[int, int], object]
    ) -> _Upload:
        return _Upload(self._target, self._concurrency, self._form, source, digest, settled)


class _Upload:
    """
    One upload: the chunks of a file on their way into a store. Lanes ask about them and put them,
    workers do what is between.

    :param settled: told how many chunks, and bytes of the file, need nothing more.
    """

    def __init__(
        self,
        target: IChunkTarget,
        concurrency: int,
        form: StoredForm | None,
        source: SourceFile,
        digest: Digest,
        settled: Callable[[int, int], object],
    ) -> None:
        self._target = target
        self._concurrency = concurrency
        self._settled = settled
        self._size = source.size
        self._job = UploadJob(source, digest, form, concurrency, self._take_encoded)
        self._seen = IdSet()
        self._found: DeferredQueue[list[Place] | None] = DeferredQueue()
        self._encoded: DeferredQueue[tuple[Chunk, int] | None] = DeferredQueue()
        self._waiting: list[Deferred[None]] = []
        self._chunks = self._stored_bytes = 0

    async def run_known(self, places: Iterator[Place], pool: Runner) -> Uploaded:
        """Store chunks whose places are known, each once."""

        async def ask() -> None:
            while some := list(islice(places, _ASKED_TOGETHER)):
                await self._wait_for_room()
                self._job.find(some)
                await self._ask(some)

        return await self._run(ask, pool)

    async def run_cutting(
        self, sizes: ChunkSizes, take: Callable[[CutSegment], object], pool: Runner
    ) -> Uploaded:
        """Find the chunks first."""

        def found(segment: CutSegment) -> None:
            take(segment)
            self._take_cut(segment)

        async def ask() -> None:
            while (places := await self._found.get()) is not None:
                await self._ask(places)

        self._job.cut(sizes, found)
        if not self._size:
            self._end(self._found, _QUESTIONS)
        return await self._run(ask, pool)

    async def _run(
        self, ask: Callable[[], Coroutine[Deferred[Any], Any, None]], pool: Runner
    ) -> Uploaded:
        async def ask_about_all() -> None:
            await concurrently((ask() for _ in range(_QUESTIONS)), _QUESTIONS)
            self._job.complete()

        async def encode() -> None:
            await pool.run(self._job)
            self._end(self._encoded, self._concurrency)

        def lanes() -> Iterator[Coroutine[Deferred[Any], Any, None]]:
            for _ in range(self._concurrency):
                yield self._put()
            yield ask_about_all()
            # The last, because a pool without a reactor does all of it at once.
            yield encode()

        await concurrently(lanes(), self._concurrency + 2)
        self._job.check_complete()
        return Uploaded(self._chunks, self._stored_bytes)

    @staticmethod
    def _end(queue: DeferredQueue[Any], lanes: int) -> None:
        """Tell those who wait for more that there is no more."""
        for _ in range(lanes):
            queue.put(None)

    def _take_cut(self, segment: CutSegment) -> None:
        places = []
        begin = repeated = 0
        for position, end in enumerate(segment.ends):
            chunk_id = segment.ids[32 * position : 32 * position + 32]
            if self._seen.add(chunk_id):
                places.append(Place(segment.start + begin, end - begin, chunk_id))
            else:
                repeated += end - begin
            begin = end
        self._settled(len(segment.ends) - len(places), repeated)
        if places:
            self._job.find(places)
            self._found.put(places)
        if segment.start + begin == self._size:
            self._end(self._found, _QUESTIONS)

    async def _wait_for_room(self) -> None:
        while self._job.is_ahead:
            room: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(room)
            await room

    def _tell_room(self) -> None:
        if not self._job.is_ahead:
            waiting, self._waiting = self._waiting, []
            for room in waiting:
                room.callback(None)

    async def _ask(self, places: list[Place]) -> None:
        """Find out which chunks the store lacks, and have those encoded."""
        missing = await lacking(self._target, packed(place.chunk_id for place in places))
        wanted = set(missing)
        present = [place for place in places if place.chunk_id not in wanted]
        self._job.forget(present)
        self._tell_room()
        self._settled(len(present), sum(place.length for place in present))
        self._job.encode(place for place in places if place.chunk_id in wanted)

    def _take_encoded(self, chunks: list[tuple[Chunk, int]]) -> None:
        for one in chunks:
            self._encoded.put(one)

    async def _put(self) -> None:
        while (one := await self._encoded.get()) is not None:
            chunk, length = one
            await self._target.put(chunk)
            self._chunks += 1
            self._stored_bytes += chunk.stored_size
            self._settled(1, length)
            self._job.settle(length)
            self._tell_room()
            # What it holds on to needn't wait for the next one.
            del one, chunk


def _places(index: Index, ids: ChunkIds) -> Iterator[Place]:
    """Find the first place of each of some sorted ids, in the order of the file."""
    sent = bytearray(len(ids))
    for start, length, chunk_id in index:
        try:
            number = ids.index(chunk_id)
        except ValueError:
            continue
        if not sent[number]:
            sent[number] = 1
            yield Place(start, length, chunk_id)
