# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Stores in S3: Amazon's, Ceph's, MinIO's and others that speak its protocol.

botocore finds the credentials and signs (:mod:`.s3_credentials`, :mod:`.s3_signing`); requests go
over Twisted's connections (:mod:`.object_requests`).
"""

from __future__ import annotations

import hashlib
import os
import time
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from desync.errors import StoreError, StoreRefused

from .attempts import PASSING_STATUS, Attempts
from .object_bucket import ServiceBucket
from .object_chunks import ObjectChunkStore, open_chunks
from .object_indexes import ObjectIndexStore
from .object_requests import UNWANTED, Requests, header, retry_after, time_of
from .objects import ObjectMissing, ObjectTooLarge, shown
from .s3_answers import (
    LIST_LIMIT,
    Malformed,
    Trouble,
    parse_error,
    parse_page,
    parse_removal,
    removal,
)
from .s3_credentials import Credentials
from .s3_places import parse_place
from .s3_signing import EMPTY, Keys, Signer
from .threads import StoreThreads
from .web import AnswerTooLarge, WebError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from desync.chunking.digests import Digest
    from desync.options import StoreOptions

    from .http_connection import Answer
    from .location import Location
    from .objects import Listed, Page
    from .s3_places import Place
    from .threads import Threads

#: What may pass without anything being changed, beside the statuses that say so.
_PASSING_CODES: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "XAmzContentSHA256Mismatch",
    }
)
_SLOW_DOWN: Final = frozenset(
    {"SlowDown", "ServiceUnavailable", "Throttling", "RequestLimitExceeded"}
)
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_WRONG_REGION: Final = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_MOVED: Final = frozenset({301, 302, 307, 308})
#: Answers that can't be about the wrong region.
_CLEAR: Final = frozenset({200, 204, 206, 404, 416})

#: How often a request follows the service to another place or region.
_HOPS: Final = 3

#: What errors are called here; others are shown as the service calls them.
_WORDS: Final = {
    "AccessDenied": "access denied",
    "AllAccessDisabled": "access denied",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is invalid",
    "SlowDown": "too many requests",
}


class S3Bucket(ServiceBucket):
    """
    A bucket in S3.

    What an answer teaches, the bucket's region and endpoint or the service's clock, holds for all
    requests after it.

    :param place: where it is.
    :param location: how messages name it.
    :param requests: makes them.
    :param credentials: give keys.
    :param attempts: says how often requests are made again.
    """

    def __init__(
        self,
        place: Place,
        location: str,
        requests: Requests,
        credentials: Credentials,
        attempts: Attempts,
        threads: Threads | None = None,
    ) -> None:
        super().__init__(location, requests, attempts, threads)
        self._place = place
        self._credentials = credentials
        self._region = ""
        self._skew = 0.0
        self._signer: Signer | None = None
        self._is_there = False

    # The requests

    async def _get(self, key: str, limit: int) -> bytes:
        return (await self._request("GET", key, limit=limit)).body

    async def _has(self, key: str) -> bool:
        answer = await self._request("HEAD", key, good=(200, 400, 401, 403, 404, *_MOVED))
        if answer.status == 200:
            return True
        if answer.status == 404:
            await self._check_bucket()
            return False
        # An answer to HEAD has no room for what is wrong. Reading a byte of the object has.
        try:
            await self._request("GET", key, headers={"Range": "bytes=0-0"}, good=(200, 206, 416))
        except ObjectMissing:
            return False
        except ObjectTooLarge:
            return True  # the range was ignored
        return True

    async def _check_bucket(self) -> None:
        """Make sure, once, that what is missing isn't the bucket."""
        if self._is_there:
            return
        answer = await self._request("HEAD", "", good=(200, 400, 403, 404, *_MOVED))
        if answer.status == 404:
            # Who may not list a bucket is told 403.
            raise StoreRefused(self.location, self._no_bucket(Trouble(), answer))
        self._is_there = True

    def checksum(self, body: bytes) -> str:
        """See :meth:`.objects.IBucket.checksum`."""
        return hashlib.sha256(body).hexdigest()

    async def _put(self, key: str, body: bytes, content_type: str, checksum: str) -> None:
        headers = {"Content-Type": content_type}
        await self._request("PUT", key, headers=headers, body=body, checksum=checksum)

    async def _remove(self, key: str) -> None:
        with suppress(ObjectMissing):
            await self._request("DELETE", key, good=(200, 204))

    async def _remove_many(self, objects: Sequence[Listed]) -> None:
        keys = [one.key for one in objects]
        made = 0
        while True:
            body = removal(keys)
            answer = await self._request(
                "POST",
                "",
                query={"delete": ""},
                headers={"Content-MD5": b64encode(hashlib.md5(body).digest()).decode()},
                body=body,
                checksum=self.checksum(body),
                limit=LIST_LIMIT,
            )
            try:
                failed = parse_removal(answer.body)
            except Malformed as error:
                raise self._nonsense(error, answer) from None
            failed = {key: why for key, why in failed.items() if why.code != "NoSuchKey"}
            if not failed:
                return
            made += 1
            why = next(iter(failed.values()))
            passing = all(each.code in _PASSING_CODES for each in failed.values())
            if not passing or not self._attempts.more(made, slow_down=why.code in _SLOW_DOWN):
                raise StoreError(
                    self.location,
                    f"{len(failed)} objects could not be removed: {self._say(why, answer)}",
                )
            keys = [key for key in keys if key in failed]
            await self._attempts.pause(made)

    async def _list_page(self, prefix: str, token: str) -> Page:
        query = {"encoding-type": "url", "list-type": "2", "prefix": prefix}
        if token:
            query["continuation-token"] = token
        answer = await self._request("GET", "", query=query, limit=LIST_LIMIT)
        try:
            page = parse_page(answer.body)
        except Malformed as error:
            raise self._nonsense(error, answer) from None
        return page._replace(now=time_of(answer))

    # What each of them goes through

    async def _request(
        self,
        method: str,
        key: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        checksum: str = EMPTY,
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
        made = hops = 0
        renewed = adjusted = False
        while True:
            keys = await self._credentials.current()
            try:
                answer = await self._send(
                    keys, method, key, query, headers or {}, body, checksum, limit
                )
            except AnswerTooLarge:
                raise ObjectTooLarge(key) from None
            except WebError as error:
                made += 1
                if not self._attempts.more(made):
                    raise StoreError(self.location, str(error)) from None
                await self._attempts.pause(made)
                continue
            if answer.status in good and answer.status in _CLEAR:
                return answer
            trouble = parse_error(answer.body)
            if hops < _HOPS and self._follow(trouble, answer):
                hops += 1
                continue
            if answer.status in good:
                return answer
            if trouble.code == "RequestTimeTooSkewed" and not adjusted and self._adjust(answer):
                adjusted = True
                continue
            if trouble.code in _EXPIRED and not renewed:
                renewed = True
                if await self._credentials.renew(keys):
                    continue
            self._judge(trouble, answer)
            made += 1
            slow_down = trouble.code in _SLOW_DOWN or answer.status in (429, 503)
            if not self._attempts.more(made, slow_down=slow_down):
                raise StoreError(self.location, self._say(trouble, answer))
            await self._attempts.pause(made, retry_after(answer))

    async def _send(
        self,
        keys: Keys | None,
        method: str,
        key: str,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        body: bytes,
        checksum: str,
        limit: int,
    ) -> Answer:
        place = self._place
        url = place.url(key, query)
        signed: Mapping[str, str] = {**headers, "Host": place.netloc}
        if keys is not None:
            region = self._region or self._credentials.region or place.region or "us-east-1"
            signer = self._signer
            if signer is None or signer.keys != keys or signer.region != region:
                signer = self._signer = Signer(keys, region, lambda: time.time() + self._skew)
            signed = signer.sign(method, url, signed, checksum)
        # The connection says itself which host it asks for.
        sent = {name: value for name, value in signed.items() if name != "Host"}
        return await self._requests.request(method, url, sent, body, limit=limit)

    def _follow(self, trouble: Trouble, answer: Answer) -> bool:
        """Learn from an answer that the bucket is elsewhere; tells whether there was something."""
        region = shown(header(answer, b"x-amz-bucket-region")) or trouble.region
        moved = answer.status in _MOVED
        if (
            not moved
            and trouble.code not in _WRONG_REGION
            and not (answer.status == 400 and not answer.body and region)
        ):
            return False
        before = (self._place, self._region)
        if region:
            self._region = region
        if moved:
            where = header(answer, b"location") or trouble.endpoint
            self._place = self._place.moved(region, where) or self._place
        return (self._place, self._region) != before

    def _adjust(self, answer: Answer) -> bool:
        """Learn the service's clock; tells whether it told."""
        now = time_of(answer)
        if now is None:
            return False
        self._skew = now - time.time()
        return True

    def _judge(self, trouble: Trouble, answer: Answer) -> None:
        """Raise what an answer means, unless it may pass."""
        code = trouble.code
        if code == "NoSuchKey":
            raise ObjectMissing
        if code == "NoSuchBucket":
            raise StoreRefused(self.location, self._no_bucket(trouble, answer))
        if code not in _PASSING_CODES and answer.status not in PASSING_STATUS:
            raise StoreRefused(self.location, self._say(trouble, answer))

    def _no_bucket(self, trouble: Trouble, answer: Answer) -> str:
        bucket = shown(self._place.bucket)
        return f"bucket '{bucket}' does not exist{_request_of(trouble, answer)}"

    def _say(self, trouble: Trouble, answer: Answer) -> str:
        words = _WORDS.get(trouble.code) or trouble.message or "unexpected answer"
        code = trouble.code or f"status {answer.status}"
        if answer.status == 403 and not trouble.code:
            words = "access denied"
        return f"{words} ({code}{_request_of(trouble, answer, ', ', '')})"

    def _nonsense(self, error: Malformed, answer: Answer) -> StoreError:
        return StoreError(
            self.location,
            f"its answer can't be understood: {error}{_request_of(Trouble(), answer)}",
        )


def _request_of(trouble: Trouble, answer: Answer, before: str = " (", after: str = ")") -> str:
    """Name the request as the service does, for whoever runs it."""
    name = shown(header(answer, b"x-amz-request-id")) or trouble.request_id
    return f"{before}request {name}{after}" if name else ""


def _open(location: Location, options: StoreOptions, reactor: Any) -> tuple[S3Bucket, str]:
    place, prefix = parse_place(location)
    threads = StoreThreads(reactor, 1)
    credentials = Credentials(options.s3, location.shown, threads)
    requests = Requests(location.shown, options, reactor, os.environ)
    attempts = Attempts(reactor, options)
    bucket = S3Bucket(place, location.shown, requests, credentials, attempts, threads)
    return bucket, prefix


def open_s3(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any
) -> ObjectChunkStore:
    """
    Open a store of chunks in S3.

    :raises UsageError: if the location names no bucket.
    """
    bucket, prefix = _open(location, options, reactor)
    return open_chunks(bucket, prefix, options, digest, reactor)


def open_s3_indexes(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any
) -> ObjectIndexStore:
    """
    Open a store of indexes in S3.

    :raises UsageError: if the location names no bucket.
    """
    bucket, prefix = _open(location, options, reactor)
    return ObjectIndexStore(bucket, prefix, digest)
