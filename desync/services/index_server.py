# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The index server: from settings to a service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from desync.chunking.digests import Digest
from desync.stores.index_local import LocalIndexStore
from desync.stores.location import parse_location
from desync.stores.opening import open_index_store
from desync.stores.threads import StoreThreads

from .counters import Counters
from .figures import OwnFigures
from .index_site import IndexSite
from .metering import Troubles
from .operating import operator_parts
from .service import ServerService, WebService
from .stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from desync.interfaces import IIndexSource

    from .settings import IndexServerSettings


def _open_store(
    settings: IndexServerSettings, reactor: Any, environ: Mapping[str, str]
) -> IIndexSource:
    assert settings.store is not None
    location = parse_location(settings.store)
    # What the configuration says has to make sense for local stores too.
    config = settings.load_config(environ)
    index = settings.store.rstrip("/") + "/index"
    options = config.index_options_for(index, settings.store_flags)
    digest = Digest.named(settings.digest)
    if location.is_local:
        return LocalIndexStore(location.path, reactor, digest=digest)
    store, _ = open_index_store(index, options, reactor, digest, writing=settings.writable)
    return store


def index_service(
    settings: IndexServerSettings, reactor: Any, environ: Mapping[str, str]
) -> ServerService:
    """
    Make an index server. Its store is opened here; it listens when it is started.

    :raises DesyncError: if something that the settings name can't be used.
    """
    store = _open_store(settings, reactor, environ)
    counters, troubles = Counters(), Troubles(time.time)
    threads = StoreThreads(reactor, 2)
    site = IndexSite(
        store,
        threads,
        counters,
        troubles,
        digest=Digest.named(settings.digest),
        writable=settings.writable,
    )
    part = WebService(settings, reactor, site, counters, troubles, [store, Stopping(threads)])

    def about() -> dict[str, str]:
        return {
            "indexes": store.location,
            "at": ", ".join(settings.listen),
            "clients may write": "yes" if settings.writable else "no",
        }

    figures = OwnFigures(part.server, troubles, about)
    return ServerService(
        [part, *operator_parts(settings, "desync index server", figures, reactor)], reactor
    )
