# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The paths of a chunk server: ``/abcd/abcd...ef.cacnk``, and nothing around it.

What is wrong with another path is said as Go desync's server does.
"""

from __future__ import annotations

from binascii import Error as NotHex
from binascii import unhexlify
from typing import Final

from .exchange import Refused

#: Characters of an id.
_ID: Final = 64


def parse_chunk_path(path: bytes, extension: bytes) -> bytes:
    """
    Read the id out of the path of a chunk.

    Upper-case digits count if the directory has them too.

    :param path: what was asked for, without a query.
    :param extension: of the form that is served, ``b".cacnk"`` or nothing.
    :returns: 32 bytes.
    :raises Refused: if it is no such path.
    """
    # "/", 4 digits, "/", 64 digits and the extension.
    if (
        len(path) == _ID + 6 + len(extension)
        and path[0] == 47
        and path[5] == 47
        and path.endswith(extension)
        and path[1:5] == path[6:10]
    ):
        try:
            return unhexlify(path[6 : _ID + 6])
        except NotHex:
            pass
    raise Refused(400, _why(path, extension))


def _why(path: bytes, extension: bytes) -> str:
    name = path.rpartition(b"/")[2]
    if not name.endswith(extension):
        return "invalid chunk extension, verify compression and encryption settings\n"
    text = name[: len(name) - len(extension)]
    if not extension and b"." in text:
        return (
            "requested chunk with an unexpected file extension, this server expects '<chunkid>',"
            " verify compression and encryption settings\n"
        )
    if path != b"/%b/%b" % (text[:4], name):
        shown = extension.decode("ascii")
        return f"expected format '/<prefix>/<chunkid>{shown}'\n"
    if len(text) != _ID:
        return "chunk id string not of right size\n"
    return "failed to decode chunk id string\n"
