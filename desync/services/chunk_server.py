# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The chunk server: from settings to a service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from desync.chunking.digests import Digest
from desync.errors import UsageError
from desync.interfaces import ILocalFiles
from desync.stores.cache import Cache
from desync.stores.opening import open_source, open_target
from desync.stores.reloading import Reloading, StoreFile, StoreFileReader, read_store_file
from desync.stores.single_flight import SingleFlight
from desync.stores.threads import StoreThreads

from .chunk_site import ChunkSite
from .counters import Counters
from .figures import OwnFigures
from .metering import Metered, Troubles
from .operating import operator_parts
from .service import Closing, ServerService, WebService, report
from .stopping import Stopping

if TYPE_CHECKING:
    from collections.abc import Mapping

    from desync.interfaces import IChunkSource
    from desync.options import StoreOptions

    from .figures import Figures
    from .service import Part
    from .settings import ChunkServerSettings


class _Stacks:
    """Opens the stores that a server reads from or writes to, with their layers."""

    def __init__(
        self,
        settings: ChunkServerSettings,
        reactor: Any,
        environ: Mapping[str, str],
        counters: Counters,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._counters = counters
        self._digest = Digest.named(settings.digest)
        self._config = settings.load_config(environ)

    def _options(self, location: str) -> StoreOptions:
        return self._settings.options_of(self._config, location)

    def open(self, file: StoreFile) -> IChunkSource:
        """
        Open what a store file, or the command line, names.

        :raises DesyncError: if it can't be used.
        """
        settings, reactor, digest = self._settings, self._reactor, self._digest
        if settings.writable:
            if len(file.stores) > 1 or file.cache:
                raise UsageError("Only one upstream store supported for writing and no cache")
            return open_target(file.stores[0], self._options, reactor, digest)
        source = open_source(file.stores, self._options, reactor, digest)
        if not ILocalFiles.providedBy(source) or file.cache:
            source = Metered(source, self._counters, reactor.seconds)
        if not file.cache:
            return source
        try:
            cache = open_target(file.cache, self._options, reactor, digest)
        except BaseException:
            source.close().addErrback(lambda _: None)
            raise
        return Cache(source, cache, settings.store_flags.cache_repair, self._count_hits)

    def _count_hits(self, count: int) -> None:
        self._counters.cache_hits += count


class ChunkServing:
    """
    A chunk server in one process.

    :param settings: what it serves, and how. Its stores are opened here.
    :ivar service: listens, when it is started.
    :ivar figures: for the operator.
    :ivar troubles: the last things that went wrong.
    :raises DesyncError: if something that the settings name can't be used.
    """

    def __init__(
        self, settings: ChunkServerSettings, reactor: Any, environ: Mapping[str, str]
    ) -> None:
        counters, self.troubles = Counters(), Troubles(time.time)
        stacks = _Stacks(settings, reactor, environ, counters)
        if settings.store_file:
            file = read_store_file(settings.store_file)
        else:
            file = StoreFile(settings.store, settings.cache)
        self._settings = settings
        self._store = Reloading(stacks.open(file))
        threads = StoreThreads(reactor)
        site = ChunkSite(
            self._store,
            SingleFlight(self._store),
            threads,
            counters,
            self.troubles,
            extension="" if settings.uncompressed else ".cacnk",
            digest=Digest.named(settings.digest),
            writable=settings.writable,
            verify=not settings.skip_verify_write,
        )
        reload = None
        if settings.store_file:
            reader = StoreFileReader(settings.store_file, stacks.open, self._store, self._report)
            reload = reader.read_again
        closing: list[Closing] = [self._store, Stopping(threads)]
        self.service = WebService(settings, reactor, site, counters, self.troubles, closing, reload)
        self.figures = OwnFigures(self.service.server, self.troubles, self.about)

    def _report(self, line: str) -> None:
        report(line, self.troubles)

    def about(self) -> dict[str, str]:
        """See :meth:`.figures.Figures.about`."""
        return describe(self._settings, self._store.location)


def describe(settings: ChunkServerSettings, location: str) -> dict[str, str]:
    """Say what a chunk server serves: see :meth:`.figures.Figures.about`."""
    about = {
        "chunks": "uncompressed" if settings.uncompressed else "compressed",
        "from": location,
        "at": ", ".join(settings.listen),
        "clients may write": _yes_or_no(settings.writable),
        "TLS": "mutual" if settings.mutual_tls else _yes_or_no(bool(settings.cert)),
        "authorization": _yes_or_no(bool(settings.authorization)),
    }
    if settings.store_file:
        about["store file"] = settings.store_file
    return about


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def chunk_service(
    settings: ChunkServerSettings, reactor: Any, environ: Mapping[str, str]
) -> ServerService:
    """
    Make a chunk server, in one process or in several.

    :raises DesyncError: if something that the settings name can't be used.
    """
    figures: Figures
    part: Part
    if settings.workers == 1:
        serving = ChunkServing(settings, reactor, environ)
        figures, part = serving.figures, serving.service
    else:
        from .processes import WorkersService

        figures = part = WorkersService(settings, reactor, Troubles(time.time))
    return ServerService(
        [part, *operator_parts(settings, "desync chunk server", figures, reactor)], reactor
    )
