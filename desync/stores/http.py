# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Stores of chunks and of indexes on an HTTP server: a chunk server, an index server, or any web
server that has the files of a store.

A chunk is ``GET``, ``HEAD`` and ``PUT`` of ``<store>/abcd/abcd...ef.cacnk``, an index of
``<store>/<name>``. Where the server offers it, many chunks are one request (:mod:`.http_batches`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from desync.errors import StoreError, StoreRefused

from .http_batches import BatchClient
from .http_server import HTTPServer
from .keyed_chunks import KeyedChunkStore
from .object_indexes import ObjectIndexStore
from .objects import IObjects, ObjectMissing, ObjectTooLarge
from .retry import tried
from .web import AnswerTooLarge, WebError

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.chunking.digests import Digest
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink
    from desync.options import StoreOptions

    from .http_connection import Answer
    from .location import Location

#: Statuses that ask for patience, though those like them mean that there is no use in asking again.
_MAY_PASS: Final = frozenset({408, 425, 429})

_STORED: Final = frozenset({200, 201, 204})


@implementer(IObjects)
class HTTPObjects:
    """
    What is on an HTTP server below a location.

    :param server: the server.
    """

    def __init__(self, server: HTTPServer) -> None:
        self.location = server.location
        self._server = server

    async def _ask(self, method: str, key: str, **more: Any) -> Answer:
        try:
            return await self._server.ask(method, self._server.target(key), **more)
        except WebError as error:
            raise StoreError(self.location, f"{key}: {error}") from None

    def get(self, key: str, limit: int) -> Deferred[bytes]:
        """See :meth:`.objects.IObjects.get`."""
        return Deferred.fromCoroutine(self._get(key, limit))

    async def _get(self, key: str, limit: int) -> bytes:
        try:
            answer = await self._ask("GET", key, limit=limit)
        except AnswerTooLarge:
            raise ObjectTooLarge from None
        if answer.status == 200:
            return answer.body
        if answer.status == 404:
            raise ObjectMissing
        raise self.refusal(answer, key)

    def has(self, key: str) -> Deferred[bool]:
        """See :meth:`.objects.IObjects.has`."""
        return Deferred.fromCoroutine(self._has(key))

    async def _has(self, key: str) -> bool:
        answer = await self._ask("HEAD", key)
        if answer.status not in (200, 404):
            raise self.refusal(answer, key)
        return answer.status == 200

    def checksum(self, body: bytes) -> str:
        """See :meth:`.objects.IObjects.checksum`. None is sent."""
        return ""

    def put(self, key: str, body: bytes, content_type: str, checksum: str) -> Deferred[None]:
        """See :meth:`.objects.IObjects.put`."""
        return Deferred.fromCoroutine(self._put(key, body, content_type))

    async def _put(self, key: str, body: bytes, content_type: str) -> None:
        headers = f"Content-Type: {content_type}\r\n"
        answer = await self._ask("PUT", key, headers=headers, body=body)
        if answer.status not in _STORED:
            raise self.refusal(answer, key, said=True)

    def refusal(self, answer: Answer, key: str, *, said: bool = False) -> StoreError:
        """
        Make the error that an unwanted answer is.

        :param said: whether what the server said of it is worth showing.
        """
        why = f"unexpected status code {answer.status} for {key}"
        words = " ".join(answer.body.decode("utf-8", "replace").split())[:200] if said else ""
        if words and not words.startswith("<"):
            why += f": {words}"
        final = answer.status < 500 and answer.status not in _MAY_PASS
        return (StoreRefused if final else StoreError)(self.location, why)

    def close(self) -> Deferred[None]:
        """See :meth:`.objects.IObjects.close`."""
        return Deferred.fromCoroutine(self._server.close())


class HTTPChunkStore(KeyedChunkStore):
    """
    Chunks on an HTTP server.

    :param batches: for many chunks at once; None to ask for each alone.
    """

    def __init__(
        self, objects: HTTPObjects, reactor: Any, batches: BatchClient | None, **more: Any
    ) -> None:
        super().__init__(objects, "", reactor, **more)
        self._batches = batches

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""
        if self._batches is None or not self._batches.worth_trying(ids):
            return super().get_many(ids, sink)
        return self._batches.get_many(ids, sink, self.fetch_singly, self.check_together)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        if self._batches is None or not self._batches.worth_trying(ids):
            return super().missing(ids)
        return self._batches.missing(ids, super().missing)


def _server(location: Location, options: StoreOptions, reactor: Any) -> HTTPServer:
    return HTTPServer(location, options, reactor, os.environ)


def open_http(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any
) -> HTTPChunkStore:
    """
    Open a store of chunks on an HTTP server. Nothing is asked yet.

    :raises StoreError: if the location's host isn't one.
    :raises ConfigError: if a certificate or a proxy can't be used.
    """
    server = _server(location, options, reactor)
    return HTTPChunkStore(
        HTTPObjects(server),
        reactor,
        None if options.single_requests else BatchClient(server, options.n),
        extension="" if options.uncompressed else ".cacnk",
        digest=digest,
        skip_verify=options.skip_verify,
        any_form=options.any_form,
        level=options.compression_level,
        concurrency=options.n,
    )


def open_http_indexes(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any
) -> ObjectIndexStore:
    """
    Open a store of indexes on an HTTP server. Nothing is asked yet.

    :raises StoreError: if the location's host isn't one.
    :raises ConfigError: if a certificate or a proxy can't be used.
    """
    objects = HTTPObjects(_server(location, options, reactor))
    return ObjectIndexStore(_Patient(objects, options, reactor), "", digest)


@implementer(IObjects)
class _Patient:
    """
    Asks again when the server failed. For indexes: over a store of chunks is a layer that does.

    :param objects: what is asked.
    """

    def __init__(self, objects: HTTPObjects, options: StoreOptions, clock: Any) -> None:
        self.location = objects.location
        self._objects = objects
        self._clock = clock
        self._attempts = max(1, options.error_retry)
        self._interval = options.error_retry_base_interval / 1e9

    def _try(self, operation: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        trying = tried(operation, self._clock, self._attempts, self._interval)
        return Deferred.fromCoroutine(trying)

    def get(self, key: str, limit: int) -> Deferred[bytes]:
        """See :meth:`.objects.IObjects.get`."""
        return self._try(lambda: self._objects.get(key, limit))

    def has(self, key: str) -> Deferred[bool]:
        """See :meth:`.objects.IObjects.has`."""
        return self._try(lambda: self._objects.has(key))

    def checksum(self, body: bytes) -> str:
        """See :meth:`.objects.IObjects.checksum`."""
        return self._objects.checksum(body)

    def put(self, key: str, body: bytes, content_type: str, checksum: str) -> Deferred[None]:
        """See :meth:`.objects.IObjects.put`."""
        return self._try(lambda: self._objects.put(key, body, content_type, checksum))

    def close(self) -> Deferred[None]:
        """See :meth:`.objects.IObjects.close`."""
        return self._objects.close()
