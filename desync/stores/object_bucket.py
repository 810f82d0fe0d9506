# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the buckets of all services have in common, whatever their requests look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import implementer

from .objects import IBucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .attempts import Attempts
    from .object_requests import Requests
    from .objects import Listed, Page
    from .threads import Threads


@implementer(IBucket)
class ServiceBucket:
    """
    A bucket at a service. Those of a kind of service say as coroutines what each operation is; the
    names of these begin with an underscore.

    :param location: how messages name it.
    :param requests: makes them.
    :param attempts: says how often requests are made again.
    :param threads: to be stopped with the bucket.
    """

    def __init__(
        self,
        location: str,
        requests: Requests,
        attempts: Attempts,
        threads: Threads | None = None,
    ) -> None:
        self.location = location
        self._requests = requests
        self._attempts = attempts
        self._threads = threads

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"

    def checksum(self, body: bytes) -> str:
        """See :meth:`.objects.IObjects.checksum`."""
        raise NotImplementedError

    async def _get(self, key: str, limit: int) -> bytes:
        raise NotImplementedError

    async def _has(self, key: str) -> bool:
        raise NotImplementedError

    async def _put(self, key: str, body: bytes, content_type: str, checksum: str) -> None:
        raise NotImplementedError

    async def _remove(self, key: str) -> None:
        raise NotImplementedError

    async def _remove_many(self, objects: Sequence[Listed]) -> None:
        raise NotImplementedError

    async def _list_page(self, prefix: str, token: str) -> Page:
        raise NotImplementedError

    def get(self, key: str, limit: int) -> Deferred[bytes]:
        """See :meth:`.objects.IObjects.get`."""
        return Deferred.fromCoroutine(self._get(key, limit))

    def has(self, key: str) -> Deferred[bool]:
        """See :meth:`.objects.IObjects.has`."""
        return Deferred.fromCoroutine(self._has(key))

    def put(self, key: str, body: bytes, content_type: str, checksum: str) -> Deferred[None]:
        """See :meth:`.objects.IObjects.put`."""
        return Deferred.fromCoroutine(self._put(key, body, content_type, checksum))

    def remove(self, key: str) -> Deferred[None]:
        """See :meth:`.objects.IBucket.remove`."""
        return Deferred.fromCoroutine(self._remove(key))

    def remove_many(self, objects: Sequence[Listed]) -> Deferred[None]:
        """See :meth:`.objects.IBucket.remove_many`."""
        return Deferred.fromCoroutine(self._remove_many(objects))

    def list_page(self, prefix: str, token: str) -> Deferred[Page]:
        """See :meth:`.objects.IBucket.list_page`."""
        return Deferred.fromCoroutine(self._list_page(prefix, token))

    def close(self) -> Deferred[None]:
        """See :meth:`.objects.IObjects.close`."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        try:
            await self._requests.close()
        finally:
            if self._threads is not None:
                await self._threads.stop()
