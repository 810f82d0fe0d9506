# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What a user writes to name a store, taken apart. Nothing is opened or looked up here.

A location is a URL with one of the schemes in :data:`REMOTE_SCHEMES`, or else a local path, taken
literally. Paths too must be well-formed as URLs, because Go desync takes all locations through its
URL parser first: what it refuses, scripts don't use.
"""

from __future__ import annotations

import os.path
import re
from typing import Final, NamedTuple

from desync.errors import UsageError

#: The schemes that name a store on another machine. Anything else is a path.
REMOTE_SCHEMES: Final = frozenset(
    {
        "http",
        "https",
        "s3+http",
        "s3+https",
        "gs",
        "sftp",
        "ssh",
        "oci+http",
        "oci+https",
    }
)

#: Of those, what they speak has no word for listing chunks, or removing one.
WITHOUT_LISTING: Final = frozenset({"http", "https", "ssh"})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}", re.DOTALL)
_BAD_HOST_ESCAPE = re.compile(r"%(?!25|[89A-Fa-f][0-9A-Fa-f]).{0,2}", re.DOTALL)
_BAD_HOST_CHARACTER = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:\[\]<>\"%\u0080-\U0010ffff-]")
_BAD_USER_CHARACTER = re.compile(r"[^A-Za-z0-9._~!$&'()*+,;=:%@-]")
_PORT = re.compile(r"(:[0-9]*)?\Z")


class Location(NamedTuple):
    """
    One store's location.

    :ivar text: what the user wrote: options are looked up by it. It may hold secrets.
    :ivar scheme: lower-case, one of :data:`REMOTE_SCHEMES`; empty for a local path.
    :ivar user_info: ``user`` or ``user:password`` as written in the URL, percent escapes and all; a
        secret.
    :ivar host: the host, and the port where there is one, as written.
    :ivar path: a URL's path as written; ends with a slash for HTTP. The whole text for a local
        path.
    :ivar query: what follows the question mark of a URL.
    """

    text: str
    scheme: str
    user_info: str
    host: str
    path: str
    query: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path on this machine."""
        return not self.scheme

    @property
    def shown(self) -> str:
        """The location as messages show it: secrets masked."""
        return self.text if self.is_local else _masked(self.text)


def parse_location(text: str) -> Location:
    """
    Take apart the location of one store.

    :raises UsageError: if it is empty or no well-formed URL.
    """
    if not text:
        raise UsageError("a store location is empty")
    if not _CONTROL.search(text) and "%" not in text and ":" not in text:
        return Location(text, "", "", "", text, "")
    try:
        return _parse_url(text)
    except _NotURL as error:
        raise _refusal(text, str(error)) from None


def parse_group(text: str) -> tuple[Location, ...]:
    """
    Take apart a location that may be a failover group, ``a|b|c``: only where chunks are read from
    does it mean that.

    :raises UsageError: if a member is empty or no well-formed URL.
    """
    return tuple(parse_location(member) for member in text.split("|"))


def index_location(text: str) -> tuple[Location, str]:
    """
    Take apart the location of an index: the store is all but the last part of the path.

    ``-``, standard input or output, is for callers to recognize; here it is a file of that name.

    :returns: the store's location, and the name of the index in it with a URL's percent escapes
        resolved.
    :raises UsageError: if there is no name, or the location is no well-formed URL.
    """
    whole = parse_location(text)
    if whole.is_local:
        directory, name = os.path.split(text)
        store = whole._replace(text=directory or ".", path=directory or ".")
    else:
        from urllib.parse import unquote

        path = text[text.index("://") + 3 :].partition("#")[0].partition("?")[0].partition("/")[2]
        directory, _, last = ("/" + path).rpartition("/")
        name = unquote(last, errors="surrogateescape")
        if "/" in name:
            raise _refusal(text, "the name of the index holds an escaped slash")
        authority = f"{whole.user_info}@{whole.host}" if whole.user_info else whole.host
        query = f"?{whole.query}" if whole.query else ""
        store = parse_location(f"{whole.scheme}://{authority}{directory}{query}")
    if not name:
        raise UsageError(f"{whole.shown}: the name of an index is missing")
    return store, name


def index_options_location(text: str) -> str:
    """
    Give what the options for the store of an index are looked up by: all before the last slash, or
    backslash, of its location.

    Without any it is empty, which stands for the working directory. Go desync's rule.
    """
    for separator in "/", "\\":
        if separator in text:
            return text[: text.rindex(separator)]
    return ""


class _NotURL(ValueError):
    """What is wrong with a text as a URL, in the words of Go's URL parser."""


def _parse_url(text: str) -> Location:
    if _CONTROL.search(text):
        raise _NotURL("net/url: invalid control character in URL")
    rest, _, fragment = text.partition("#")
    if rest.startswith(":"):
        raise _NotURL("missing protocol scheme")
    match = _SCHEME.match(rest)
    scheme = ""
    if match:
        scheme = match.group(1).lower()
        rest = rest[match.end() :]
    rest, _, query = rest.partition("?")
    user_info = host = ""
    if rest.startswith("/") or not scheme:
        if ":" in rest.partition("/")[0]:
            raise _NotURL("first path segment in URL cannot contain colon")
        if rest.startswith("//") and (scheme or not rest.startswith("///")):
            authority, slash, path = rest[2:].partition("/")
            rest = slash + path
            user_info, host = _parse_authority(authority)
        _check_escapes(rest)
    _check_escapes(fragment)
    if scheme not in REMOTE_SCHEMES:
        return Location(text, "", "", "", text, "")
    if not host:
        raise _NotURL("no host in URL")
    if scheme in ("http", "https") and not rest.endswith("/"):
        rest += "/"
    return Location(text, scheme, user_info, host, rest, query)


def _parse_authority(authority: str) -> tuple[str, str]:
    user_info, at, host = authority.rpartition("@")
    if at:
        if _BAD_USER_CHARACTER.search(user_info):
            raise _NotURL("net/url: invalid userinfo")
        if _BAD_ESCAPE.search(user_info):
            raise _NotURL("invalid URL escape in userinfo")  # without quoting a secret
    after = host
    if host.startswith("["):
        end = host.rfind("]")
        if end < 0:
            raise _NotURL("missing ']' in host")
        after = host[end + 1 :]
    elif ":" in host:
        after = host[host.rindex(":") :]
    else:
        after = ""
    if not _PORT.match(after):
        raise _NotURL(f"invalid port {_quoted(after)} after host")
    escape = _BAD_HOST_ESCAPE.search(host)
    if escape:
        raise _NotURL(f"invalid URL escape {_quoted(escape.group())}")
    bad = _BAD_HOST_CHARACTER.search(host)
    if bad:
        raise _NotURL(f"invalid character {_quoted(bad.group())} in host name")
    return user_info, host


def _check_escapes(part: str) -> None:
    bad = _BAD_ESCAPE.search(part)
    if bad:
        raise _NotURL(f"invalid URL escape {_quoted(bad.group())}")


def _refusal(text: str, why: str) -> UsageError:
    shown = _masked(text)
    return UsageError(f"unable to parse store location {shown} : parse {_quoted(shown)}: {why}")


def _masked(text: str) -> str:
    from desync.masking import mask_location

    return mask_location(text)


def _quoted(text: str) -> str:
    """Quote as Go's %q does, as far as ASCII goes."""
    pieces = []
    for character in text:
        if character in '"\\':
            pieces.append("\\" + character)
        elif character < " " or character == "\x7f":
            pieces.append(_GO_ESCAPES.get(character) or f"\\x{ord(character):02x}")
        else:
            pieces.append(character)
    return f'"{"".join(pieces)}"'


_GO_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
