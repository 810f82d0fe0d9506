# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Many chunks in one request, for clients that know how to ask: ``POST chunks`` and ``POST missing``.

Beside the paths of single chunks, which stay what they are. The form of requests and answers is in
``docs/http-protocol.rst``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zope.interface import implementer

from desync.errors import DesyncError
from desync.formats.ids import ID_SIZE, ChunkIds
from desync.formats.protocol import MAX_CHUNK_DATA, Goodbye, Missing, chunk_head
from desync.interfaces import IBatch, IChunkSink

from .exchange import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk

    from .chunk_site import ChunkSite
    from .exchange import Exchange
    from .near_files import NearFile

#: Media types.
IDS: Final = b"application/vnd.desync.ids"
CHUNKS: Final = b"application/vnd.desync.chunks"

BATCH_PATHS: Final = frozenset({b"/chunks", b"/missing"})

#: Ids in one request.
MOST_IDS: Final = 4096

#: Files are read so many at a time at first, then as many as have about so many bytes, judging by
#: the last ones, but no more than so many.
_FIRST: Final = 2
_STEP: Final = 1 << 19
_MOST: Final = 64

#: Ids that stores are asked for at once, and the bytes that are reserved meanwhile: most of what
#: they hand over at a time.
_LOT: Final = 512
_STORES: Final = 1 << 23


class ChunkBatches:
    """
    Answers requests for many chunks.

    :param site: whose chunks they are.
    """

    def __init__(self, site: ChunkSite) -> None:
        self._site = site

    def admit(self, exchange: Exchange) -> None:
        """See :meth:`.server.Site.admit`."""
        if exchange.method != b"POST":
            raise Refused(405, "only POST is supported here\n")
        kind = (exchange.header(b"Content-Type") or b"").partition(b";")[0].strip().lower()
        if kind != IDS:
            raise Refused(415, f"the body has to be {IDS.decode()}\n")
        length = exchange.length
        if length is None:
            raise Refused(411, "the length of the body has to be said\n")
        if length > MOST_IDS * ID_SIZE:
            raise Refused(413, f"more than {MOST_IDS} ids\n")
        if not length or length % ID_SIZE:
            raise Refused(400, "the body is no number of ids\n")
        exchange.limit = MOST_IDS * ID_SIZE

    def handle(self, exchange: Exchange) -> None:
        """See :meth:`.server.Site.handle`."""
        ids = ChunkIds.from_bytes(exchange.body).sorted_unique()
        missing = exchange.path == b"/missing"
        exchange.run(self._missing(exchange, ids) if missing else self._chunks(exchange, ids))

    async def _missing(self, exchange: Exchange, ids: ChunkIds) -> None:
        site = self._site
        try:
            if site.writable:
                # See HEAD: what is said to be there has to stay.
                absent = await site.store.renew_many(ids)
            else:
                absent = await IBatch(site.reader).missing(ids)
        except DesyncError as error:
            raise site.failed("look for", error) from None
        await exchange.turn(len(absent) * ID_SIZE)
        exchange.respond(200, absent.to_bytes(), IDS)

    async def _chunks(self, exchange: Exchange, ids: ChunkIds) -> None:
        exchange.start(200, CHUNKS)
        await exchange.drained()
        rest = await self._near_chunks(exchange, ids)
        for start in range(0, len(rest), _LOT):
            await exchange.turn(_STORES)
            lot = ChunkIds.from_iterable(rest[start : start + _LOT])
            sink = _Answering(self._site, exchange)
            await IBatch(self._site.reader).get_many(lot, sink)
        exchange.write([Goodbye().encode()])
        exchange.finish()

    async def _near_chunks(self, exchange: Exchange, ids: ChunkIds) -> list[bytes]:
        """
        Answer what is in files that can be handed out as they are, and give the ids of the rest.

        A thread reads some of them by one call. What the client doesn't take at once is read
        again later, so that it doesn't hold up memory by being slow.
        """
        site = self._site
        near = site.find_near()
        if near is None:
            return list(ids)
        compressed = bool(site.form.extension)
        rest: list[bytes] = []
        begin, count = 0, _FIRST
        while begin < len(ids):
            some = list(ids[begin : begin + count])
            begin += len(some)
            await exchange.turn(_STEP)
            frames = _Frames()
            for chunk_id, data in zip(
                some, await site.threads.run(near.read_many, some), strict=True
            ):
                if data is None:
                    rest.append(chunk_id)
                else:
                    head = chunk_head(chunk_id, len(data), compressed)
                    frames.add(head, data, near.file_of(chunk_id, len(data)))
                del data
            if not frames.count:
                continue
            if near.is_cache:
                site.counters.cache_hits += frames.count
            count = max(1, min(_STEP * frames.count // frames.size, _MOST))
            await exchange.pour(frames.take(), frames.again)
        return rest


class _Frames:
    """
    Frames of chunks that are sent at once.

    :ivar count: how many.
    :ivar size: bytes of all.
    """

    def __init__(self) -> None:
        self.count = self.size = 0
        self._pieces: list[bytes] = []
        self._frames: list[tuple[bytes, NearFile, int]] = []

    def add(self, head: bytes, data: bytes, file: NearFile) -> None:
        """Add the frame of a chunk that was read from a file."""
        self._pieces += (head, data)
        self._frames.append((head, file, len(data)))
        self.count += 1
        self.size += len(head) + len(data)

    def take(self) -> bytes:
        """Give them all, and keep only what is needed to read them again."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    async def again(self, at: int) -> bytes:
        """
        Read on from a place.

        :raises OSError: if a file isn't there any more, or has become another one.
        """
        for head, file, size in self._frames:
            if at < len(head):
                return head[at:]
            at -= len(head)
            if at < size:
                return await file.read_on(at)
            at -= size
        raise AssertionError("read on after the end")


@implementer(IChunkSink)
class _Answering:
    """Writes what the stores find into an answer."""

    def __init__(self, site: ChunkSite, exchange: Exchange) -> None:
        self._site = site
        self._exchange = exchange

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(self._write(batch))

    async def _write(self, batch: Sequence[Chunk]) -> None:
        compressed = bool(self._site.form.extension)
        pieces: list[bytes] = []
        for chunk in batch:
            try:
                data = await self._site.bytes_of(chunk)
            except DesyncError as error:
                self._site.failed("retrieve", error, chunk.chunk_id)
                continue
            # What fits in no frame, or isn't there at all, can't be had this way.
            if 0 < len(data) <= MAX_CHUNK_DATA:
                pieces += (chunk_head(chunk.chunk_id, len(data), compressed), data)
        pressure = self._exchange.write(pieces)
        if pressure is not None:
            await pressure

    def absent(self, ids: ChunkIds) -> None:
        self._exchange.write([Missing(chunk_id).encode() for chunk_id in ids])

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        # They get no frame, by which the client knows.
        for chunk_id in ids:
            self._site.failed("retrieve", why.value or RuntimeError(), chunk_id)
