# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Packing the tree in a tar stream into an archive."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from desync.errors import FileError, NotArchivable
from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar_encoder import CatarEncoder
from desync.trees.reading import Owners
from desync.trees.tar_reading import TarOptions, tar_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from desync.formats.catar import Event, Metadata
    from desync.trees.content import Piece
    from desync.trees.tar_members import TarMembers

    from .tar import Packing


def pack_tar(
    members: TarMembers,
    packing: Packing,
    skipped: Callable[[bytes, str], object],
    *,
    add_root: bool = False,
    spool_limit: int = TarOptions().spool_limit,
) -> Iterator[Piece]:
    """
    Give the archive of the tree in a tar stream, piece by piece, in the stream's order.

    :param packing: the selection of nodes in it doesn't count.
    :param skipped: told the path of what is left out, and why.
    :param add_root: whether the stream may lack an entry for its root.
    :param spool_limit: how many bytes of files from a pipe are kept for hard links to them.
    :raises InvalidArchive: if it is no tar stream, or none of a tree.
    :raises FileError: if it can't be read, or something can't be recorded.
    """
    options = TarOptions(add_root, packing.as_go, spool_limit, packing.no_time)
    encoder = CatarEncoder(packing.flags, as_go=packing.as_go)
    adapt = _Owners(packing)
    path: list[bytes] = []
    for event in tar_events(members, options, skipped):
        if isinstance(event, catar.Payload):
            yield encoder.encode(event)
            continue
        if isinstance(event, catar.EndDirectory):
            path.pop()
            yield encoder.encode(event)
            continue
        here = b"/".join([*path[1:], event.name])
        if isinstance(event, catar.Directory):
            path.append(event.name)
        elif not encoder.records(event.metadata.mode):
            skipped(here, "unsupported node type")
            continue
        try:
            yield encoder.encode(adapt(event))
        except NotArchivable as error:
            raise FileError(f"{members.name}: {os.fsdecode(here)}", str(error)) from None


class _Owners:
    """Puts the owners of events as an archive has them."""

    def __init__(self, packing: Packing) -> None:
        self._owners = Owners(packing.uid_shift, packing.uid_range)
        self._numbers_for_names = (
            bool(packing.flags & feature.WITH_USER_NAMES) and not packing.flags & catar.WITH_UIDS
        )

    def __call__(self, event: Event) -> Event:
        assert not isinstance(event, (catar.EndDirectory, catar.Payload))
        metadata = event.metadata
        if self._owners.changes_ids or self._numbers_for_names:
            return event._replace(metadata=self._shifted(metadata))
        return event

    def _shifted(self, metadata: Metadata) -> Metadata:
        uid, gid = self._owners.shifted(metadata.uid), self._owners.shifted(metadata.gid)
        user, group = metadata.user, metadata.group
        if self._numbers_for_names:
            user = user or (b"%d" % uid if uid else None)
            group = group or (b"%d" % gid if gid else None)
        return metadata._replace(uid=uid, gid=gid, user=user, group=group)
