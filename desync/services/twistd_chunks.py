# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What ``twistd desync-chunk-server`` runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.python.usage import UsageError

from desync.errors import DesyncError

from .chunk_server import chunk_service
from .options import ServerOptions, options_for
from .settings import CHUNK_SERVER, ChunkServerSettings

if TYPE_CHECKING:
    from .service import ServerService

Options = options_for(CHUNK_SERVER, ChunkServerSettings)


def makeService(config: ServerOptions, reactor: Any = None) -> ServerService:  # noqa: N802
    """
    Make the service.

    :param config: its options.
    :param reactor: the default one if None.
    :raises UsageError: if something that they name can't be used.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        return chunk_service(config.settings(), reactor, os.environ)
    except DesyncError as error:
        raise UsageError(str(error)) from None
