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

from .chunk_paths import parse_chunk_path
from .exchange import TEXT, Refused
from .metering import count_error, one_line
from .near_files import NearFiles, near_files

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
        self._store = store
        self._reader = reader
        self._threads = threads
        self._counters = counters
        self._troubles = troubles
        self._form = form_named(extension)
        self._extension = extension.encode()
        self._digest = digest
        self._writable = writable
        self._verify = verify
        self._largest = self._form.stored_limit(MAX_CHUNK_SIZE)
        self._seen: IChunkSource | None = None
        self._near: NearFiles | None = None

    def admit(self, exchange: Exchange) -> None:
        """See :meth:`.connection.Site.admit`."""
        exchange.target = parse_chunk_path(exchange.path, self._extension)
        method = exchange.method
        if method == b"PUT":
            if not self._writable:
                raise Refused(400, "writing to upstream chunk store is not enabled\n")
            exchange.limit = self._largest
        elif method not in (b"GET", b"HEAD"):
            raise Refused(405, METHODS)

    def handle(self, exchange: Exchange) -> None:
        """See :meth:`.connection.Site.handle`."""
        method = exchange.method
        if method == b"GET":
            near = self._find_near()
            if near is not None:
                data = near.read(exchange.target)
                if data is not None:
                    if near.is_cache:
                        self._counters.cache_hits += 1
                    exchange.respond(200, data)
                    return
            exchange.run(self._get(exchange))
        elif method == b"HEAD":
            exchange.run(self._head(exchange))
        else:
            exchange.run(self._put(exchange))

    def _find_near(self) -> NearFiles | None:
        current = self._store.current
        if current is not self._seen:
            self._seen = current
            self._near = near_files(current, self._form.extension)
        return self._near

    async def _get(self, exchange: Exchange) -> None:
        chunk_id = exchange.target
        try:
            chunk = await self._reader.get(chunk_id)
            data = chunk.held_as(self._form)
            if data is None:
                # A codec isn't for two threads at once; nor is the chunk, others may be given it.
                own = chunk.copy()
                data = await self._threads.run(
                    lambda: own.stored_as(form_named(self._form.extension))
                )
            if not data:
                raise ChunkInvalid(chunk_id, "it holds no data")
        except ChunkMissing:
            raise self._missing(chunk_id) from None
        except DesyncError as error:
            raise self._failed("retrieve", chunk_id, error) from None
        exchange.respond(200, data)

    async def _head(self, exchange: Exchange) -> None:
        chunk_id = exchange.target
        try:
            if self._writable:
                # Whoever asks a server that takes chunks doesn't send those that are there, and
                # relies on their staying.
                found = await IChunkTarget(self._store).renew(chunk_id)
            else:
                found = await self._reader.has(chunk_id)
        except DesyncError as error:
            raise self._failed("look for", chunk_id, error) from None
        exchange.respond(200 if found else 404)

    async def _put(self, exchange: Exchange) -> None:
        chunk_id, body, exchange.body = exchange.target, exchange.body, b""
        form = form_named(self._form.extension)
        chunk = Chunk(chunk_id, stored=body, form=form, verified=not self._verify)
        try:
            if not body:
                raise ChunkInvalid(chunk_id, "it holds no data")
            if self._verify:
                await self._threads.run(chunk.verify, self._digest)
        except ChunkInvalid as error:
            self._counters.verification_failures += 1
            raise Refused(400, f"chunk {chunk_id.hex()} is invalid: {error.why}\n") from None
        try:
            await IChunkTarget(self._store).put(chunk)
        except ChunkInvalid as error:
            # Conversion found it out.
            self._counters.verification_failures += 1
            raise Refused(400, f"chunk {chunk_id.hex()} is invalid: {error.why}\n") from None
        except DesyncError as error:
            raise self._failed("store", chunk_id, error) from None
        self._counters.stored += 1
        exchange.respond(200, content_type=TEXT)

    def _missing(self, chunk_id: bytes) -> Refused:
        return Refused(404, f"chunk {chunk_id.hex()} not found")

    def _failed(self, what: str, chunk_id: bytes, error: DesyncError) -> Refused:
        """Take down what went wrong with a store, of which the peer learns nothing."""
        line = f"failed to {what} chunk {chunk_id.hex()}: {one_line(error)}"
        _log.error("{line}", line=line)
        self._troubles.add(line)
        count_error(self._counters, error)
        return Refused(500, "internal server error\n")
