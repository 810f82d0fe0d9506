# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What ``twistd desync-chunk-server`` and ``twistd desync-index-server`` run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.python.usage import UsageError

from desync.errors import DesyncError

from .chunk_server import chunk_service
from .index_server import index_service
from .options import ServerOptions, options_for
from .settings import CHUNK_SERVER, INDEX_SERVER, ChunkServerSettings, IndexServerSettings

if TYPE_CHECKING:
    from .service import ServerService
    from .settings import ServerSettings, Setting


class Runnable(NamedTuple):
    """
    What :class:`twisted.application.service.ServiceMaker` looks for.

    :param Options: the command line.
    :param makeService: makes the service of its options, in the default reactor unless it is given
        another one. UsageError if something that they name can't be used.
    """

    Options: type[ServerOptions]
    makeService: Callable[..., ServerService]  # noqa: N815


def _runnable(
    settings: Sequence[Setting],
    kind: type[ServerSettings],
    service_of: Callable[..., ServerService],
) -> Runnable:
    def make_service(config: ServerOptions, reactor: Any = None) -> ServerService:
        if reactor is None:
            from twisted.internet import reactor
        try:
            return service_of(config.settings(), reactor, os.environ)
        except DesyncError as error:
            raise UsageError(str(error)) from None

    return Runnable(options_for(settings, kind), make_service)


chunk_server = _runnable(CHUNK_SERVER, ChunkServerSettings, chunk_service)
index_server = _runnable(INDEX_SERVER, IndexServerSettings, index_service)
