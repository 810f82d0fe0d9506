# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Where a bucket of S3 is, and how its objects are addressed. Nothing is looked up here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlencode

from desync.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .location import Location

#: Endpoints that address buckets by host unless told otherwise: those that minio's client knows.
_BY_HOST: Final = re.compile(
    r"(?:.*\.)?(?:amazonaws\.com(?:\.cn)?|storage\.googleapis\.com|aliyuncs\.com)(?::\d+)?\Z"
)
_AMAZON: Final = re.compile(
    r"s3(?:-fips)?(?:[.-]dualstack)?(?:[.-](?P<region>[a-z]{2}[a-z0-9-]*-\d))?"
    r"(?P<domain>\.amazonaws\.com(?:\.cn)?)(?P<port>:\d+)?\Z"
)
_HOST_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?\Z")
_OWN_PORT: Final = {"http": re.compile(r":(?:80)?\Z"), "https": re.compile(r":(?:443)?\Z")}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

#: What a signature leaves as it is (RFC 3986's unreserved characters).
_UNRESERVED: Final = "-_.~"


class Place(NamedTuple):
    """
    A bucket.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: the endpoint, and the port where there is one.
    :ivar bucket: its name.
    :ivar by_host: whether requests go to ``bucket.host``, rather than to a path.
    """

    scheme: str
    host: str
    bucket: str
    by_host: bool

    @property
    def netloc(self) -> str:
        """What requests name in their Host header."""
        return f"{self.bucket}.{self.host}" if self.by_host else self.host

    @property
    def region(self) -> str:
        """The region that Amazon's name of the endpoint tells; empty if it doesn't."""
        amazon = _AMAZON.match(self.host)
        return (amazon["region"] or "us-east-1") if amazon else ""

    def url(self, key: str = "", query: Mapping[str, str] | None = None) -> str:
        """
        Give the URL of an object, or the bucket's.

        Everything that isn't a letter, a digit, a slash or one of ``-_.~`` is escaped: signatures
        are computed over that form.
        """
        path = "/" + _escaped(key) if self.by_host else f"/{_escaped(self.bucket)}"
        if not self.by_host and key:
            path += "/" + _escaped(key)
        tail = f"?{urlencode(query, quote_via=quote, safe=_UNRESERVED)}" if query else ""
        return f"{self.scheme}://{self.netloc}{path}{tail}"

    def moved(self, region: str, location: str) -> Place | None:
        """
        Give the place that a redirect leads to.

        :param region: the bucket's, where the service told.
        :param location: the URL, or the host, where it told that.
        :returns: None if there is no other place: the region alone may have been wrong.
        """
        scheme, separator, rest = location.partition("://")
        if separator and scheme != self.scheme:
            return None  # a signed request isn't sent without TLS because somebody says so
        host = (rest if separator else location).partition("/")[0].lower()
        amazon = _AMAZON.match(self.host)
        if amazon and region:
            place = self._replace(host=f"s3.{region}{amazon['domain']}{amazon['port'] or ''}")
        elif host.startswith(f"{self.bucket}."):
            place = self._replace(host=host.removeprefix(f"{self.bucket}."), by_host=True)
        elif host:
            place = self._replace(host=host)
        else:
            return None
        return None if place == self else place


def parse_place(location: Location) -> tuple[Place, str]:
    """
    Take apart the location of a store in S3: ``s3+https://host[:port]/bucket[/prefix]``, with
    ``?lookup=auto``, ``path`` or ``dns``.

    :returns: the bucket, and the prefix of all keys: empty, or ends with a slash.
    :raises UsageError: if it names no bucket, or a way of addressing that there isn't.
    """
    name, _, prefix = location.path.lstrip("/").partition("/")
    bucket = unquote(name)
    if not bucket:
        raise UsageError(f"{location.shown}: expected bucket name in path of '{location.scheme}'")
    if _CONTROL.search(bucket) or "/" in bucket:
        raise UsageError(f"{location.shown}: invalid bucket name")
    lookup = parse_qs(location.query).get("lookup", ["auto"])[-1]
    if lookup not in ("auto", "path", "dns"):
        raise UsageError(f'{location.shown}: unknown S3 bucket lookup type: "{lookup}"')
    scheme = location.scheme.removeprefix("s3+")
    # A signature is over the Host header, which has no port where it is the scheme's own.
    host = _OWN_PORT[scheme].sub("", location.host.lower())
    fits = _HOST_NAME.match(bucket) is not None
    if lookup == "dns" and not fits:
        raise UsageError(f"{location.shown}: bucket '{bucket}' can't be part of a host's name")
    # A certificate for *.host doesn't cover two labels.
    automatic = (
        _BY_HOST.match(host) is not None and fits and not (scheme == "https" and "." in bucket)
    )
    by_host = lookup == "dns" or (lookup == "auto" and automatic)
    prefix = unquote(prefix, errors="surrogateescape").strip("/")
    return Place(scheme, host, bucket, by_host), f"{prefix}/" if prefix else ""


def _escaped(text: str) -> str:
    return quote(text, safe="/" + _UNRESERVED, errors="surrogateescape")
