# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What S3 answers, in XML: errors, listings, and what wasn't removed. No input or output."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from .objects import Listed, Page, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Bytes that the answers to a listing and a removal may have. A page has a thousand keys of at most
#: 1024 bytes, which may be escaped.
LIST_LIMIT: Final = 16 << 20


class Malformed(ValueError):
    """An answer that can't be understood."""


class Trouble(NamedTuple):
    """
    What an error says.

    :ivar code: S3's word for it; empty if it isn't S3's.
    :ivar region: the right one, where it tells that.
    :ivar endpoint: the right one, where it tells that.
    """

    code: str = ""
    message: str = ""
    region: str = ""
    endpoint: str = ""
    request_id: str = ""


def parse_error(body: bytes) -> Trouble:
    """Read an error; of one that isn't S3's nothing is known."""
    try:
        root = _parse(body)
    except Malformed:
        return Trouble()
    if _name(root) != "Error":
        return Trouble()
    found = {_name(child): shown(child.text or "") for child in root}
    return Trouble(
        found.get("Code", ""),
        found.get("Message", ""),
        found.get("Region", ""),
        found.get("Endpoint", ""),
        found.get("RequestId", ""),
    )


def parse_page(body: bytes) -> Page:
    """
    Read a page of a listing (ListObjectsV2, with keys escaped as in URLs).

    :raises Malformed: if it isn't one.
    """
    root = _parse(body)
    if _name(root) != "ListBucketResult":
        raise Malformed(f"it is a {shown(_name(root))}, not a listing")
    objects = []
    token, truncated, is_escaped = "", False, False
    for child in root:
        match _name(child):
            case "Contents":
                objects.append({_name(field): field.text or "" for field in child})
            case "NextContinuationToken":
                token = child.text or ""
            case "IsTruncated":
                truncated = child.text == "true"
            case "EncodingType":
                is_escaped = child.text == "url"
    if truncated and not token:
        raise Malformed("the listing is truncated, but can't be continued")
    try:
        listed = [_listed(fields, is_escaped) for fields in objects]
    except (KeyError, ValueError):
        raise Malformed("an object in the listing has no key, size or date") from None
    return Page(listed, token if truncated else "")


def _listed(fields: dict[str, str], is_escaped: bool) -> Listed:
    key = fields["Key"]
    if is_escaped:
        key = unquote_plus(key, errors="surrogateescape")
    modified = datetime.fromisoformat(fields["LastModified"])
    if modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    return Listed(key, int(fields["Size"]), modified.timestamp())


def removal(keys: Iterable[str]) -> bytes:
    """Write the request to remove some objects, answered by what couldn't be removed."""
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    text = f"<Delete><Quiet>true</Quiet>{objects}</Delete>"
    return f'<?xml version="1.0" encoding="UTF-8"?>{text}'.encode()


def parse_removal(body: bytes) -> dict[str, Trouble]:
    """
    Read what couldn't be removed.

    :raises Malformed: if that isn't what it says.
    """
    root = _parse(body)
    if _name(root) != "DeleteResult":
        raise Malformed(f"it is a {shown(_name(root))}, not the result of a removal")
    failed = {}
    for child in root:
        if _name(child) == "Error":
            found = {_name(field): field.text or "" for field in child}
            failed[found.get("Key", "")] = Trouble(
                shown(found.get("Code", "")), shown(found.get("Message", ""))
            )
    return failed


def _parse(body: bytes) -> ElementTree.Element:
    # None of S3's answers has a document type, which is where entities would be defined.
    if b"<!" in body:
        raise Malformed("its XML has declarations")
    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError):
        raise Malformed("it is no XML") from None


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
