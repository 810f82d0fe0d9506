# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Figures about an index: how many chunks it has, and how many of them are where already."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from desync.chunking import kernels
from desync.errors import FileError, StoreError
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from desync.formats.chunk_sizes import KnownSizes
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.interfaces import IBatch

_ITEM: Final = struct.Struct("<Q32s")
_END: Final = struct.Struct("<Q")

_IN_SEED: Final = 1
_IN_CACHE: Final = 2


class Info(NamedTuple):
    """
    Figures about an index. Sizes are in bytes; all but `total` and `size` count a repeated chunk
    once.

    The names, dashes for underscores, and their order are those of Go desync's output.
    """

    total: int
    unique: int
    in_store: int
    in_seed: int
    in_cache: int
    not_in_seed_nor_cache: int
    size: int
    dedup_size_not_in_seed: int
    dedup_size_not_in_seed_nor_cache: int
    dedup_size_not_in_seed_nor_cache_compressed: int
    chunk_size_min: int
    chunk_size_avg: int
    chunk_size_max: int

    def to_json(self) -> dict[str, int]:
        """Give the figures as Go desync names them in JSON."""
        return {name.replace("_", "-"): value for name, value in self._asdict().items()}

    def to_plain(self) -> str:
        """Give the figures as Go desync writes them for people, a line each."""
        return "".join(f"{_LABELS[name]}: {getattr(self, name)}\n" for name in _LABELS)


# In the order of the lines.
_LABELS: Final = {
    "size": "Blob size",
    "dedup_size_not_in_seed": "Size of deduplicated chunks not in seed",
    "dedup_size_not_in_seed_nor_cache": "Size of deduplicated chunks not in seed nor cache",
    "total": "Total chunks",
    "unique": "Unique chunks",
    "in_store": "Chunks in store",
    "in_seed": "Chunks in seed",
    "in_cache": "Chunks in cache",
    "not_in_seed_nor_cache": "Chunks not in seed nor cache",
    "dedup_size_not_in_seed_nor_cache_compressed": "Compressed chunks not in seed nor cache",
    "chunk_size_min": "Chunk size min",
    "chunk_size_avg": "Chunk size avg",
    "chunk_size_max": "Chunk size max",
}


async def info(
    index: Index,
    seeds: Iterable[Index] = (),
    source: Sequence[LocalFiles] | IBatch = (),
    cache: LocalFiles | IBatch | None = None,
    sizes: KnownSizes | None = None,
    sizes_path: str = "",
    warn: Callable[[str], object] = lambda text: None,
) -> Info:
    """
    Add up the figures about an index. With local stores it never suspends.

    Beside the index this takes less memory than another one like it; besides one seed at a time.

    :param seeds: indexes of what is there already; each is taken when it is its turn.
    :param source: where the chunks are asked for.
    :param cache: likewise, for those that needn't be fetched.
    :param sizes: what chunks take when they are compressed.
    :param sizes_path: how errors name the file that `sizes` is from.
    :param warn: told, in a line, that a store couldn't say what it has; it is then taken not to
        have it.
    :raises FileError: if `sizes` has another length for a chunk than the index.
    """
    unique = index.ids.sorted_unique()
    places = bytearray(len(unique))
    for seed in seeds:
        ids = seed.ids.sorted_unique()
        del seed
        common = unique.intersection(ids)
        del ids
        _mark(places, unique, common, _IN_SEED)
        del common
    if cache is not None:
        stores = (cache,) if isinstance(cache, LocalFiles) else cache
        for number in await _present(stores, unique, warn):
            places[number] |= _IN_CACHE
    in_store = sum(1 for _ in await _present(source, unique, warn))
    sums = _add_up(index, places, sizes, sizes_path)
    return Info(
        total=len(index),
        unique=len(unique),
        in_store=in_store,
        in_seed=sum(1 for place in places if place & _IN_SEED),
        in_cache=sum(1 for place in places if place & _IN_CACHE),
        not_in_seed_nor_cache=places.count(0),
        size=index.size,
        dedup_size_not_in_seed=sums[0],
        dedup_size_not_in_seed_nor_cache=sums[1],
        dedup_size_not_in_seed_nor_cache_compressed=sums[2],
        chunk_size_min=index.sizes.min,
        chunk_size_avg=index.sizes.avg,
        chunk_size_max=index.sizes.max,
    )


def _mark(places: bytearray, unique: ChunkIds, some: ChunkIds, mark: int) -> None:
    """Mark those of some sorted ids that are among others."""
    rest = iter(some)
    wanted = next(rest, None)
    for number, chunk_id in enumerate(unique):
        if wanted is None:
            return
        if chunk_id == wanted:
            places[number] |= mark
            wanted = next(rest, None)


async def _present(
    source: Sequence[LocalFiles] | IBatch, ids: ChunkIds, warn: Callable[[str], object]
) -> Iterator[int]:
    """Find the numbers of the ids whose chunks a store has."""
    if isinstance(source, (tuple, list)):
        return _present_in_files(source, ids, warn)
    try:
        missing = await source.missing(ids)  # type: ignore[union-attr]
    except StoreError as error:
        warn(f"{error}: its chunks are not counted")
        return iter(())
    return _numbers_beside(ids, missing)


def _present_in_files(
    stores: Sequence[LocalFiles], ids: ChunkIds, warn: Callable[[str], object]
) -> Iterator[int]:
    warned = False
    for number, chunk_id in enumerate(ids):
        try:
            if any(store.has(chunk_id) for store in stores):
                yield number
        except StoreError as error:
            if not warned:
                warn(f"{error}: it is not counted")
            warned = True


def _numbers_beside(ids: ChunkIds, missing: ChunkIds) -> Iterator[int]:
    rest = iter(missing)
    lacking = next(rest, None)
    for number, chunk_id in enumerate(ids):
        if chunk_id == lacking:
            lacking = next(rest, None)
        else:
            yield number


def _add_up(
    index: Index, places: bytearray, sizes: KnownSizes | None, sizes_path: str
) -> tuple[int, int, int]:
    not_in_seed = needed = compressed = 0
    estimated = sizes is not None
    for place, (chunk_id, length) in zip(places, _unique_chunks(index), strict=True):
        if not place & _IN_SEED:
            not_in_seed += length
        if place:
            continue
        needed += length
        if sizes is None:
            continue
        found = sizes.find(chunk_id)
        if found is not None and found[0] != length:
            raise FileError(
                sizes_path,
                "the chunks info file has an unexpected size for the chunk"
                f" {chunk_id.hex()}: {found[0]} instead of {length}",
            )
        if found is None or not found[1]:
            # A sum that lacks something would be taken for one that doesn't.
            estimated = False
        else:
            compressed += found[1]
    return not_in_seed, needed, compressed if estimated else 0


def _unique_chunks(index: Index) -> Iterator[tuple[bytes, int]]:
    """Walk through the different ids of an index, ascending, with the length at the first place."""
    ids, table = index.ids, index.table
    order = memoryview(kernels.sort_ids(*ids.layout)).cast("I")
    last = None
    for position in order:
        offset = position * 40
        end, chunk_id = _ITEM.unpack_from(table, offset)
        if chunk_id != last:
            last = chunk_id
            start = _END.unpack_from(table, offset - 40)[0] if position else 0
            yield chunk_id, end - start
