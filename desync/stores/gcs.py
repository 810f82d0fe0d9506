# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Stores in Google Cloud Storage, over its JSON API.

google-auth gets the tokens (:mod:`.gcs_tokens`); requests go over Twisted's connections
(:mod:`.object_requests`).
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from contextlib import suppress
from datetime import datetime
from hashlib import md5
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlencode

from desync.errors import StoreError, StoreRefused, UsageError

from .attempts import PASSING_STATUS, Attempts
from .concurrently import concurrently
from .gcs_tokens import GoogleTokens, NoTokens
from .object_bucket import ServiceBucket
from .object_chunks import ObjectChunkStore, open_chunks
from .object_indexes import ObjectIndexStore
from .object_requests import UNWANTED, Requests, header, retry_after, time_of
from .objects import Listed, ObjectMissing, ObjectTooLarge, Page, shown
from .threads import StoreThreads
from .web import AnswerTooLarge, WebError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from desync.chunking.digests import Digest
    from desync.options import StoreOptions

    from .gcs_tokens import Tokens
    from .http_connection import Answer
    from .location import Location
    from .threads import Threads

#: Names where the service is instead of at Google; no credentials are used there.
EMULATOR: Final = "STORAGE_EMULATOR_HOST"

_SERVICE: Final = "https://storage.googleapis.com"

#: Bytes that a page of a listing may have: a thousand names of at most 1024 bytes, and more.
_LIST_LIMIT: Final = 16 << 20
_PAGE: Final = 1000


class GCSBucket(ServiceBucket):
    """
    A bucket in Google Cloud Storage.

    :param service: the URL of the service, without a slash at its end.
    :param bucket: the name.
    :param location: how messages name it.
    :param requests: makes them.
    :param tokens: what requests carry.
    :param attempts: says how often requests are made again.
    :param concurrency: how many objects are removed at a time.
    :param threads: to be stopped with the bucket.
    """

    def __init__(
        self,
        service: str,
        bucket: str,
        location: str,
        requests: Requests,
        tokens: Tokens,
        attempts: Attempts,
        concurrency: int,
        threads: Threads | None = None,
    ) -> None:
        super().__init__(location, requests, attempts, threads)
        self._bucket = bucket
        self._path = f"/storage/v1/b/{quote(bucket, safe='')}"
        self._service = service
        self._tokens = tokens
        self._concurrency = concurrency
        self._is_there = False

    def _object(self, key: str) -> str:
        return f"{self._path}/o/{quote(key, safe='', errors='surrogateescape')}"

    async def _get(self, key: str, limit: int) -> bytes:
        answer = await self._ask("GET", self._object(key), {"alt": "media"}, limit=limit)
        return answer.body

    async def _has(self, key: str) -> bool:
        try:
            await self._ask("GET", self._object(key), {"fields": "size"})
        except ObjectMissing:
            return False
        return True

    def checksum(self, body: bytes) -> str:
        """See :meth:`.objects.IObjects.checksum`."""
        return b64encode(md5(body, usedforsecurity=False).digest()).decode("ascii")

    async def _put(self, key: str, body: bytes, content_type: str, checksum: str) -> None:
        query = {"uploadType": "media", "name": key, "fields": "md5Hash"}
        headers = {"Content-Type": content_type, "X-Goog-Hash": f"md5={checksum}"}
        answer = await self._ask("POST", f"/upload{self._path}/o", query, headers, body)
        # Who doesn't know the header above doesn't compare.
        if _fields(answer).get("md5Hash", checksum) != checksum:
            raise StoreError(self.location, "what was stored isn't what was sent")

    async def _remove(self, key: str, version: str = "") -> None:
        query = {"ifGenerationMatch": version} if version else {}
        with suppress(ObjectMissing):
            # 412: it has been written anew since it was listed, so somebody needs it.
            await self._ask("DELETE", self._object(key), query, good=(200, 204, 412))

    async def _remove_many(self, objects: Sequence[Listed]) -> None:
        # One by one, but several at a time.
        removing = (self._remove(one.key, one.version) for one in objects)
        await concurrently(removing, self._concurrency)

    async def _list_page(self, prefix: str, token: str) -> Page:
        query = {
            "prefix": prefix,
            "maxResults": str(_PAGE),
            "fields": "items(name,size,updated,generation),nextPageToken",
        }
        if token:
            query["pageToken"] = token
        answer = await self._ask("GET", f"{self._path}/o", query, limit=_LIST_LIMIT)
        try:
            fields = json.loads(answer.body)
            objects = [_listed(item) for item in fields.get("items", ())]
            following = fields.get("nextPageToken", "")
            if not isinstance(following, str):
                raise TypeError
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise StoreError(
                self.location, f"its listing can't be understood{_request_of(answer)}"
            ) from None
        return Page(objects, following, time_of(answer))

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        limit: int = UNWANTED,
        good: Sequence[int] = (200,),
    ) -> Answer:
        """
        Make a request until it has an answer.

        :param good: the statuses that the caller deals with.
        :raises ObjectMissing: if the object, but not the bucket, is missing.
        :raises StoreRefused: if asking again wouldn't help.
        :raises StoreError: if it failed too often.
        """
        tail = f"?{urlencode(query, quote_via=quote, errors='surrogateescape')}" if query else ""
        url = f"{self._service}{path}{tail}"
        made = 0
        renewed = False
        while True:
            token = await self._tokens.current()
            sent = dict(headers or {})
            if token:
                sent["Authorization"] = f"Bearer {token}"
            try:
                answer = await self._requests.request(method, url, sent, body, limit=limit)
            except AnswerTooLarge:
                raise ObjectTooLarge from None
            except WebError as error:
                made += 1
                if not self._attempts.more(made):
                    raise StoreError(self.location, str(error)) from None
                await self._attempts.pause(made)
                continue
            if answer.status in good:
                return answer
            if answer.status == 404 and path != self._path:
                await self._check_bucket()
                if path.startswith(f"{self._path}/o/"):
                    raise ObjectMissing
            if answer.status == 401 and token and not renewed:
                renewed = True
                if await self._tokens.renew(token):
                    continue
            if answer.status not in PASSING_STATUS:
                raise StoreRefused(self.location, self._say(answer))
            made += 1
            slow_down = answer.status in (429, 503)
            if not self._attempts.more(made, slow_down=slow_down):
                raise StoreError(self.location, self._say(answer))
            await self._attempts.pause(made, retry_after(answer))

    async def _check_bucket(self) -> None:
        """Make sure, once, that what is missing isn't the bucket."""
        if self._is_there:
            return
        # Who may read objects needn't be allowed to look at their bucket.
        answer = await self._ask("GET", self._path, {"fields": "name"}, good=(200, 401, 403, 404))
        if answer.status == 404:
            why = f"bucket '{shown(self._bucket)}' does not exist{_request_of(answer)}"
            raise StoreRefused(self.location, why)
        self._is_there = True

    def _say(self, answer: Answer) -> str:
        error = _fields(answer).get("error")
        message = error.get("message") if isinstance(error, dict) else None
        words = shown(message) if isinstance(message, str) and message else "unexpected answer"
        if answer.status in (401, 403):
            words = f"access denied: {words}"
        return f"{words} (status {answer.status}{_request_of(answer, ', ', '')})"


def _fields(answer: Answer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _listed(item: dict[str, Any]) -> Listed:
    modified = datetime.fromisoformat(item["updated"]).timestamp()
    version = item.get("generation", "")
    key = item["name"]
    if not isinstance(key, str):
        raise TypeError
    return Listed(key, int(item["size"]), modified, str(version))


def _request_of(answer: Answer, before: str = " (", after: str = ")") -> str:
    """Name the request as the service does, for whoever runs it."""
    name = shown(header(answer, b"x-guploader-uploadid"))
    return f"{before}request {name}{after}" if name else ""


def _open(location: Location, options: StoreOptions, reactor: Any) -> tuple[GCSBucket, str]:
    bucket = unquote(location.host)
    if ":" in bucket or "/" in bucket:
        raise UsageError(f"{location.shown}: invalid bucket name")
    prefix = unquote(location.path, errors="surrogateescape").strip("/")
    threads = StoreThreads(reactor, 1)
    emulator = os.environ.get(EMULATOR, "").rstrip("/")
    tokens: Tokens
    if emulator:
        service = emulator if "://" in emulator else f"http://{emulator}"
        tokens = NoTokens()
    else:
        service = _SERVICE
        tokens = GoogleTokens(location.shown, threads)
    opened = GCSBucket(
        service,
        bucket,
        location.shown,
        Requests(location.shown, options, reactor, os.environ),
        tokens,
        Attempts(reactor, options),
        options.n,
        threads,
    )
    return opened, f"{prefix}/" if prefix else ""


def open_gcs(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any
) -> ObjectChunkStore:
    """
    Open a store of chunks in Google Cloud Storage.

    :raises UsageError: if the location names no bucket.
    """
    bucket, prefix = _open(location, options, reactor)
    return open_chunks(bucket, prefix, options, digest, reactor)


def open_gcs_indexes(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any
) -> ObjectIndexStore:
    """
    Open a store of indexes in Google Cloud Storage.

    :raises UsageError: if the location names no bucket.
    """
    bucket, prefix = _open(location, options, reactor)
    return ObjectIndexStore(bucket, prefix, digest)
