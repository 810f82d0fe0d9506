# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync chunk-server``."""

from __future__ import annotations

from typing import Any

from desync.services.settings import CHUNK_SERVER, ChunkServerSettings

from .command import command, store_flags
from .invocation import Invocation
from .serving import serve, server_flags


@command(
    "chunk-server",
    examples=[
        "desync chunk-server -s /path/to/store -l :8080",
        "desync chunk-server -s http://192.168.1.1/ -s /other/store -c /path/to/cache -l :8080",
        "desync chunk-server -w -s /path/to/store -l 127.0.0.1:8080",
        "desync chunk-server --store-file stores.json --cert server.pem --key server.key -l :443",
    ],
)
@server_flags(CHUNK_SERVER)
@store_flags
def chunk_server(invocation: Invocation, **values: Any) -> None:
    """
    Serve the chunks of stores over HTTP or HTTPS.

    It runs until SIGINT or SIGTERM, and then lets running requests finish. SIGHUP makes it read the
    file of --store-file, certificates and keys again, under running requests.
    """

    def make(settings: ChunkServerSettings, reactor: Any, environ: Any) -> Any:
        from desync.services.chunk_server import chunk_service

        return chunk_service(settings, reactor, environ)

    serve(invocation, ChunkServerSettings, values, make)
