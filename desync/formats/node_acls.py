# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The access control lists of a node of an archive, put together as Linux has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .catar import AclEntry, Metadata
from .posix_acl import PosixAcl

FindOwner: TypeAlias = Callable[[AclEntry], int]
"""Gives the id here of who an entry is about."""


def _number(entry: AclEntry) -> int:
    return entry.id


def access_acl(
    metadata: Metadata, user: FindOwner = _number, group: FindOwner = _number
) -> PosixAcl | None:
    """
    Give who may do what with a node.

    :returns: None if the mode says it all.
    """
    acl = metadata.acl
    if acl is None or acl.group_obj is None:
        return None
    mode = metadata.mode
    return PosixAcl(
        mode >> 6 & 7,
        acl.group_obj,
        mode & 7,
        mode >> 3 & 7,
        tuple((user(entry), entry.permissions) for entry in acl.users),
        tuple((group(entry), entry.permissions) for entry in acl.groups),
    )


def default_acl(
    metadata: Metadata, user: FindOwner = _number, group: FindOwner = _number
) -> PosixAcl | None:
    """Give what a directory gives to what is made in it; None if it doesn't."""
    acl = metadata.default_acl
    if acl is None:
        return None
    return PosixAcl(
        acl.user_obj,
        acl.group_obj,
        acl.other,
        acl.mask,
        tuple((user(entry), entry.permissions) for entry in acl.users),
        tuple((group(entry), entry.permissions) for entry in acl.groups),
    )
