# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What a chunk server serves: chunks of a store under their paths, to be read and perhaps written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, ChunkMissing, DesyncError
from desync.formats.chunk import Chunk
from desync.formats.stored import MAX_CHUNK_SIZE, form_named
from desync.interfaces import IChunkTarget

from .chunk_batches import BATCH_PATHS, ChunkBatches
from .chunk_paths import parse_chunk_path
from .exchange import TEXT, Refused
from .gathered_reads import GatheredReads
from .metering import count_error, one_line
from .near_files import NearFiles, near_files
from .room import USUAL

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.interfaces import IChunkSource
    from desync.stores.reloading import Reloading
    from desync.stores.threads import Threads

    from .counters import Counters
    from .exchange import Exchange
    from .metering import Troubles

_log = Logger(namespace="desync.server")

METHODS: Final = "only GET, PUT and HEAD are supported"


class ChunkSite:
    """
    Serves the chunks of a store.

    :param store: where they are; what is below it may be replaced at any time.
    :param reader: what chunks are read through: the store, or layers over it.
    :param extension: of the form that is served: ``".cacnk"`` or nothing.
    :param threads: for what takes long.
    :param writable: whether chunks can be put.
    :param verify: whether those are verified before they count.
    :ivar form: what is served.
    """

    def __init__(
        self,
        store: Reloading,
        reader: IChunkSource,
        threads: Threads,
        counters: Counters,
        troubles: Troubles,
        *,
        extension: str = ".cacnk",
        digest: Digest = SHA512_256,
        writable: bool = False,
        verify: bool = True,
    ) -> None:
        self.store = store
        self.reader = reader
        self.threads = threads
        self.counters = counters
        self._troubles = troubles
        self.form = form_named(extension)
        self._extension = extension.encode()
        self._digest = digest
        self.writable = writable
        self._verify = verify
        self._batches = ChunkBatches(self)
        self._gathered = GatheredReads(threads)
        self._largest = self.form.stored_limit(MAX_CHUNK_SIZE)
        self._seen: IChunkSource | None = None
        self._near: NearFiles | None = None

    def admit(self, exchange: Exchange) -> None:
        """See :meth:`.server.Site.admit`."""
        if exchange.path in BATCH_PATHS:
            self._batches.admit(exchange)
            return
        exchange.target = parse_chunk_path(exchange.path, self._extension)
        method = exchange.method
        if method == b"PUT":
            if not self.writable:
                raise Refused(400, "writing to upstream chunk store is not enabled\n")
            exchange.limit = self._largest
        elif method not in (b"GET", b"HEAD"):
            raise Refused(405, METHODS)

    def handle(self, exchange: Exchange) -> None:
        """See :meth:`.server.Site.handle`."""
        method = exchange.method
        if method == b"GET":
            near = self.find_near()
            if near is not None:
                found = near.find(exchange.target)
                if found is not None:
                    if near.is_cache:
                        self.counters.cache_hits += 1
                    data, file = found
                    exchange.respond(200, data, again=file.read_on)
                    return
            exchange.run(self._get(exchange))
        elif method == b"HEAD":
            exchange.run(self._head(exchange))
        elif method == b"POST":
            self._batches.handle(exchange)
        else:
            exchange.run(self._put(exchange))

    def find_near(self) -> NearFiles | None:
        """Give the directory that can be looked into at once, if there is one."""
        current = self.store.current
        if current is not self._seen:
            self._seen = current
            self._near = near_files(current, self.form.extension, self.threads)
        return self._near

    async def _get(self, exchange: Exchange) -> None:
        chunk_id = exchange.target
        await exchange.turn(USUAL)
        near = self.find_near()
        if near is not None and near.in_threads:
            there = await self._gathered.read(near, chunk_id)
            if there is not None:
                if near.is_cache:
                    self.counters.cache_hits += 1
                exchange.respond(200, there, again=near.file_of(chunk_id, len(there)).read_on)
                return
        try:
            chunk = await self.reader.get(chunk_id)
            data = await self.bytes_of(chunk)
            if not data:
                raise ChunkInvalid(chunk_id, "it holds no data")
        except ChunkMissing:
            raise self._missing(chunk_id) from None
        except DesyncError as error:
            raise self.failed("retrieve", error, chunk_id) from None
        exchange.respond(200, data)

    async def bytes_of(self, chunk: Chunk) -> bytes:
        """
        Give a chunk in the form that is served.

        :raises ChunkInvalid: if it has to be converted and can't be.
        """
        data = chunk.held_as(self.form)
        if data is None:
            # A codec isn't for two threads at once; nor is the chunk, others may be given it.
            own, form = chunk.copy(), form_named(self.form.extension)
            data = await self.threads.run(own.stored_as, form)
        return data

    async def _head(self, exchange: Exchange) -> None:
        chunk_id = exchange.target
        try:
            if self.writable:
                # Whoever asks a server that takes chunks doesn't send those that are there, and
                # relies on their staying.
                found = await IChunkTarget(self.store).renew(chunk_id)
            else:
                found = await self.reader.has(chunk_id)
        except DesyncError as error:
            raise self.failed("look for", error, chunk_id) from None
        exchange.respond(200 if found else 404)

    async def _put(self, exchange: Exchange) -> None:
        chunk_id, body, exchange.body = exchange.target, exchange.body, b""
        form = form_named(self.form.extension)
        chunk = Chunk(chunk_id, stored=body, form=form, verified=not self._verify)
        try:
            if not body:
                raise ChunkInvalid(chunk_id, "it holds no data")
            if self._verify:
                await self.threads.run(chunk.verify, self._digest)
        except ChunkInvalid as error:
            self.counters.verification_failures += 1
            raise Refused(400, f"chunk {chunk_id.hex()} is invalid: {error.why}\n") from None
        try:
            await IChunkTarget(self.store).put(chunk)
        except ChunkInvalid as error:
            # Conversion found it out.
            self.counters.verification_failures += 1
            raise Refused(400, f"chunk {chunk_id.hex()} is invalid: {error.why}\n") from None
        except DesyncError as error:
            raise self.failed("store", error, chunk_id) from None
        self.counters.stored += 1
        exchange.respond(200, content_type=TEXT)

    def _missing(self, chunk_id: bytes) -> Refused:
        return Refused(404, f"chunk {chunk_id.hex()} not found")

    def failed(self, what: str, error: BaseException, chunk_id: bytes | None = None) -> Refused:
        """Take down what went wrong with a store, of which the peer learns nothing."""
        subject = "chunks" if chunk_id is None else f"chunk {chunk_id.hex()}"
        line = f"failed to {what} {subject}: {one_line(error)}"
        _log.error("{line}", line=line)
        self._troubles.add(line)
        count_error(self.counters, error)
        return Refused(500, "internal server error\n")
