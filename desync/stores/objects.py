# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What stores in buckets need of an object store, whichever it is.

:class:`.object_chunks.ObjectChunkStore` and :class:`.object_indexes.ObjectIndexStore` keep chunks
and indexes in anything that provides :class:`IBucket`: S3 (:mod:`.s3`), Google Cloud Storage
(:mod:`.gcs`). A bucket makes each request again that failed in a way that may pass, so that a
listing of millions of objects needn't begin anew.

A web server has less: :class:`.keyed_chunks.KeyedChunkStore` needs :class:`IObjects` only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

#: How many objects are removed with one request at most: S3's limit.
REMOVED_AT_ONCE: Final = 1000

#: What chunks and indexes are said to be; Go desync says the same.
CHUNK_TYPE: Final = "application/zstd"
INDEX_TYPE: Final = "application/octet-stream"


_SHOWN: Final = 200
_UNSHOWN: Final = re.compile(r"[^\x20-\x7e]+")


def shown(text: str) -> str:
    """Make a service's words fit for a message: one short line without control characters."""
    text = " ".join(_UNSHOWN.sub(" ", text).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


class ObjectMissing(Exception):
    """A bucket, which is there, doesn't have an object."""


class Listed(NamedTuple):
    """
    An object in a listing.

    :ivar key: its whole key.
    :ivar size: in bytes.
    :ivar modified: when it was written, in seconds since 1970 by the service's clock.
    :ivar version: changes when it is written anew; empty if the service doesn't tell.
    """

    key: str
    size: int
    modified: float
    version: str = ""


class Page(NamedTuple):
    """
    A part of a listing.

    :ivar objects: at most a thousand or so.
    :ivar token: gets the next page; empty if this is the last.
    :ivar now: the service's clock, in seconds since 1970; None if it doesn't tell.
    """

    objects: Sequence[Listed]
    token: str
    now: float | None = None


class IObjects(Interface):
    """
    What has objects under keys: a bucket, a web server.

    All of its methods raise StoreError if it isn't there, refuses, or can't be reached. Errors name
    it, the cause, and the request as the service knows it.
    """

    location = Attribute("How a user names it, secrets masked: ``str``.")

    def get(key: str, limit: int) -> Deferred[bytes]:
        """
        Read an object.

        :param limit: the most bytes that it may have.
        :raises ObjectMissing: if it isn't there.
        :raises ObjectTooLarge: if it has more bytes.
        """

    def has(key: str) -> Deferred[bool]:
        """Tell whether an object is there."""

    def checksum(body: bytes) -> str:
        """
        Compute what :meth:`put` wants to know of a body. It takes time: threads may call it. Not a
        Deferred.
        """

    def put(key: str, body: bytes, content_type: str, checksum: str) -> Deferred[None]:
        """Write an object as a whole, replacing what was there."""

    def close() -> Deferred[None]:
        """Let go of connections."""


class IBucket(IObjects):
    """A bucket, or the part of one whose keys begin alike."""

    def remove(key: str) -> Deferred[None]:
        """Remove an object; one that isn't there is fine."""

    def remove_many(objects: Sequence[Listed]) -> Deferred[None]:
        """
        Remove at most :data:`REMOVED_AT_ONCE` objects; those that aren't there are fine.

        One that has another version by now stays, where the service can tell.
        """

    def list_page(prefix: str, token: str) -> Deferred[Page]:
        """
        List some of the objects whose keys begin with a prefix.

        :param token: of the page before; empty for the first.
        """


class ObjectTooLarge(Exception):
    """An object has more bytes than whoever reads it takes."""
