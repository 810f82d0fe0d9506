# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The server of a pull: index, archive and chunks go out, as fast as the client reads."""

from __future__ import annotations

import os
import stat
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from desync.assembly.pending import Pending
from desync.errors import ChunkInvalid, ChunkMissing, IndexMissing
from desync.formats.protocol import (
    MAX_CHUNK_DATA,
    ArchiveData,
    ArchiveEnd,
    ChunkData,
    IndexData,
    IndexEnd,
    Missing,
    Request,
)
from desync.formats.protocol_session import Service
from desync.formats.stored import Compressed
from desync.interfaces import IBatch, IChunkSink
from desync.stores.batches import packed
from desync.stores.casync_wire import PIECE, SessionEnded

from .casync_serving import EFBIG, ServerSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.protocol import Message

#: How many requests may wait before no more are read, and how few make it go on.
_MOST_OWED: Final = 1 << 14
_FEW_OWED: Final = 1 << 13

#: How many chunks the store is asked for at a time, and how often at once.
_BLOCK: Final = 128
_ANSWERING: Final = 2

_FORM: Final = Compressed()

#: How much of an archive is read at a time, in bytes.
_READ: Final = 1 << 18


def _encode(chunks: Sequence[Chunk]) -> list[bytes]:
    form = Compressed()
    return [chunk.stored_as(form) for chunk in chunks]


class PullSession(ServerSession):
    """
    Serves one client that pulls. See :class:`ServerSession`.

    Requests are answered in the order they came in, more or less: priority is advice.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._queue: deque[bytes] = deque()
        self._answering = 0
        self._is_paused = False

    def begin(self) -> None:
        theirs = self.session.theirs
        if theirs & Service.PULL_INDEX:
            self.run(self._send_index())
        if theirs & Service.PULL_ARCHIVE:
            self.run(self._send_archive())

    def take(self, message: Message) -> None:
        if isinstance(message, Request):
            self._queue.extend(message.ids)

    def heard(self) -> None:
        if self.is_over:
            return
        if self.session.owed > _MOST_OWED and not self._is_paused:
            self._is_paused = True
            self.transport_.pauseProducing()
        while self._queue and self._answering < _ANSWERING and not self.is_over:
            self._answering += 1
            self.run(self._answer())

    async def _answer(self) -> None:
        source = self.offer.source
        assert source is not None
        try:
            while self._queue and not self.is_over:
                await self.wait_for_room()
                ids = [self._queue.popleft() for _ in range(min(_BLOCK, len(self._queue)))]
                if len(ids) == 1:
                    await self._answer_one(ids[0])
                elif ids:
                    await IBatch(source).get_many(packed(ids), _Sending(self))
                self._go_on()
        finally:
            self._answering -= 1

    async def _answer_one(self, chunk_id: bytes) -> None:
        assert self.offer.source is not None
        try:
            chunk = await self.offer.source.get(chunk_id)
        except ChunkMissing:
            self.say_missing(chunk_id)
        except ChunkInvalid as error:
            self.bad_chunk(str(error))
            self.say_missing(chunk_id)
        else:
            pressure = self.send_chunks([chunk])
            if pressure is not None:
                await pressure

    def _go_on(self) -> None:
        if self._is_paused and self.session.owed < _FEW_OWED and not self.is_over:
            self._is_paused = False
            self.transport_.resumeProducing()

    def _say_chunks(self, found: Iterable[tuple[bytes, bytes]]) -> None:
        """Send what was found: ids and compressed chunks."""
        if self.is_over:
            raise SessionEnded("the session is over")
        answers: list[Message] = []
        for chunk_id, data in found:
            if len(data) > MAX_CHUNK_DATA:
                why = f"chunk {chunk_id.hex()} is too large for the protocol: {len(data)} bytes"
                self.say_all(answers)
                self.abort(EFBIG, "a chunk is too large for the protocol", SessionEnded(why))
                return
            if data:
                self.chunks += 1
                self.transferred += len(data)
                answers.append(ChunkData(chunk_id, data, compressed=True))
            else:
                self.missing += 1
                answers.append(Missing(chunk_id))
        self.say_all(answers)

    # What the store hands over

    def send_chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        """Send some chunks."""
        found: list[tuple[bytes, bytes]] = []
        for chunk in batch:
            data = chunk.held_as(_FORM)
            if data is None:
                return Deferred.fromCoroutine(self._convert(batch))
            found.append((chunk.chunk_id, data))
        self._say_chunks(found)
        return self.room()

    async def _convert(self, batch: Sequence[Chunk]) -> None:
        encoded = await self.threads.run(_encode, [chunk.copy() for chunk in batch])
        self._say_chunks(zip((chunk.chunk_id for chunk in batch), encoded, strict=True))
        await self.wait_for_room()

    def say_missing(self, chunk_id: bytes) -> None:
        """Say that a chunk isn't there."""
        if not self.is_over:
            self.missing += 1
            self.say(Missing(chunk_id))

    # Files

    async def _send_index(self) -> None:
        assert self.offer.indexes is not None
        try:
            index = await self.offer.indexes.get_index(self.offer.index_name)
        except IndexMissing:
            self.not_there("index")
            return
        head, table, tail = index.pieces()
        # The header goes out with what follows it: see FIRST_INDEX_PIECE of the protocol.
        first = PIECE - len(head)
        self._send_file(IndexData(head + bytes(table[:first])))
        for begin in range(first, len(table), PIECE):
            await self.wait_for_room()
            self._send_file(IndexData(bytes(table[begin : begin + PIECE])))
        self._send_file(IndexData(tail))
        self.say(IndexEnd())

    async def _send_archive(self) -> None:
        try:
            descriptor = await self.threads.run(_open, self.offer.archive)
        except FileNotFoundError:
            self.not_there("archive")
            return
        pending = Pending()
        try:
            while True:
                data = await pending.watch(self.threads.run(os.read, descriptor, _READ))
                if not data:
                    break
                for begin in range(0, len(data), PIECE):
                    self._send_file(ArchiveData(data[begin : begin + PIECE]))
                await self.wait_for_room()
        finally:
            await pending.settled()
            os.close(descriptor)
        self.say(ArchiveEnd())

    def _send_file(self, message: IndexData | ArchiveData) -> None:
        if self.is_over:
            raise SessionEnded("the session is over")
        self.transferred += len(message.data)
        self.say(message)


@implementer(IChunkSink)
class _Sending:
    """Sends what the store finds of a block."""

    def __init__(self, session: PullSession) -> None:
        self._session = session

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        return self._session.send_chunks(batch)

    def absent(self, ids: ChunkIds) -> None:
        for chunk_id in ids:
            self._session.say_missing(chunk_id)

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        if why.check(ChunkInvalid):
            # The client may have it from elsewhere, and gets nothing wrong from here.
            for chunk_id in ids:
                self._session.bad_chunk(str(why.value))
                self._session.say_missing(chunk_id)
        else:
            self._session.failed(why)


def _open(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor
