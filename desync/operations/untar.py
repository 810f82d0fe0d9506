# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Unpacking archives, whole or stored in chunks, into a directory or as a tar stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from desync.assembly.reading import read_local
from desync.errors import FileError, describe_os_error
from desync.formats.catar_decoder import CatarDecoder

if TYPE_CHECKING:
    from desync.assembly.fetch import ChunkDownloads
    from desync.formats.catar import Event
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.stores.local_files import LocalFiles

ReadInto: TypeAlias = Callable[[memoryview], int]
"""Fills a part of a buffer and says how much; 0 at the end."""

_STEP: Final = 1 << 20


class TakesEvents(Protocol):
    """What an archive is unpacked to."""

    def take(self, events: Sequence[Event], flags: int) -> None:
        """
        Take the next events.

        :param flags: the archive's feature flags.
        """


def untar_archive(
    readinto: ReadInto, name: str, size: int, output: TakesEvents, progress: Progress
) -> None:
    """
    Unpack an archive from a file or a stream.

    :param name: the archive, as errors name it.
    :param size: how many bytes it has, for the progress; 0 if that isn't known.
    :raises InvalidArchive: if it isn't one; what came before the bad place is unpacked.
    :raises FileError: if it can't be read, or something can't be made.
    """
    decoder = CatarDecoder(name)
    with progress.start("Unpacking", size, "bytes") as tracker:
        buffer = bytearray(_STEP)
        while not decoder.complete:
            # Events refer to the buffer, but not for longer than they are being taken.
            try:
                data = memoryview(buffer)[: readinto(memoryview(buffer))]
            except OSError as error:
                raise FileError(name, error.strerror or describe_os_error(error)) from None
            if not data:
                break
            output.take(decoder.feed(data), decoder.flags)
            tracker.add(len(data))
        decoder.finish()


async def untar_index(
    index: Index,
    name: str,
    source: tuple[LocalFiles, ...] | ChunkDownloads,
    output: TakesEvents,
    progress: Progress,
    concurrency: int = 1,
) -> None:
    """
    Unpack an archive that is stored in chunks. They are fetched ahead of need, in order.

    With local stores it never suspends; otherwise what is unpacked is written in threads.

    :param name: the index, as errors name it.
    :param concurrency: how many threads read and decode chunks of local stores.
    :raises InvalidArchive: if it isn't one; what came before the bad place is unpacked.
    :raises FileError: if something can't be made.
    :raises ChunkMissing, ChunkInvalid, StoreError: as the stores do.
    """
    decoder = CatarDecoder(name)
    with progress.start("Unpacking", len(index), "chunks") as tracker:

        def take(batch: list[bytes]) -> None:
            for plain in batch:
                output.take(decoder.feed(plain), decoder.flags)
                tracker.add(1)

        if isinstance(source, tuple):
            for batch in read_local(index, source, 0, len(index), concurrency):
                take(batch)
        else:
            await source.stream_ahead(index, 0, len(index), take)
        decoder.finish()
