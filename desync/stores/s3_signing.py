# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Signing requests to S3: botocore's Signature Version 4, with what it computes anew for each request
computed once.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore.auth import S3SigV4Auth
from botocore.credentials import ReadOnlyCredentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: SHA-256 of nothing.
EMPTY: Final = hashlib.sha256(b"").hexdigest()


class Keys(NamedTuple):
    """What requests are signed with."""

    access_key: str
    secret_key: str
    session_token: str = ""


class Signer:
    """
    Signs with certain keys for a certain region.

    :param now: tells the time in seconds since 1970, by the service's clock if that is known.
    """

    def __init__(self, keys: Keys, region: str, now: Callable[[], float] = time.time) -> None:
        self.keys = keys
        self.region = region
        self._auth = _Auth(keys, region)
        self._now = now

    def sign(
        self, method: str, url: str, headers: Mapping[str, str], checksum: str = EMPTY
    ) -> dict[str, str]:
        """
        Give the headers of a request, signed.

        :param url: escaped.
        :param headers: those that are there so far, Host among them.
        :param checksum: SHA-256 of the body, in hexadecimal.
        """
        request = _Request(method, url, dict(headers))
        request.context["checksum"] = checksum
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        request.context["timestamp"] = stamp
        self._auth.add_auth(request)
        return request.headers


class _Request:
    """What the signer needs of botocore's AWSRequest, whose headers are slow to handle."""

    def __init__(self, method: str, url: str, headers: dict[str, str]) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.params: dict[str, str] = {}
        self.context: dict[str, Any] = {}


class _Auth(S3SigV4Auth):  # type: ignore[misc]
    def __init__(self, keys: Keys, region: str) -> None:
        credentials = ReadOnlyCredentials(
            keys.access_key, keys.secret_key, keys.session_token or None
        )
        super().__init__(credentials, "s3", region)
        self._day = ""
        self._key = b""

    def add_auth(self, request: _Request) -> None:
        # As the inherited one, without looking at this machine's clock.
        self._modify_request_before_signing(request)
        canonical = self.canonical_request(request)
        signature = self.signature(self.string_to_sign(request, canonical), request)
        self._inject_signature_to_request(request, signature)

    def payload(self, request: _Request) -> str:
        checksum: str = request.context["checksum"]
        return checksum

    def headers_to_sign(self, request: _Request) -> Any:
        headers = request.context.get("headers")
        if headers is None:
            headers = request.context["headers"] = super().headers_to_sign(request)
        return headers

    def signature(self, string_to_sign: str, request: _Request) -> str:
        day = request.context["timestamp"][:8]
        if day != self._day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for part in (day, self._region_name, self._service_name, "aws4_request"):
                key = self._sign(key, part)
            self._day, self._key = day, key
        signature: str = self._sign(self._key, string_to_sign, hex=True)
        return signature
