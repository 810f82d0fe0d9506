# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The store of the index files in a directory of this machine, for the reactor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from desync.errors import StoreError
from desync.interfaces import IIndexTarget

from .index_files import check_index_name, read_index, write_index
from .threads import StoreThreads, Threads

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFromThreads

    from desync.chunking.digests import Digest
    from desync.formats.index import Index


@implementer(IIndexTarget)
class LocalIndexStore:
    """
    A directory whose files are indexes.

    :param directory: it must be there.
    :param reactor: where the threads' results arrive.
    :param threadpool: what blocks; some threads of the store's own if not given.
    :param location: how messages name the store; its path if None.
    :param digest: the algorithm that ids must be made with; either, if None.
    :param sync: whether an index is on the disk when it is put: see
        :func:`desync.replace.replacing`.
    :raises StoreError: if it isn't a directory.
    """

    def __init__(
        self,
        directory: str,
        reactor: IReactorFromThreads,
        threadpool: Threads | None = None,
        *,
        location: str | None = None,
        digest: Digest | None = None,
        sync: str = "end",
    ) -> None:
        self.location = directory if location is None else location
        self._directory = directory
        self._digest = digest
        self._sync = sync
        self._owns_threads = threadpool is None
        self._threads: Threads = StoreThreads(reactor, size=2) if threadpool is None else threadpool
        try:
            os.scandir(directory).close()
        except OSError as error:
            raise StoreError(self.location, error.strerror or str(error)) from None

    def __repr__(self) -> str:
        return f"<LocalIndexStore {self.location}>"

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, check_index_name(name))

    def _shown(self, name: str) -> str:
        return os.path.join(self.location, name)

    def get_index(self, name: str) -> Deferred[Index]:
        """See :meth:`desync.interfaces.IIndexSource.get_index`."""
        return self._threads.run(read_index, self._path(name), self._digest, self._shown(name))

    def put_index(self, name: str, index: Index) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexTarget.put_index`."""
        path, shown = self._path(name), self._shown(name)
        return self._threads.run(lambda: write_index(path, index, sync=self._sync, shown=shown))

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexSource.close`."""
        return self._threads.stop() if self._owns_threads else succeed(None)
