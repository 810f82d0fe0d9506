# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The server of a push: an index and the chunks that it names come in, or an archive.

Chunks are asked for as the index comes in, so that they travel while the client still makes it. A
chunk is verified before it is stored. An index takes its place when every chunk that it names is in
the store, and GOODBYE follows when it has.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from desync.assembly.pending import Pending
from desync.errors import ChunkInvalid, DesyncError, InvalidIndex, UsageError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.index_arriving import ArrivingIndex
from desync.formats.protocol import (
    EBADMSG,
    EIO,
    ENOENT,
    ArchiveData,
    ArchiveEnd,
    ChunkData,
    Goodbye,
    IndexData,
    IndexEnd,
    Missing,
    Request,
)
from desync.formats.protocol_session import Service
from desync.formats.stored import MAX_CHUNK_SIZE, Compressed, Plain
from desync.interfaces import ILocalFiles
from desync.replace import replacing
from desync.stores.backlog import Backlog
from desync.stores.casync_wire import SessionEnded
from desync.stores.presence import lacking

from .casync_serving import EFBIG, EOPNOTSUPP, ServerSession

if TYPE_CHECKING:
    from desync.formats.index import Index
    from desync.formats.protocol import Message
    from desync.interfaces import IChunkTarget

#: The largest index that is taken, in bytes: one of 13 million chunks.
INDEX_LIMIT: Final = 512 << 20

#: The largest archive that is taken, in bytes.
ARCHIVE_LIMIT: Final = 1 << 42

#: How many chunks the client is asked for at a time, and how few make it be asked for more.
_WINDOW: Final = 512
_REFILL: Final = 256

#: How many chunks of the index are looked for in the store at a time.
_LOOK: Final = 1024

#: How many chunks are verified and stored at a time.
_STORING: Final = 16

#: How many bytes may wait for a thread to write them, before no more is read.
_WAITING: Final = 4 << 20

#: Seconds after which chunks that were found present are looked for again: a prune may have taken
#: them for old and unneeded.
_RECHECK_AFTER: Final = 60.0


class PushSession(ServerSession):
    """Serves one client that pushes. See :class:`ServerSession`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._index = ArrivingIndex("the pushed index")
        self._backlog = Backlog(_STORING)
        self._coming: set[bytes] = set()  # asked for, and not stored yet
        self._wake: Deferred[None] | None = None
        self._is_paused = False
        self._data: list[bytes] = []  # of an archive
        self._held = 0
        self._is_complete = False

    def begin(self) -> None:
        theirs = self.session.theirs
        if theirs & Service.PUSH_ARCHIVE:
            self.run(self._take_archive())
        elif theirs & Service.PUSH_INDEX:
            self.run(self._take_index())
        else:
            # casync would go on, send nothing, and call that a success.
            text = "chunks are taken only together with an index that names them"
            self.abort(EOPNOTSUPP, text, SessionEnded(text))

    def said_goodbye(self) -> None:
        self.finish(SessionEnded("the client left before all was stored"))

    def take(self, message: Message) -> None:
        if isinstance(message, IndexData):
            self._feed(message.data)
        elif isinstance(message, (IndexEnd, ArchiveEnd)):
            self._is_complete = True
            self._awake()
        elif isinstance(message, ChunkData):
            self.transferred += len(message.data)
            self._store(message)
        elif isinstance(message, Missing):
            text = f"the client doesn't have chunk {message.chunk_id.hex()} of its own index"
            self.abort(ENOENT, "a chunk that the index names is missing", SessionEnded(text))
        elif isinstance(message, ArchiveData):
            self._data.append(message.data)
            self._hold(len(message.data))
            self._awake()

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > _WAITING and not self._is_paused and not self.is_over:
            self._is_paused = True
            self.transport_.pauseProducing()
        elif self._held <= _WAITING // 2 and self._is_paused:
            self._is_paused = False
            if not self.is_over:
                self.transport_.resumeProducing()

    def _awake(self) -> None:
        waking, self._wake = self._wake, None
        if waking is not None:
            waking.callback(None)

    async def _sleep(self) -> None:
        self._wake = Deferred()
        await self._wake

    # An index and its chunks

    def _feed(self, data: bytes) -> None:
        self.transferred += len(data)
        if self._index.size + len(data) > INDEX_LIMIT:
            text = "the index is too large"
            self.abort(EFBIG, text, SessionEnded(text))
            return
        try:
            self._index.feed(data)
        except InvalidIndex as error:
            self._not_an_index(error)
        self._awake()

    def _not_an_index(self, why: InvalidIndex) -> None:
        self.abort(EBADMSG, "not a valid index", SessionEnded(str(why)))

    async def _take_index(self) -> None:
        offer = self.offer
        assert offer.index_target is not None
        began = time.monotonic()
        try:
            if self.session.theirs & Service.PUSH_INDEX_CHUNKS:
                await self._take_chunks()
            while not self._is_complete:
                await self._sleep()
            index = await self.threads.run(self._index.finish)
        except InvalidIndex as error:
            self._not_an_index(error)
            return
        if offer.target is not None:
            age = time.monotonic() - began
            if not self.session.theirs & Service.PUSH_INDEX_CHUNKS or age >= _RECHECK_AFTER:
                await self._look_again(index, offer.target)
            await self._sync(offer.target)
        try:
            await offer.index_target.put_index(offer.index_name, index)
        except UsageError:
            self.not_there("index")
            return
        if not self.is_over:
            self.say(Goodbye())
            self.finish()

    async def _take_chunks(self) -> None:
        """Ask for what the store lacks of the index as it comes in, and wait until all is there."""
        while True:
            ids = self._index.take(_LOOK)
            if ids:
                await self._ask_for(ids)
            elif self._is_complete:
                break
            else:
                await self._sleep()
        while self._coming:
            await self._sleep()
        await self._backlog.finish()

    async def _ask_for(self, ids: ChunkIds) -> None:
        target = self.offer.target
        assert target is not None
        # What has been asked for is answered once; the store may not have it yet.
        fresh = [chunk_id for chunk_id in dict.fromkeys(ids) if chunk_id not in self._coming]
        absent = set(await lacking(target, ChunkIds.from_iterable(fresh).sorted_unique()))
        wanted = [chunk_id for chunk_id in fresh if chunk_id in absent]
        while wanted:
            if self.session.asked > _REFILL:
                await self._sleep()
                continue
            room = _WINDOW - self.session.asked
            now, wanted = wanted[:room], wanted[room:]
            self._coming.update(now)
            self.say(Request(ChunkIds.from_iterable(now), high_priority=False))

    async def _look_again(self, index: Index, target: IChunkTarget) -> None:
        """Make sure that all chunks are there, for the client won't send any now."""
        gone = await lacking(target, index.ids.sorted_unique())
        if gone:
            text = f"{len(gone)} of the index's chunks aren't in the store"
            self.abort(ENOENT, "a chunk that the index names is missing", SessionEnded(text))
            raise SessionEnded(text)

    async def _sync(self, target: IChunkTarget) -> None:
        """Make the chunks last before the index does."""
        local = ILocalFiles(target, None)
        for files in local.local_files() if local is not None else ():
            await self.threads.run(files.sync)

    def _store(self, message: ChunkData) -> None:
        self._hold(len(message.data))
        # If one fails, that ends the session: no need to hear of it from the next.
        with contextlib.suppress(DesyncError):
            room = self._backlog.add(self._verify_and_put(message))
            if room is not None:
                room.addErrback(lambda _: None)
        self._awake()

    async def _verify_and_put(self, message: ChunkData) -> None:
        assert self.offer.target is not None
        form = Compressed() if message.compressed else Plain()
        chunk = Chunk(message.chunk_id, stored=message.data, form=form, limit=MAX_CHUNK_SIZE)
        try:
            await self.threads.run(chunk.verify, self._index.digest)
            await self.offer.target.put(chunk)
        except ChunkInvalid as error:
            self.invalid += 1
            self.abort(EBADMSG, "a chunk isn't what its id says", SessionEnded(str(error)))
            raise
        except BaseException as error:
            self.abort(EIO, "not stored", error)
            raise
        finally:
            self._hold(-len(message.data))
        self.chunks += 1
        self._coming.discard(message.chunk_id)
        self._awake()

    # An archive

    async def _take_archive(self) -> None:
        out = replacing(self.offer.archive_target, shown="the pushed archive", regular=True)
        pending = Pending()
        try:
            await pending.watch(self.threads.run(out.__enter__))
            while self._data or not self._is_complete:
                if not self._data:
                    await self._sleep()
                data, self._data = self._data, []
                joined = b"".join(data)
                self.transferred += len(joined)
                if self.transferred > ARCHIVE_LIMIT:
                    text = "the archive is too large"
                    self.abort(EFBIG, text, SessionEnded(text))
                    raise SessionEnded(text)
                await pending.watch(self.threads.run(out.write, joined))
                self._hold(-len(joined))
        except BaseException as error:
            await pending.settled()
            await self.threads.run(out.__exit__, type(error), error, None)
            raise
        await self.threads.run(out.__exit__, None, None, None)
        if not self.is_over:
            self.say(Goodbye())
            self.finish()

    def ended(self) -> None:
        self._backlog.cancel()
        super().ended()
