# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Packing a directory tree into an archive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from desync.errors import StoreError
from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar_encoder import CatarEncoder
from desync.formats.index import IndexBuilder
from desync.jobs.pack import PackJob
from desync.stores.local_files import LocalFiles
from desync.trees.reading import MetadataReader, Owners
from desync.trees.walking import Selection, TreeWalk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.formats.index import Index
    from desync.jobs.cut import CutSegment
    from desync.progress import Progress
    from desync.trees.content import Piece
    from desync.trees.uploading import StreamUploads
    from desync.workers.pool import Runner

#: Seconds. Far less than the age that prune spares, so that what is not looked for again is young.
RECHECK_AFTER: Final = 60.0


class Packing(NamedTuple):
    """
    How a tree is packed.

    :ivar flags: the archive's feature flags.
    :ivar as_go: whether it is to be what Go desync writes, not what casync writes.
    :ivar selection: what is left out.
    :ivar no_time: whether all times are 0.
    :ivar with_fifos: whether fifos and sockets are recorded, which Go desync leaves out.
    :ivar uid_shift: what is taken from every owner's id.
    :ivar uid_range: owners' ids are taken modulo this; None for all.
    """

    flags: int = catar.GO_FLAGS
    as_go: bool = True
    selection: Selection = Selection()
    no_time: bool = False
    with_fifos: bool = False
    uid_shift: int = 0
    uid_range: int | None = None


def pack(
    root: bytes,
    packing: Packing,
    skipped: Callable[[bytes, str], object],
    output: tuple[int, int] | None = None,
) -> Iterator[Piece]:
    """
    Give the archive of a directory, piece by piece.

    :param skipped: told the path of a node, and why it is left out although nobody asked for that.
    :param output: device and inode of the file that the archive is written to.
    :raises FileError: if something can't be read or recorded; the archive is of no use then.
    """
    flags = packing.flags
    owners = Owners(
        packing.uid_shift,
        packing.uid_range,
        names=bool(flags & feature.WITH_USER_NAMES),
        numbers_for_names=not flags & catar.WITH_UIDS,
    )
    reader = MetadataReader(flags, owners, as_go=packing.as_go, no_time=packing.no_time)
    encoder = CatarEncoder(flags, as_go=packing.as_go, with_fifos=packing.with_fifos)
    return TreeWalk(root, encoder, reader, packing.selection, skipped, output).pieces()


class Packed(NamedTuple):
    """
    What a tree was packed into.

    :ivar caidx: the index of the archive, not written anywhere yet.
    :ivar stored: how many chunks were new to the store.
    :ivar stored_bytes: the size of those as they are stored.
    """

    caidx: Index
    stored: int
    stored_bytes: int


async def store_archive(
    pieces: Iterable[Piece],
    flags: int,
    sizes: ChunkSizes,
    digest: Digest,
    pool: Runner,
    progress: Progress,
    store: LocalFiles | StreamUploads,
    recheck_after: float = RECHECK_AFTER,
) -> Packed:
    """
    Cut an archive into chunks while it is being made, and store those that the store doesn't have.

    When this returns, every chunk that the index names is in the store. With a local store it never
    suspends.

    :param flags: the archive's feature flags.
    :param recheck_after: when it took this long, in seconds, the chunks are looked for again at
        the end: a prune may have taken those of the beginning for old and unneeded.
    :raises FileError: if a file can't be read, or changes meanwhile.
    :raises StoreError: if the store failed.
    """
    word = feature.normalize(flags & ~feature.SHA512_256 | digest.feature_flag)
    builder = IndexBuilder(sizes, digest, word)
    began = time.monotonic()
    with progress.start("Packing", 0, "bytes") as tracker:
        if not isinstance(store, LocalFiles):

            def add(ends: Sequence[int], ids: bytes) -> None:
                builder.append_segment(ends, ids, builder.size)
                tracker.set(builder.size)

            uploaded = await store.upload(pieces, sizes, digest, add)
            return Packed(builder.finish(), uploaded.chunks, uploaded.stored_bytes)
        stored = stored_bytes = 0

        def take(segment: CutSegment) -> None:
            nonlocal stored, stored_bytes
            builder.append_segment(segment.ends, segment.ids, segment.start)
            stored += segment.stored
            stored_bytes += segment.stored_bytes
            tracker.set(builder.size)

        with PackJob(pieces, sizes, digest, take, store) as job:
            await pool.run(job)
        index = builder.finish(job.check_complete())
    if time.monotonic() - began >= recheck_after:
        gone = sum(not store.renew(chunk_id) for chunk_id in index.ids.sorted_unique())
        if gone:
            raise StoreError(
                store.location, f"{gone} chunks were removed while the tree was being packed"
            )
    return Packed(index, stored, stored_bytes)
