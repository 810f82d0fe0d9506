# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A sink for tests: it keeps what it is given, and whoever breaks the rules is found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from zope.interface import implementer

from desync.formats.ids import ID_SIZE, ChunkIds
from desync.interfaces import IChunkSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.interfaces import IChunkRemover


@implementer(IChunkSink)
class CollectingSink:
    """
    Keeps what a store hands over.

    :param react: called with every batch; what it returns or raises, so does :meth:`chunks`.
    :ivar found: the chunks by their ids.
    :ivar missing: the ids that were absent.
    :ivar errors: for each id that failed, what with.
    :ivar batches: how many chunks came together, each time.
    :ivar calls: how often the sink was called at all.
    :ivar violations: what the store must not have done, in words.
    """

    def __init__(
        self, react: Callable[[Sequence[Chunk]], Deferred[None] | None] = lambda batch: None
    ) -> None:
        self._react = react
        self._pressing: Deferred[None] | None = None
        self.found: dict[bytes, Chunk] = {}
        self.missing: list[bytes] = []
        self.errors: dict[bytes, BaseException] = {}
        self.batches: list[int] = []
        self.calls = 0
        self.violations: list[str] = []

    def _end(self, chunk_id: bytes) -> None:
        if chunk_id in self.found or chunk_id in self.errors or chunk_id in self.missing:
            self.violations.append(f"{chunk_id.hex()} ended twice")

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        """See :meth:`desync.interfaces.IChunkSink.chunks`."""
        self.calls += 1
        self.batches.append(len(batch))
        if not batch:
            self.violations.append("an empty batch")
        if self._pressing is not None and not self._pressing.called:
            self.violations.append("chunks in spite of back-pressure")
        for chunk in batch:
            self._end(chunk.chunk_id)
            self.found[chunk.chunk_id] = chunk
        self._pressing = self._react(batch)
        return self._pressing

    def absent(self, ids: ChunkIds) -> None:
        """See :meth:`desync.interfaces.IChunkSink.absent`."""
        self.calls += 1
        for chunk_id in ids:
            self._end(chunk_id)
            self.missing.append(chunk_id)

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        """See :meth:`desync.interfaces.IChunkSink.failed`."""
        self.calls += 1
        for chunk_id in ids:
            self._end(chunk_id)
            if why.value is None:
                self.violations.append(f"{chunk_id.hex()} failed without an error")
            else:
                self.errors[chunk_id] = why.value


async def listed_ids(store: IChunkRemover) -> ChunkIds:
    """List all chunks of a store, sorted; the parts of the listing must be as promised."""
    found = bytearray()

    def take(ids: ChunkIds) -> None:
        if list(ids) != sorted(set(ids)):
            raise AssertionError("a part of a listing isn't sorted")
        found.extend(ids.to_bytes())

    await store.list_ids(take)
    together = ChunkIds.from_bytes(bytes(found)).sorted_unique()
    if len(together) * ID_SIZE != len(found):
        raise AssertionError("a listing has an id twice")
    return together
