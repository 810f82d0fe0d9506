# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Mounting the tree in an archive, until somebody unmounts it or the operation is canceled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError

from desync.mounting.mount import Mount

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.mounting.archive_tree import ArchiveTree
    from desync.mounting.mount import MountPoint, Reactor


async def mount_tree(
    tree: ArchiveTree,
    mountpoint: MountPoint,
    reactor: Reactor,
    stop: Callable[[], object],
    began: Callable[[], object] = lambda: None,
) -> None:
    """
    Mount a tree, and come back when it isn't mounted any more. Cancelling unmounts it, and is no
    error.

    :param stop: called before it is unmounted; lets go whoever waits for a part of the archive.
    :param began: called when the tree can be used.
    :raises FileError: if it can't be mounted.
    """
    mount = Mount(tree, mountpoint, reactor)
    try:
        await mount.begin()
        began()
        await mount.ended
    except CancelledError:
        pass
    finally:
        stop()
        await mount.unmount()
