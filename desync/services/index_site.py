# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What an index server serves: the indexes of a store under their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger

from desync.errors import DesyncError, IndexMissing, InvalidIndex
from desync.formats.index import Index
from desync.interfaces import IIndexTarget
from desync.stores.index_files import check_index_name

from .chunk_site import METHODS
from .exchange import TEXT, Refused
from .metering import one_line
from .room import USUAL

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.interfaces import IIndexSource
    from desync.stores.threads import Threads

    from .counters import Counters
    from .exchange import Exchange
    from .metering import Troubles

_log = Logger(namespace="desync.server")

#: The largest index that a client can put, in bytes: of some 6 million chunks, 400 GiB at the usual
#: size of chunks.
LARGEST: Final = 256 << 20

#: Large indexes whose sizes are kept in mind.
_REMEMBERED: Final = 1000


class IndexSite:
    """
    Serves the indexes of a store.

    Only the last part of a path counts, as in Go desync's server.

    :param store: where they are.
    :param threads: for what takes long.
    :param writable: whether indexes can be put.
    :param digest: the algorithm that ids must be made with.
    """

    def __init__(
        self,
        store: IIndexSource,
        threads: Threads,
        counters: Counters,
        troubles: Troubles,
        *,
        digest: Digest,
        writable: bool = False,
    ) -> None:
        self._store = store
        self._threads = threads
        self._counters = counters
        self._troubles = troubles
        self._digest = digest
        self._writable = writable
        self._sizes: dict[str, int] = {}

    def admit(self, exchange: Exchange) -> None:
        """See :meth:`.server.Site.admit`."""
        exchange.target = index_name(exchange.path)
        method = exchange.method
        if method == b"PUT":
            if not self._writable:
                raise Refused(400, "writing to upstream index store is not enabled\n")
            exchange.limit = LARGEST
        elif method not in (b"GET", b"HEAD"):
            raise Refused(405, METHODS)

    def handle(self, exchange: Exchange) -> None:
        """See :meth:`.server.Site.handle`."""
        exchange.run(self._put(exchange) if exchange.method == b"PUT" else self._get(exchange))

    async def _get(self, exchange: Exchange) -> None:
        name = exchange.target
        await exchange.turn(self._sizes.get(name, USUAL))
        try:
            index = await self._store.get_index(name)
        except IndexMissing:
            raise Refused(404, "index not found\n") from None
        except DesyncError as error:
            raise self._failed("retrieve", name, error) from None
        if exchange.method == b"HEAD":
            exchange.respond(200)
        else:
            body = index.to_bytes()
            self._remember(name, len(body))
            exchange.respond(200, body)

    def _remember(self, name: str, size: int) -> None:
        """Keep in mind how much room an index takes, if it is more than usual."""
        self._sizes.pop(name, None)
        if size > USUAL:
            self._sizes[name] = size
            if len(self._sizes) > _REMEMBERED:
                del self._sizes[next(iter(self._sizes))]

    async def _put(self, exchange: Exchange) -> None:
        name, body, exchange.body = exchange.target, exchange.body, b""
        try:
            index = await self._threads.run(Index.parse, body, name, self._digest)
        except InvalidIndex as error:
            raise Refused(415, f"invalid index: {error.why}\n") from None
        try:
            await IIndexTarget(self._store).put_index(name, index)
        except DesyncError as error:
            raise self._failed("store", name, error) from None
        self._counters.stored += 1
        exchange.respond(200, content_type=TEXT)

    def _failed(self, what: str, name: str, error: DesyncError) -> Refused:
        """Take down what went wrong with the store, of which the peer learns nothing."""
        line = f"failed to {what} index {name!a}: {one_line(error)}"
        _log.error("{line}", line=line)
        self._troubles.add(line)
        self._counters.upstream_errors += 1
        return Refused(500, f"failed to {what} index\n")


def index_name(path: bytes) -> str:
    """
    Read the name of an index out of a path.

    :raises Refused: if no index can have it.
    """
    text = unquote_to_bytes(path.rpartition(b"/")[2]).decode("utf-8", "surrogateescape")
    try:
        return check_index_name(text)
    except DesyncError:
        raise Refused(400, "invalid index name\n") from None
