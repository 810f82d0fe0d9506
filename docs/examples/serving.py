# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Serve the chunks of a store from within an application of one's own:

    python serving.py STORE [ENDPOINT]

ENDPOINT is a Twisted endpoint, by default tcp:8080. A chunk is at /<4 digits>/<id>.cacnk, where
casync, desync and any HTTP client look for it. Stops on SIGINT and SIGTERM.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import serverFromString
from twisted.web.http import INTERNAL_SERVER_ERROR, NOT_FOUND
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from desync import Chunk, LocalFiles, LocalStore, parse_id
from desync.errors import ChunkMissing, DesyncError
from desync.formats.stored import Compressed, chunk_name
from desync.interfaces import IChunkSource


class Chunks(Resource):
    """
    The chunks of any store, compressed.

    What is handed out was checked by the store, unless that was told to skip it.
    """

    isLeaf = True  # noqa: N815 (Twisted's name)

    def __init__(self, source: IChunkSource) -> None:
        Resource.__init__(self)
        self._source = source

    def render_GET(self, request: Request) -> int:  # noqa: N802 (Twisted's name); HEAD comes here too
        working = Deferred.fromCoroutine(self._answer(request))
        # Who goes away doesn't want the chunk any longer.
        request.notifyFinish().addErrback(lambda _: working.cancel())
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        body = b""
        try:
            chunk = await self._find(request.path)
            body = chunk.stored_as(Compressed())
            request.setHeader(b"Content-Type", b"application/octet-stream")
        except CancelledError:
            return
        except ChunkMissing:
            request.setResponseCode(NOT_FOUND)
        except DesyncError as error:
            # For our own log: a client needn't know our paths.
            print(error, file=sys.stderr)
            request.setResponseCode(INTERNAL_SERVER_ERROR)
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()

    async def _find(self, path: bytes) -> Chunk:
        try:
            chunk_id = parse_id(path.rpartition(b"/")[2].removesuffix(b".cacnk"))
        except ValueError:
            raise ChunkMissing(b"") from None
        if path != b"/" + chunk_name(chunk_id, ".cacnk").encode():
            raise ChunkMissing(chunk_id)
        return await self._source.get(chunk_id)


async def serve(reactor: Any, store: str, endpoint: str) -> None:
    """Serve a local store; any other IChunkSource is served in the same way."""
    files = LocalFiles(store)
    files.check()
    source = LocalStore(files, reactor)
    port = await serverFromString(reactor, endpoint).listen(Site(Chunks(source)))
    reactor.addSystemEventTrigger("before", "shutdown", port.stopListening)
    reactor.addSystemEventTrigger("before", "shutdown", source.close)
    print(f"serving {store} at {port.getHost()}", flush=True)


if __name__ == "__main__":
    started = Deferred.fromCoroutine(serve(reactor, sys.argv[1], (*sys.argv, "tcp:8080")[2]))
    started.addErrback(lambda why: sys.exit(f"Error: {why.value}"))
    reactor.run()
