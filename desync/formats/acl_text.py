# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Access control lists as tar streams have them, in the PAX records ``SCHILY.acl.access`` and
``SCHILY.acl.default``: entries such as ``user::rw-`` and ``user:1000:r--``, separated by commas or
lines. star and libarchive add the number behind a name: ``user:lisa:r--:1000``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from .posix_acl import PosixAcl

FindId: TypeAlias = Callable[[str], int | None]
"""Gives the id of a name; None if there is none."""

#: Longer texts are refused. The lists of Linux have less than 64 KiB.
_LIMIT: Final = 1 << 20

_ENTRY: Final = re.compile(r"([a-z]+):([^:]*):([-rwx]{1,3})(?::(\d{1,10}))?\Z")
_KINDS: Final = {"u": "user", "g": "group", "m": "mask", "o": "other"}
_BITS: Final = {"r": 4, "w": 2, "x": 1, "-": 0}


def write(acl: PosixAcl) -> str:
    """Give the text of a list, with numbers where others have names."""
    entries = [f"user::{_text(acl.user_obj)}"]
    entries += (f"user:{uid}:{_text(bits)}" for uid, bits in acl.users)
    entries.append(f"group::{_text(acl.group_obj)}")
    entries += (f"group:{gid}:{_text(bits)}" for gid, bits in acl.groups)
    if acl.mask is not None:
        entries.append(f"mask::{_text(acl.mask)}")
    entries.append(f"other::{_text(acl.other)}")
    return ",".join(entries)


def _text(bits: int) -> str:
    return "".join(letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))


def read(text: str, find_user: FindId, find_group: FindId) -> PosixAcl:
    """
    Read the text of a list.

    :raises ValueError: if it isn't one, or has a name that can't be found.
    """
    if len(text) > _LIMIT:
        raise ValueError("an access control list that is too long")
    single: dict[str, int] = {}
    users: list[tuple[int, int]] = []
    groups: list[tuple[int, int]] = []
    for entry in re.split(r"[,\n]", text):
        entry = entry.partition("#")[0].strip()
        if not entry:
            continue
        found = _ENTRY.match(entry)
        if found is None:
            raise ValueError(f"an access control list with {entry[:40]!r}")
        kind, name, letters, number = found.groups()
        kind = _KINDS.get(kind, kind)
        bits = sum(_BITS[letter] for letter in set(letters))
        if name and kind in ("user", "group"):
            find = find_user if kind == "user" else find_group
            named = users if kind == "user" else groups
            named.append((_number(name, number, find), bits))
        elif kind in ("user", "group", "mask", "other") and kind not in single:
            single[kind] = bits
        else:
            raise ValueError(f"an access control list with {entry[:40]!r}")
    if not {"user", "group", "other"} <= single.keys():
        raise ValueError("an access control list that is incomplete")
    mask = single.get("mask")
    if mask is None and (users or groups):
        # As setfacl fills it in.
        mask = single["group"]
        for _, bits in [*users, *groups]:
            mask |= bits
    return PosixAcl(
        single["user"],
        single["group"],
        single["other"],
        mask,
        tuple(sorted(users)),
        tuple(sorted(groups)),
    )


def _number(name: str, number: str | None, find: FindId) -> int:
    if number is None and name.isascii() and name.isdigit():
        number = name
    found = find(name) if number is None else int(number)
    if found is None or not 0 <= found < 0xFFFFFFFF:
        raise ValueError(f"an access control list with the unknown name {name[:40]!r}")
    return found
