# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The store whose indexes are objects in a bucket: see :mod:`.objects`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from desync.errors import IndexMissing, InvalidIndex
from desync.formats.index import Index
from desync.interfaces import IIndexTarget

from .index_files import check_index_name
from .objects import INDEX_TYPE, ObjectMissing, ObjectTooLarge

if TYPE_CHECKING:
    from desync.chunking.digests import Digest

    from .objects import IObjects

#: Bytes. An index of 25 million chunks.
_LARGEST_INDEX: Final = 1 << 30


@implementer(IIndexTarget)
class ObjectIndexStore:
    """
    Indexes as objects ``<prefix><name>``.

    :param bucket: where the objects are.
    :param prefix: what their keys begin with; empty, or ends with a slash.
    :param digest: the algorithm that ids must be made with; either, if None.
    :param limit: the most bytes that an index may have.
    """

    def __init__(
        self,
        bucket: IObjects,
        prefix: str,
        digest: Digest | None = None,
        limit: int = _LARGEST_INDEX,
    ) -> None:
        self.location = bucket.location
        self._bucket = bucket
        self._prefix = prefix
        self._digest = digest
        self._limit = limit

    def __repr__(self) -> str:
        return f"<ObjectIndexStore {self.location}>"

    def _shown(self, name: str) -> str:
        location, mark, query = self.location.partition("?")
        return f"{location.rstrip('/')}/{name}{mark}{query}"

    def get_index(self, name: str) -> Deferred[Index]:
        """See :meth:`desync.interfaces.IIndexSource.get_index`."""
        check_index_name(name)
        return Deferred.fromCoroutine(self._get(name))

    async def _get(self, name: str) -> Index:
        try:
            data = await self._bucket.get(self._prefix + name, self._limit)
        except ObjectMissing:
            raise IndexMissing(self._shown(name), "no such index") from None
        except ObjectTooLarge:
            raise InvalidIndex(self._shown(name), "it is too large") from None
        return Index.parse(data, self._shown(name), self._digest)

    def put_index(self, name: str, index: Index) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexTarget.put_index`."""
        check_index_name(name)
        body = index.to_bytes()
        return self._bucket.put(self._prefix + name, body, INDEX_TYPE, self._bucket.checksum(body))

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexSource.close`."""
        return self._bucket.close()
