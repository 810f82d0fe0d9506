# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The seams of the package. Each docstring is the contract that :mod:`desync.testing.contract` holds
an implementation to.

Everything returns a Deferred unless it says otherwise. What holds of every store:

* Ids are 32 bytes; anything else is a ``ValueError``, at once.
* :class:`desync.errors.ChunkMissing` and nothing else means that a store doesn't have a chunk. A
  store that can't tell (it is unreachable, it answers nonsense) fails with
  :class:`desync.errors.StoreError` or :class:`desync.errors.ChunkInvalid`.
* Operations may overlap, on the same id too.
* Cancelling the Deferred of an operation ends the wait with
  :class:`twisted.internet.defer.CancelledError`. Whether a write that was cancelled took place is
      unknown; it never leaves a partial chunk under the chunk's name.
* Reading verifies: the chunk that is handed out has been checked against its id, and says so
  (``chunk.verified``), unless the store was told to skip that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.stores.local_files import LocalFiles
    from desync.stores.pruning import Pruned


class IStore(Interface):
    """What every store of chunks has."""

    location = Attribute("How a user names the store, secrets masked: ``str``.")

    def close() -> Deferred[None]:
        """
        Let go of connections and processes. Nothing else is called afterwards; closing twice is
        fine.
        """


class IChunkSource(IStore):
    """A store that chunks can be read from."""

    def get(chunk_id: bytes) -> Deferred[Chunk]:
        """
        Fetch one chunk.

        Stores on local files, SFTP and in memory also find a chunk that is there in the other form
        only.

        :returns: the chunk, verified unless the store skips that.
        :raises ChunkMissing: if the store doesn't have it.
        :raises ChunkInvalid: if what it has isn't that chunk.
        :raises StoreError: if the store failed.
        """

    def has(chunk_id: bytes) -> Deferred[bool]:
        """
        Tell whether the store has a chunk in the form that it is configured for; the other form
        doesn't count.

        :raises StoreError: if the store can't tell.
        """


class IChunkSink(Interface):
    """
    Takes what :meth:`IBatch.get_many` finds. Each id that was asked for ends exactly once: in
    chunks, absent or failed.
    """

    def chunks(batch: Sequence[Chunk]) -> Deferred[None] | None:
        """
        Take some chunks. An unfired Deferred asks the store to hand over no more until it fires;
        its failure ends all.
        """

    def absent(ids: ChunkIds) -> None:
        """Learn that the store doesn't have these."""

    def failed(ids: ChunkIds, why: Failure) -> None:
        """Learn that these could not be had: `why` wraps ChunkInvalid or StoreError."""


class IBatch(Interface):
    """Many ids in one operation: what whoever rebuilds or uploads a file has in hand."""

    def get_many(ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """
        Fetch chunks in any order, a bounded number at a time.

        An id that occurs twice is handed over once. The Deferred fires when every id has ended.
        Cancelling it stops the transfer: no further call reaches the sink.

        :raises: whatever the sink's ``chunks`` failed with. What goes wrong with single chunks goes
            to the sink instead.
        """

    def missing(ids: ChunkIds) -> Deferred[ChunkIds]:
        """
        Find out which of these the store doesn't have in the form that it is configured for.

        :returns: those ids, sorted, each once.
        :raises StoreError: if the store can't tell.
        """


class IBatchRenewer(Interface):
    """
    A store that can make its chunks young, many at once.

    Stores that can't renew an age don't provide this, so that nobody makes requests to no effect.
    """

    def renew_many(ids: ChunkIds) -> Deferred[ChunkIds]:
        """
        Make young those of some chunks that the store has in the form that it is configured for.

        :returns: the ids of the others, as :meth:`IBatch.missing` does.
        :raises StoreError: if the store can't tell.
        """


class IChunkTarget(IChunkSource):
    """A store that chunks can be written to."""

    def put(chunk: Chunk) -> Deferred[None]:
        """
        Store a chunk. It is there, whole, when the Deferred fires; nobody ever sees a part of it.

        A chunk that is there already is fine: it may be replaced by the same, or only its age be
        renewed. A chunk that isn't verified is verified first.

        :raises ChunkInvalid: if it isn't the chunk that its id says; nothing is stored.
        :raises StoreError: if the store failed.
        """

    def renew(chunk_id: bytes) -> Deferred[bool]:
        """
        Tell whether the store has a chunk, as ``has``, and make it young if so: a prune then spares
        it.

        Stores that can't renew an age only answer.
        """


class IChunkRemover(Interface):
    """A store whose chunks can be listed and removed."""

    def list_ids(take: Callable[[ChunkIds], Deferred[None] | None]) -> Deferred[None]:
        """
        List the chunks in the form that the store is configured for, some thousands at a time: what
        is kept in memory of a listing doesn't grow with it.

        The Deferred fires when all have been handed over. Cancelling it ends the listing.

        :param take: gets sorted ids, each once; in which order they come at different times isn't
            said. An unfired Deferred asks the store to list no more until it fires; its failure,
            or what this raises, ends the listing.
        :raises StoreError: if the store failed.
        """

    def remove(chunk_id: bytes) -> Deferred[None]:
        """
        Remove a chunk in the form that the store is configured for.

        :raises ChunkMissing: if it isn't there.
        """

    def prune(keep: ChunkIds, min_age: float, dry_run: bool = False) -> Deferred[Pruned]:
        """
        Remove every chunk in the form that the store is configured for that isn't kept, and what
        interrupted writers left.

        Chunks and temporary files younger than `min_age` are spared and counted.

        :param keep: sorted ids.
        :param min_age: seconds.
        :param dry_run: only say what would be removed.
        """


class ILocalFiles(Interface):
    """
    A store whose chunks are files of this machine, in one directory or several that are asked in
    turn.
    """

    def local_files() -> tuple[LocalFiles, ...]:
        """Give the directories, in the order of asking. Not a Deferred."""


class IIndexSource(Interface):
    """A store that indexes can be read from."""

    location = Attribute("How a user names the store, secrets masked: ``str``.")

    def get_index(name: str) -> Deferred[Index]:
        """
        Fetch an index.

        :param name: one path component.
        :raises IndexMissing: if it isn't there.
        :raises InvalidIndex: if what is there isn't one.
        :raises StoreError: if the store failed.
        """

    def close() -> Deferred[None]:
        """
        Let go of connections and processes. Nothing else is called afterwards; closing twice is
        fine.
        """


class IIndexTarget(IIndexSource):
    """A store that indexes can be written to."""

    def put_index(name: str, index: Index) -> Deferred[None]:
        """
        Store an index, replacing what was there. The old one or the new one is there whole at any
        moment.

        :param name: one path component.
        :raises StoreError: if the store failed.
        """
