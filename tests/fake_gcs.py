# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Google Cloud Storage for tests, where the emulator isn't strict: tokens, preconditions, pages.

It also gives out tokens to service accounts, as ``https://oauth2.googleapis.com/token`` does.
"""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64decode
from collections import deque
from hashlib import md5
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.web.resource import Resource
from twisted.web.server import Site

if TYPE_CHECKING:
    from collections.abc import Callable

    Trouble = Callable[["FakeGCS", Any], bytes | None]

ACCOUNT = "desync@project.iam.gserviceaccount.com"


class FakeGCS(Resource):
    """
    One bucket.

    :ivar objects: what it holds, by name: the bytes, and the generation.
    :ivar tokens: which are good.
    :ivar lifetime: seconds that new tokens are said to last.
    :ivar given: how many tokens were given.
    :ivar requests: method, path and query of each request to the bucket.
    :ivar troubles: what the next requests get instead of an answer.
    """

    isLeaf = True  # noqa: N815

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.tokens: set[str] = set()
        self.lifetime = 3600
        self.given = 0
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.troubles: deque[Trouble | None] = deque()
        self.page = 1000
        self.generation = 100
        self.is_there = True

    def listen(self, reactor: Any) -> Any:
        """Listen on a port of this machine; stop it after the test."""
        site = Site(self)
        site.displayTracebacks = False
        return reactor.listenTCP(0, site, interface="127.0.0.1")

    def render(self, request: Any) -> bytes:
        """Answer a request."""
        path = request.path.decode()
        if path == "/token":
            return self._give_token(request)
        query = {key.decode(): values[0].decode() for key, values in request.args.items()}
        self.requests.append((request.method.decode(), unquote(path), query))
        request.setHeader(b"x-guploader-uploadid", f"U{len(self.requests)}".encode())
        if self.troubles:
            trouble = self.troubles.popleft()
            answer = trouble(self, request) if trouble is not None else None
            if answer is not None:
                return answer
        token = (request.getHeader(b"authorization") or b"").decode().removeprefix("Bearer ")
        if token not in self.tokens:
            return self.error(request, 401, "Invalid Credentials")
        uploading = path == "/upload/storage/v1/b/bucket/o"
        if not (uploading or path.startswith("/storage/v1/b/bucket")) or not self.is_there:
            return self.error(request, 404, "The specified bucket does not exist.")
        if uploading:
            return self._put(request, query)
        rest = path.removeprefix("/storage/v1/b/bucket")
        if not rest:
            return b'{"name": "bucket"}'
        if rest == "/o":
            return self._list(query)
        return self._one(request, unquote(rest.removeprefix("/o/")), query)

    def error(self, request: Any, status: int, message: str) -> bytes:
        """Answer with an error."""
        request.setResponseCode(status)
        return json.dumps({"error": {"code": status, "message": message}}).encode()

    def _put(self, request: Any, query: dict[str, str]) -> bytes:
        body = request.content.read()
        checksum = b64encode(md5(body).digest()).decode()
        said = (request.getHeader(b"x-goog-hash") or b"").decode()
        if said != f"md5={checksum}":
            return self.error(request, 400, "Provided MD5 hash doesn't match")
        self.generation += 1
        self.objects[query["name"]] = (body, self.generation)
        return json.dumps({"md5Hash": checksum}).encode()

    def _one(self, request: Any, name: str, query: dict[str, str]) -> bytes:
        if name not in self.objects:
            return self.error(request, 404, f"No such object: bucket/{name}")
        body, generation = self.objects[name]
        if query.get("ifGenerationMatch", str(generation)) != str(generation):
            return self.error(request, 412, "conditionNotMet")
        if request.method == b"DELETE":
            del self.objects[name]
            request.setResponseCode(204)
            return b""
        return body if query.get("alt") == "media" else b'{"size": "1"}'

    def _list(self, query: dict[str, str]) -> bytes:
        after = query.get("pageToken", "")
        names = sorted(
            name for name in self.objects if name.startswith(query["prefix"]) and name > after
        )
        some = names[: min(self.page, int(query["maxResults"]))]
        items = [
            {
                "name": name,
                "size": str(len(self.objects[name][0])),
                "updated": "2020-01-01T00:00:00.000Z",
                "generation": str(self.objects[name][1]),
            }
            for name in some
        ]
        answer: dict[str, Any] = {"items": items} if items else {}
        if len(names) > len(some):
            answer["nextPageToken"] = some[-1]
        return json.dumps(answer).encode()

    def _give_token(self, request: Any) -> bytes:
        # Whoever gets tokens keeps no connection.
        request.setHeader(b"connection", b"close")
        asked = parse_qs(request.content.read().decode())
        claims = asked["assertion"][0].split(".")[1]
        claims += "=" * (-len(claims) % 4)
        if json.loads(urlsafe_b64decode(claims))["iss"] != ACCOUNT:
            return self.error(request, 400, "invalid_grant")
        self.given += 1
        token = f"token{self.given}"
        self.tokens.add(token)
        return json.dumps({"access_token": token, "expires_in": self.lifetime}).encode()


def service_account(token_url: str, account: str = ACCOUNT) -> str:
    """Write the file of a service account with a new key."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return json.dumps(
        {
            "type": "service_account",
            "client_email": account,
            "private_key_id": "1",
            "private_key": key.decode(),
            "token_uri": token_url,
        }
    )
