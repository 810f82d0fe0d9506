# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Mounting the blob of an index, until somebody unmounts it or the operation is canceled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import CancelledError

from desync.errors import FileError
from desync.mounting.blob import CACHE_SIZE, Blob
from desync.mounting.copy_on_read import CopyOnRead, positions_in, read_state
from desync.mounting.mount import Mount
from desync.mounting.preload import Preload
from desync.mounting.single_file import SingleFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.formats.index import Index
    from desync.mounting.mount import MountPoint, Reactor
    from desync.mounting.supply import Supply


class Keeping(NamedTuple):
    """
    Where chunks that were read are kept.

    :param file: the file.
    :param save: where its state is saved, if it is.
    :param init: a state whose chunks are loaded in the background if the file doesn't have them.
    :param loaders: by how many threads.
    """

    file: str
    save: str | None = None
    init: str | None = None
    loaders: int = 10


class Kept(NamedTuple):
    """
    The file of a :class:`Keeping`, open.

    :ivar file: it.
    :ivar init: the state whose chunks are to be loaded, if there are any.
    """

    file: CopyOnRead
    init: bytes | None


def open_kept(keeping: Keeping, index: Index, say: Callable[[str], object]) -> Kept:
    """
    Open the file where chunks are kept.

    What is in it is taken over if it is as large as the blob and its saved state is one for this
    index. Otherwise it begins empty.

    :param say: told in a line if chunks can't be kept any more; called in any thread.
    :raises FileError: if the file or the state to begin with can't be used.
    """
    state = init = None
    if keeping.save is not None:
        try:
            if os.stat(keeping.file).st_size == index.size:
                state = read_state(keeping.save, index)
        except (OSError, FileError):
            pass  # nothing to go on from
    if state is None and keeping.init is not None:
        init = read_state(keeping.init, index)
    return Kept(CopyOnRead(keeping.file, index, say, state), init)


class MountedIndex:
    """
    The blob of an index, mounted as a file.

    :param index: what is mounted.
    :param name: of the file.
    :param mountpoint: where.
    :param supply: where chunks come from.
    :param say: told in a line what goes wrong; called in any thread.
    :param keeping: where chunks that were read are kept, if they are.
    :param cache_size: bytes of decoded chunks that are held in memory.
    """

    def __init__(
        self,
        index: Index,
        name: str,
        mountpoint: MountPoint,
        supply: Supply,
        reactor: Reactor,
        say: Callable[[str], object],
        *,
        keeping: Keeping | None = None,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        self._say = say
        self._keeping = keeping
        self._kept = None if keeping is None else open_kept(keeping, index, say)
        kept = None if self._kept is None else self._kept.file
        self._blob = Blob(index, supply, say, cache_size=cache_size, kept=kept)
        self._mount = Mount(SingleFile(self._blob, name), mountpoint, reactor)
        self._preload: Preload | None = None
        if keeping is not None and self._kept is not None and self._kept.init is not None:
            positions = positions_in(self._kept.init, index)
            self._preload = Preload(self._blob, positions, keeping.loaders, say)

    async def run(self, began: Callable[[], object] = lambda: None) -> None:
        """
        Mount it, and come back when it isn't mounted any more. Cancelling unmounts it, and is no
        error.

        :param began: called when it can be used.
        :raises FileError: if it can't be mounted, or the state can't be saved at the end.
        """
        try:
            await self._mount.begin()
            if self._preload is not None:
                self._preload.start()
            began()
            await self._mount.ended
        except CancelledError:
            pass
        finally:
            if self._preload is not None:
                self._preload.stop()
            self._blob.stop()
            await self._mount.unmount()
            self._save_at_end()

    def _save_at_end(self) -> None:
        if self._kept is None:
            return
        try:
            self.save_state()
        finally:
            self._kept.file.close()

    def save_state(self) -> None:
        """
        Save which chunks are kept, if that was asked for. It blocks until they are on the disk.

        :raises FileError: if it can't be saved.
        """
        if self._kept is None or self._keeping is None or self._keeping.save is None:
            return
        try:
            self._kept.file.save(self._keeping.save)
        except FileError as error:
            raise FileError(self._keeping.save, f"failed to save state: {error}") from None
