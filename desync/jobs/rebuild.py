# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of rebuilding a file from local stores.

Workers open the stores and the target themselves. A unit is a run of neighboring chunks: read,
decoded, verified together, and written with one call. Repeats are copied from where the target has
them already, after everything has been fetched.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, Final

from desync.assembly.local_chunks import read_from, verify
from desync.assembly.writing import copy_within, write_all
from desync.chunking.digests import Digest
from desync.errors import FileError, describe_os_error
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from desync.assembly.plan import Copy, Plan

#: The most chunks, and bytes of them, in a unit.
_CHUNKS: Final = 64
_BYTES: Final = 4 << 20

#: The most copies in a unit; when they come to more than _BYTES there are no further ones in it.
_COPIES: Final = 1024

_FETCH: Final = struct.Struct("<BQI")
_COPY: Final = struct.Struct("<QQQ")
_RESULT: Final = struct.Struct("<IQ")
_IS_FETCH: Final = 0
_IS_COPY: Final = 1


class RebuildJob:
    """
    The parent's half.

    :param plan: what comes from where.
    :param target: the file to write, which exists and has its final size; it reads as zeros where
        nothing is written.
    :param stores: asked in turn for each chunk.
    :param progress: told of chunks as they are done.
    :param shown: how errors name the target; its path if None.
    :ivar fetched_bytes: bytes of the target that came from the stores.
    """

    worker_half = "desync.jobs.rebuild:RebuildWorker"
    leases = 2

    def __init__(
        self,
        plan: Plan,
        target: str,
        stores: Sequence[LocalFiles],
        digest: Digest,
        progress: Callable[[int], object],
        shown: str | None = None,
    ) -> None:
        self._plan = plan
        self._target = target
        self._shown = target if shown is None else shown
        self._stores = stores
        self._digest = digest
        self._progress = progress
        self._runs = plan.runs(_CHUNKS, _BYTES)
        self._copies = plan.copies()
        self._phase = _IS_FETCH
        self._underway = 0
        self._next: bytes | None = None
        self.exhausted = False
        self.fetched_chunks = 0
        self.fetched_bytes = 0
        self.small = plan.totals.fetched_bytes <= _BYTES // 4
        self._advance()

    def settings(self) -> dict[str, Any]:
        return {
            "target": os.fsencode(self._target),
            "shown": self._shown,
            "stores": [store.settings() for store in self._stores],
            "digest": self._digest.name,
        }

    def _advance(self) -> None:
        """Get the next unit ready; repeats wait until what they repeat is there."""
        self._next = None
        if self._phase == _IS_FETCH:
            run = next(self._runs, None)
            if run is not None:
                self._next = self._pack_run(*run)
                return
            if self._underway:
                return
            self._phase = _IS_COPY
        copy = next(self._copies, None)
        if copy is not None:
            self._next = self._pack_copies(copy)
        else:
            self.exhausted = True

    def _pack_run(self, begin: int, end: int) -> bytes:
        chunks = list(self._plan.index.chunks(begin, end))
        lengths = struct.pack(f"<{len(chunks)}I", *(length for _, length, _ in chunks))
        ids = b"".join(chunk_id for _, _, chunk_id in chunks)
        return _FETCH.pack(_IS_FETCH, chunks[0][0], len(chunks)) + lengths + ids

    def _pack_copies(self, copy: Copy | None) -> bytes:
        unit = bytearray([_IS_COPY])
        size = 0
        while copy is not None:
            unit += _COPY.pack(*copy)
            size += copy.length
            full = size >= _BYTES or len(unit) > _COPIES * _COPY.size
            copy = None if full else next(self._copies, None)
        return bytes(unit)

    def next_unit(self) -> bytes | None:
        unit = self._next
        if unit is not None:
            self._underway += 1
            self._advance()
        return unit

    def note(self, payload: bytes) -> None:
        raise RuntimeError("a rebuild has nothing to note")

    def result(self, payload: bytes) -> None:
        chunks, size = _RESULT.unpack(payload)
        self._underway -= 1
        self.fetched_chunks += chunks
        self.fetched_bytes += size
        self._progress(chunks)
        if self._next is None and not self.exhausted:
            self._advance()

    def check_complete(self) -> None:
        """Make sure that the workers did all that was planned."""
        totals = self._plan.totals
        if (self.fetched_chunks, self.fetched_bytes) != (
            totals.fetched_chunks,
            totals.fetched_bytes,
        ):
            raise RuntimeError(
                f"{self.fetched_chunks} of {totals.fetched_chunks} chunks were written"
            )
        if self._underway or not self.exhausted:
            raise RuntimeError("not all that is repeated was copied")


class RebuildWorker:
    """The worker's half."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._stores = [
            LocalFiles.from_settings(store, set_modes=False) for store in settings["stores"]
        ]
        self._digest = Digest.named(settings["digest"])
        self._path = settings["shown"]
        self._descriptor = os.open(settings["target"], os.O_RDWR | os.O_CLOEXEC)

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        try:
            if unit[0] == _IS_COPY:
                for source, target, length in _COPY.iter_unpack(memoryview(unit)[1:]):
                    copy_within(self._descriptor, source, target, length)
                return _RESULT.pack(0, 0)
            _, start, count = _FETCH.unpack_from(unit)
            lengths_end = _FETCH.size + 4 * count
            lengths = struct.unpack_from(f"<{count}I", unit, _FETCH.size)
            return _RESULT.pack(count, self._fetch(start, lengths, unit[lengths_end:]))
        except EOFError as error:
            raise FileError(self._path, str(error)) from None
        except OSError as error:
            raise FileError(self._path, error.strerror or describe_os_error(error)) from None

    def _fetch(self, start: int, lengths: Sequence[int], ids: bytes) -> int:
        buffers = []
        unverified = []
        for position, length in enumerate(lengths):
            chunk_id = ids[32 * position : 32 * position + 32]
            plain, store = read_from(self._stores, chunk_id, length)
            buffers.append(plain)
            if not store.skip_verify:
                unverified.append((position, store))
        verify(self._digest, buffers, ids, unverified)
        write_all(self._descriptor, buffers, start)
        return sum(lengths)

    def close(self) -> None:
        os.close(self._descriptor)
