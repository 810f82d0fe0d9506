# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Keeping secrets out of messages, logs, progress and ``desync config``.

Locations carry secrets in their userinfo (``https://user:password@host``), and in the values of
their query strings (signed URLs). What the configuration holds (tokens, keys, cookies) is known by
its exact text. Everything that is shown to a user goes through here, unless ``--show-secrets``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

# Query parameters whose values say how to reach a store and are no secrets.
_HARMLESS_PARAMETERS = frozenset({"lookup"})
# In these schemes a name without a password is a user's name; elsewhere it may well be a token.
_USER_SCHEMES = frozenset({"ssh", "sftp"})

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>|`]+")
# Only what looks like a token: messages speak of "Basic authentication" too.
_BASIC = re.compile(
    r"\b(Basic\s+)[A-Za-z0-9+/]{4}"
    r"(?:(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)|(?:[A-Za-z0-9+/]{4})+)"
    r"(?![A-Za-z0-9+/=])"
)
_BEARER = re.compile(r"\b(Bearer\s+)(?=\S*[0-9._~+/=-])[A-Za-z0-9._~+/=-]{8,}")
_HEADER = re.compile(
    r"\b((?:Proxy-)?Authorization|Set-Cookie|Cookie)(\s*[:=]\s*)[^\r\n]+", re.IGNORECASE
)
_AUTHORITY_END = re.compile(r"[/?#]")
_PATH_END = re.compile(r"[?#]")
_PORT = re.compile(r"^(?:[^:\[]*|\[[^\[\]]*\])(?::[0-9]*)?$")
_SHORTEST_SECRET = 4


def mask_location(location: str) -> str:
    """
    Hide the secrets of a store's or an index's location.

    A failover group (``a|b``) is masked member by member. A local path comes back as it is.

    :return: the location with ``***`` in the place of passwords, tokens and query values.
    """
    if "|" in location:
        return "|".join(mask_location(member) for member in location.split("|"))
    scheme, separator, rest = location.partition("://")
    if not separator or not scheme.isascii() or not scheme[:1].isalpha():
        return location
    userinfo, at_sign, rest = _split_userinfo(rest)
    rest, hash_sign, fragment = rest.partition("#")
    rest, question_mark, query = rest.partition("?")
    host, slash, path = rest.partition("/")
    if at_sign:
        userinfo = _mask_userinfo(scheme.lower(), userinfo)
    masked = f"{scheme}://{userinfo}{at_sign}{host}{slash}{path}{question_mark}{_mask_query(query)}"
    return masked + hash_sign + (MASK if fragment else "")


def mask_secrets(text: str, known: Iterable[str] = ()) -> str:
    """
    Hide the secrets in a whole message.

    :param known: secrets by their exact text, such as those of the configuration; very short ones
        are left alone, because hiding them would make every message unreadable.
    """
    for secret in sorted(set(known), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    text = _HEADER.sub(rf"\1\2{MASK}", text)
    text = _BASIC.sub(rf"\1{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    if "://" in text:
        text = _URL.sub(_mask_url, text)
    return text


def _mask_url(found: re.Match[str]) -> str:
    # Punctuation after a URL belongs to the sentence.
    url = found[0].rstrip(".,:;!)]}")
    return mask_location(url) + found[0][len(url) :]


def _split_userinfo(rest: str) -> tuple[str, str, str]:
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    # A password may hold an unescaped @: what counts is the last one.
    end = authority.rfind("@")
    if end >= 0 and ":" in authority[:end]:
        # It may hold a slash too, behind an @. Rather a host is hidden, where there is an @ in the
        # path, than a part of a password shown.
        end = _PATH_END.split(rest, maxsplit=1)[0].rfind("@")
    elif end < 0 and not _PORT.search(authority):
        # What looks like a host and a port that's no number may be a user and a password with an
        # unescaped slash. No such URL works, but it's shown in the message that says so.
        end = rest.rfind("@")
    return (rest[:end], "@", rest[end + 1 :]) if end >= 0 else ("", "", rest)


def _mask_userinfo(scheme: str, userinfo: str) -> str:
    user, colon, _password = userinfo.partition(":")
    if colon:
        return f"{user}:{MASK}"
    return userinfo if scheme in _USER_SCHEMES or not userinfo else MASK


def _mask_query(query: str) -> str:
    return "&".join(_mask_parameter(parameter) for parameter in query.split("&"))


def _mask_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        # A lone word may be a token.
        return MASK if name else ""
    if name in _HARMLESS_PARAMETERS or not value:
        return parameter
    return f"{name}={MASK}"
