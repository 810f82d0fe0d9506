# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
An S3 service with a bucket of as many chunks as its argument says, none of which takes room.

It prints its port, and ends when its standard input does. Chunk ``n`` has the id that begins with
``n`` and repeats it. What is removed is only counted: ``GET /removed`` tells how many.
"""

from __future__ import annotations

import sys
from email.utils import formatdate
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.web.resource import Resource
from twisted.web.server import Site

from desync.formats.stored import chunk_name

reactor: Any = default_reactor

PAGE = 1000


def id_of(number: int) -> bytes:
    """Give the id of a chunk."""
    return number.to_bytes(4, "big") * 8


class EndlessBucket(Resource):
    """The bucket."""

    isLeaf = True  # noqa: N815

    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._count = count
        self._removed = 0

    def render_GET(self, request: Any) -> bytes:  # noqa: N802
        request.setHeader(b"date", formatdate(usegmt=True).encode())
        if request.path == b"/removed":
            return b"%d" % self._removed
        first = int(request.args.get(b"continuation-token", [b"0"])[0])
        last = min(first + PAGE, self._count)
        contents = "".join(
            f"<Contents><Key>{chunk_name(id_of(number), '.cacnk')}</Key><Size>1</Size>"
            "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
            for number in range(first, last)
        )
        more = f"<IsTruncated>{'true' if last < self._count else 'false'}</IsTruncated>"
        token = f"<NextContinuationToken>{last}</NextContinuationToken>"
        return f"<ListBucketResult>{contents}{more}{token}</ListBucketResult>".encode()

    def render_POST(self, request: Any) -> bytes:  # noqa: N802
        self._removed += request.content.read().count(b"<Key>")
        return b"<DeleteResult></DeleteResult>"


class _Parent(Protocol):
    def connectionLost(self, reason: object = None) -> None:  # noqa: N802
        reactor.stop()


def main() -> None:
    """Serve."""
    port = reactor.listenTCP(0, Site(EndlessBucket(int(sys.argv[1]))), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    StandardIO(_Parent())
    reactor.run()


if __name__ == "__main__":
    main()
