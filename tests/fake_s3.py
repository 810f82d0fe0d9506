# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""An S3 service for tests that can be told to misbehave. It doesn't check signatures closely."""

from __future__ import annotations

import re
import time
from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Answers a request in the service's place, or returns None to let it answer.
    Trouble = Callable[["FakeS3", Any], object]

_AUTHORIZATION = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/\d{8}/(?P<region>[^/]+)/s3/aws4_request, "
    rb"SignedHeaders=[^,]+, Signature=[0-9a-f]{64}\Z"
)


class FakeS3(Resource):
    """
    One bucket.

    :ivar objects: what it holds, by key.
    :ivar troubles: what the next requests get instead of an answer, one each.
    :ivar always: the same for every request without a trouble of its own.
    :ivar requests: what was asked for: method, path, access key.
    :ivar expired: access keys that are no longer good.
    :ivar skew: seconds that its clock is ahead.
    :ivar region: the one that requests have to be signed for; any if empty.
    :ivar is_there: whether there is a bucket.
    :ivar page: how many objects a page of a listing has.
    """

    isLeaf = True  # noqa: N815

    def __init__(self, bucket: str = "bucket") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bucket = bucket
        self.objects: dict[str, bytes] = {}
        self.troubles: deque[Trouble] = deque()
        self.always: Trouble | None = None
        self.requests: list[tuple[str, str, str]] = []
        self.expired: set[str] = set()
        self.skew = 0.0
        self.region = ""
        self.is_there = True
        self.page = 1000
        self.removals: list[int] = []

    def listen(self, reactor: Any) -> Any:
        """Listen on a port of this machine; stop it after the test."""
        site = Site(self)
        site.displayTracebacks = False
        return reactor.listenTCP(0, site, interface="127.0.0.1")

    def render(self, request: Any) -> Any:
        """Answer a request."""
        path = unquote(request.path.decode())
        found = _AUTHORIZATION.match(request.getHeader(b"authorization") or b"")
        key = found["key"].decode() if found else ""
        method = request.method.decode()
        self.requests.append((method, path, key))
        request.setHeader(b"x-amz-request-id", f"R{len(self.requests)}".encode())
        request.setHeader(b"date", formatdate(time.time() + self.skew, usegmt=True).encode())
        trouble = self.troubles.popleft() if self.troubles else self.always
        if trouble is not None:
            answer = trouble(self, request)
            if answer is not None:
                return answer
        if found is None:
            return self.error(request, 403, "AccessDenied")
        if key in self.expired:
            return self.error(request, 400, "ExpiredToken")
        stamp = request.getHeader(b"x-amz-date").decode()
        signed = time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) - time.timezone
        if abs(signed - time.time() - self.skew) > 900:
            return self.error(request, 403, "RequestTimeTooSkewed")
        if self.region and found["region"].decode() != self.region:
            request.setHeader(b"x-amz-bucket-region", self.region.encode())
            more = f"<Region>{self.region}</Region>"
            return self.error(request, 400, "AuthorizationHeaderMalformed", more)
        bucket, _, name = path.lstrip("/").partition("/")
        if bucket != self.bucket or not self.is_there:
            return self.error(request, 404, "NoSuchBucket")
        answer = getattr(self, f"_{method.lower()}")(request, name)
        assert isinstance(answer, bytes)
        return answer

    def error(self, request: Any, status: int, code: str, more: str = "") -> bytes:
        """Answer with an error."""
        request.setResponseCode(status)
        if request.method == b"HEAD":
            return b""
        return f"<Error><Code>{code}</Code><Message>because</Message>{more}</Error>".encode()

    def _head(self, request: Any, name: str) -> bytes:
        if name and name not in self.objects:
            request.setResponseCode(404)
        return b""

    def _get(self, request: Any, name: str) -> bytes:
        if not name:
            return self._list(request)
        if name not in self.objects:
            return self.error(request, 404, "NoSuchKey")
        return self.objects[name]

    def _put(self, request: Any, name: str) -> bytes:
        self.objects[name] = request.content.read()
        return b""

    def _delete(self, request: Any, name: str) -> bytes:
        self.objects.pop(name, None)
        request.setResponseCode(204)
        return b""

    def _post(self, request: Any, name: str) -> bytes:
        keys = re.findall(rb"<Key>([^<]*)</Key>", request.content.read())
        self.removals.append(len(keys))
        for key in keys:
            self.objects.pop(key.decode(), None)
        return b"<DeleteResult></DeleteResult>"

    def _list(self, request: Any) -> bytes:
        prefix = request.args[b"prefix"][0].decode()
        after = request.args.get(b"continuation-token", [b""])[0].decode()
        names = sorted(name for name in self.objects if name.startswith(prefix) and name > after)
        some = names[: self.page]
        contents = "".join(
            f"<Contents><Key>{quote(name)}</Key><Size>{len(self.objects[name])}</Size>"
            "<LastModified>2020-01-01T00:00:00.000Z</LastModified></Contents>"
            for name in some
        )
        more = "<IsTruncated>false</IsTruncated>"
        if len(names) > len(some):
            more = (
                "<IsTruncated>true</IsTruncated>"
                f"<NextContinuationToken>{some[-1]}</NextContinuationToken>"
            )
        text = f"<ListBucketResult><EncodingType>url</EncodingType>{contents}{more}"
        return f"{text}</ListBucketResult>".encode()


# Troubles


def reset(service: FakeS3, request: Any) -> object:
    """Break the connection off before an answer."""
    request.transport.abortConnection()
    return NOT_DONE_YET


def truncate(service: FakeS3, request: Any) -> object:
    """Break it off in the middle of the answer."""
    request.setHeader(b"content-length", b"1000000")
    request.write(b"half")
    request.transport.loseConnection()
    return NOT_DONE_YET


def hang(service: FakeS3, request: Any) -> object:
    """Never answer."""
    request.notifyFinish().addErrback(lambda _: None)
    return NOT_DONE_YET


def fail(status: int, code: str = "") -> Trouble:
    """Answer with an error, or with what a proxy would say."""

    def answer(service: FakeS3, request: Any) -> object:
        if code:
            return service.error(request, status, code)
        request.setResponseCode(status)
        return b"" if request.method == b"HEAD" else b"<html>No &nbsp; luck</html>"

    return answer


def say(body: bytes, status: int = 200) -> Trouble:
    """Answer with anything."""

    def answer(service: FakeS3, request: Any) -> object:
        request.setResponseCode(status)
        return body

    return answer


def redirect(url: str, status: int = 307, code: str = "TemporaryRedirect") -> Trouble:
    """Send to another place."""

    def answer(service: FakeS3, request: Any) -> object:
        request.setHeader(b"location", url.encode())
        return service.error(request, status, code)

    return answer


def good(service: FakeS3, request: Any) -> object:
    """No trouble."""
    return None
