# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync index-server``."""

from __future__ import annotations

from typing import Any

from desync.services.settings import INDEX_SERVER, IndexServerSettings

from .command import command, store_flags
from .invocation import Invocation
from .serving import serve, server_flags


@command(
    "index-server",
    examples=[
        "desync index-server -s /path/to/indexes -l :8080",
        "desync index-server -s /path/to/indexes --writable -l 127.0.0.1:8080",
    ],
)
@server_flags(INDEX_SERVER)
@store_flags
def index_server(invocation: Invocation, **values: Any) -> None:
    """
    Serve the indexes of a store over HTTP or HTTPS.

    It runs until SIGINT or SIGTERM, and then lets running requests finish. SIGHUP makes it read
    certificates and keys again.
    """

    def make(settings: IndexServerSettings, reactor: Any, environ: Any) -> Any:
        from desync.services.index_server import index_service

        return index_service(settings, reactor, environ)

    serve(invocation, IndexServerSettings, values, make)
