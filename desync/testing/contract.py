# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What every chunk store is held to: the docstrings of :mod:`desync.interfaces` as tests.

A store's test case mixes in what the store provides, says how to make an empty one, and how to put
bytes where the store will find them, good or bad, behind its back::

    class MyStoreTests(SourceContract, BatchContract, TestCase):
        def make_store(self):
            self.bucket = {}
            return MyStore(self.bucket)

        def plant(self, chunk_id, stored, extension):
            self.bucket[chunk_name(chunk_id, extension)] = stored

Further contracts: :mod:`desync.testing.batch_contract`, :mod:`desync.testing.index_contract`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, maybeDeferred
from zope.interface.verify import verifyObject

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, ChunkMissing
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.stored import Compressed, Plain, form_named, other_form
from desync.interfaces import IChunkRemover, IChunkSource, IChunkTarget
from desync.stores.pruning import Pruned

from .samples import sample_chunk, sample_chunks
from .sinks import listed_ids

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.trial.unittest import TestCase

    from desync.chunking.digests import Digest

    _Base = TestCase
else:
    _Base = object

_T = TypeVar("_T")


class StoreContract(_Base):
    """
    The base of all: what a test case has to say about its store.

    :cvar digest: the algorithm of ids.
    :cvar extension: the form that the store is configured for.
    :cvar finds_other_form: whether ``get`` finds a chunk that is there in the other form only.
    """

    digest: Digest = SHA512_256
    extension = ".cacnk"
    finds_other_form = True

    #: Seconds that a test may take: an operation that never ends is a failure too.
    timeout = 60.0

    def make_store(self) -> Any:
        """Make an empty store. It is closed after the test."""
        raise NotImplementedError

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        """Put bytes where the store finds them as a chunk in the form that has this extension."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.store: Any = self.make_store()
        self.addCleanup(self.store.close)

    def hold(self, *chunks: Chunk) -> None:
        """Make the store have chunks, in its own form."""
        form = form_named(self.extension)
        for chunk in chunks:
            self.plant(chunk.chunk_id, chunk.copy().stored_as(form), self.extension)

    def hold_otherwise(self, *chunks: Chunk) -> None:
        """Make the store have chunks in the other form."""
        form = other_form(form_named(self.extension))
        for chunk in chunks:
            self.plant(chunk.chunk_id, chunk.copy().stored_as(form), form.extension)

    def bad_forms(self, chunk: Chunk) -> dict[str, bytes]:
        """Give what a store may hold in the place of a chunk, and mustn't be taken for it."""
        form = form_named(self.extension)
        good = form.encode(chunk.plain)
        bad = {
            "another chunk": form.encode(chunk.plain + b"more"),
            "one bit flipped": form.encode(bytes([chunk.plain[0] ^ 1]) + chunk.plain[1:]),
            "truncated": good[:-1],
            "nothing": b"",
            "twice": good + good,
            "followed by something": good + b"\0",
        }
        if self.extension:
            bad["not compressed"] = chunk.plain
            bad["an empty frame"] = form.encode(b"")
        return bad

    async def fails(
        self, error: type[_T], function: Callable[..., Deferred[Any]], *args: Any
    ) -> _T:
        """Make sure that an operation fails, and give the error."""
        try:
            result = await maybeDeferred(function, *args)
        except Exception as found:
            self.assertIsInstance(found, error)
            return cast(_T, found)
        raise self.failureException(f"{error.__name__} expected, but it returned {result!r}")


class SourceContract(StoreContract):
    """What holds of every store that provides :class:`desync.interfaces.IChunkSource`."""

    def test_provides_source(self) -> None:
        """The store has what the interface names."""
        verifyObject(IChunkSource, self.store)
        self.assertIsInstance(self.store.location, str)
        self.assertNotIn("\n", self.store.location)

    async def test_get(self) -> None:
        """A chunk that is there is handed out verified, whatever its size."""
        chunks = sample_chunks(6, self.digest)
        self.hold(*chunks)
        for chunk in chunks:
            found = await self.store.get(chunk.chunk_id)
            self.assertEqual(found.chunk_id, chunk.chunk_id)
            self.assertEqual(found.plain, chunk.plain)
            self.assertTrue(found.verified)

    async def test_get_stored_form(self) -> None:
        """A chunk keeps the form it was stored in: putting it elsewhere needn't compress it."""
        chunk = sample_chunk(digest=self.digest)
        form = form_named(self.extension, level=19)
        stored = form.encode(chunk.plain)
        self.plant(chunk.chunk_id, stored, self.extension)
        found = await self.store.get(chunk.chunk_id)
        self.assertEqual(found.stored_as(form_named(self.extension)), stored)

    async def test_get_missing(self) -> None:
        """A chunk that isn't there is missing, and the error names it."""
        self.hold(sample_chunk(1, digest=self.digest))
        chunk_id = sample_chunk(2, digest=self.digest).chunk_id
        error = await self.fails(ChunkMissing, self.store.get, chunk_id)
        self.assertEqual(error.chunk_id, chunk_id)
        self.assertIn(chunk_id.hex(), str(error))

    async def test_get_after_missing(self) -> None:
        """A chunk that was missing is found once it is there."""
        chunk = sample_chunk(digest=self.digest)
        await self.fails(ChunkMissing, self.store.get, chunk.chunk_id)
        self.hold(chunk)
        self.assertEqual((await self.store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_get_other_form(self) -> None:
        """A chunk that is there in the other form only is found, if the store promises that."""
        chunk = sample_chunk(digest=self.digest)
        self.hold_otherwise(chunk)
        if self.finds_other_form:
            found = await self.store.get(chunk.chunk_id)
            self.assertEqual(found.plain, chunk.plain)
            self.assertTrue(found.verified)
        else:
            await self.fails(ChunkMissing, self.store.get, chunk.chunk_id)

    async def test_get_invalid(self) -> None:
        """Whatever isn't the chunk isn't handed out, and the error names the chunk."""
        chunk = sample_chunk(digest=self.digest)
        for what, stored in self.bad_forms(chunk).items():
            self.plant(chunk.chunk_id, stored, self.extension)
            error = await self.fails(ChunkInvalid, self.store.get, chunk.chunk_id)
            self.assertEqual(error.chunk_id, chunk.chunk_id, what)
            self.assertIn(chunk.chunk_id.hex(), str(error))
            self.assertNotIn("\n", str(error))

    async def test_get_invalid_other_form(self) -> None:
        """What is wrong with a chunk in the other form is found out too."""
        chunk = sample_chunk(1, digest=self.digest)
        self.plant(
            chunk.chunk_id,
            other_form(form_named(self.extension)).encode(b"something else"),
            other_form(form_named(self.extension)).extension,
        )
        expected = ChunkInvalid if self.finds_other_form else ChunkMissing
        await self.fails(expected, self.store.get, chunk.chunk_id)

    async def test_get_concurrently(self) -> None:
        """Operations may overlap, on the same chunk too."""
        chunks = sample_chunks(20, self.digest)
        self.hold(*chunks)
        found = await gatherResults([self.store.get(chunk.chunk_id) for chunk in chunks * 3])
        self.assertEqual([one.plain for one in found], [chunk.plain for chunk in chunks * 3])

    async def test_wrong_length(self) -> None:
        """What can't be an id is refused at once."""
        for chunk_id in b"", bytes(31), bytes(33):
            for operation in self.store.get, self.store.has:
                result = maybeDeferred(operation, chunk_id)
                self.assertTrue(result.called)
                await self.fails(ValueError, lambda result=result: result)

    async def test_has(self) -> None:
        """Whether a chunk is there depends on the form that the store is configured for."""
        there, otherwise, absent = (sample_chunk(number, digest=self.digest) for number in range(3))
        self.hold(there)
        self.hold_otherwise(otherwise)
        self.assertIs(await self.store.has(there.chunk_id), True)
        self.assertIs(await self.store.has(otherwise.chunk_id), False)
        self.assertIs(await self.store.has(absent.chunk_id), False)

    async def test_cancel(self) -> None:
        """An operation that is canceled before it ended fails so, and others go on."""
        chunk = sample_chunk(digest=self.digest)
        self.hold(chunk)
        for operation in self.store.get, self.store.has:
            canceled, other = operation(chunk.chunk_id), operation(chunk.chunk_id)
            was_waiting = not canceled.called
            canceled.cancel()
            if was_waiting:
                await self.fails(CancelledError, lambda result=canceled: result)
            await other
        self.assertEqual((await self.store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_close_twice(self) -> None:
        """Closing a store again is fine."""
        await self.store.close()
        await self.store.close()


class TargetContract(StoreContract):
    """What holds of every store that provides :class:`desync.interfaces.IChunkTarget`."""

    def test_provides_target(self) -> None:
        """The store has what the interface names."""
        verifyObject(IChunkTarget, self.store)

    async def test_put(self) -> None:
        """A chunk that was put is there, whatever its size."""
        for chunk in sample_chunks(6, self.digest):
            self.assertIs(await self.store.has(chunk.chunk_id), False)
            self.assertIsNone(await self.store.put(chunk))
            self.assertIs(await self.store.has(chunk.chunk_id), True)
            self.assertEqual((await self.store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_put_any_form(self) -> None:
        """A chunk may come in either form, verified or not."""
        for number, form in enumerate((Plain(), Compressed())):
            plain = sample_chunk(number, digest=self.digest).plain
            chunk_id = self.digest.id_of(plain)
            await self.store.put(Chunk(chunk_id, stored=form.encode(plain), form=form))
            self.assertEqual((await self.store.get(chunk_id)).plain, plain)

    async def test_put_twice(self) -> None:
        """A chunk that is there already may be put again, and at the same time."""
        chunk = sample_chunk(digest=self.digest)
        await self.store.put(chunk)
        await gatherResults([self.store.put(chunk.copy()) for _ in range(5)])
        self.assertEqual((await self.store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_put_repairs(self) -> None:
        """Putting a chunk replaces what was wrong in its place."""
        chunk = sample_chunk(digest=self.digest)
        self.plant(chunk.chunk_id, b"rubbish", self.extension)
        await self.store.put(chunk)
        self.assertEqual((await self.store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_put_invalid(self) -> None:
        """What isn't the chunk that its id says isn't stored."""
        chunk = sample_chunk(digest=self.digest)
        form = Compressed()
        for wrong in (
            Chunk(chunk.chunk_id, chunk.plain + b"more"),
            Chunk(chunk.chunk_id, b""),
            Chunk(chunk.chunk_id, stored=form.encode(b"another"), form=form),
            Chunk(chunk.chunk_id, stored=form.encode(chunk.plain)[:-1], form=form),
            Chunk(chunk.chunk_id, stored=b"rubbish", form=form),
            Chunk(chunk.chunk_id, stored=b"", form=Plain()),
        ):
            await self.fails(ChunkInvalid, self.store.put, wrong)
            self.assertIs(await self.store.has(chunk.chunk_id), False)

    async def test_put_wrong_length(self) -> None:
        """What can't be an id is refused at once."""
        for chunk_id in b"", bytes(31), bytes(33):
            await self.fails(ValueError, self.store.put, Chunk(chunk_id, b"data"))
            await self.fails(ValueError, self.store.renew, chunk_id)

    async def test_put_canceled(self) -> None:
        """A canceled put leaves the whole chunk or nothing."""
        chunk = sample_chunk(size=300_000, digest=self.digest)
        putting = self.store.put(chunk)
        putting.addErrback(lambda why: why.trap(CancelledError) and None)
        putting.cancel()
        await putting
        try:
            found = await self.store.get(chunk.chunk_id)
        except ChunkMissing:
            pass
        else:
            self.assertEqual(found.plain, chunk.plain)
        await self.store.put(chunk)
        self.assertEqual((await self.store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_renew(self) -> None:
        """Renewing tells whether the chunk is there in the store's own form."""
        there, otherwise, absent = (sample_chunk(number, digest=self.digest) for number in range(3))
        self.hold(there)
        self.hold_otherwise(otherwise)
        self.assertIs(await self.store.renew(there.chunk_id), True)
        self.assertIs(await self.store.renew(otherwise.chunk_id), False)
        self.assertIs(await self.store.renew(absent.chunk_id), False)


class RemoverContract(StoreContract):
    """
    What holds of every store that provides :class:`desync.interfaces.IChunkRemover`.

    :cvar renews: whether putting and renewing a chunk makes it young.
    """

    renews = True

    def pass_time(self, seconds: float) -> None:
        """Make everything in the store older."""
        raise NotImplementedError

    def test_provides_remover(self) -> None:
        """The store has what the interface names."""
        verifyObject(IChunkRemover, self.store)

    async def test_list(self) -> None:
        """The chunks in the store's own form are listed, each once."""
        self.assertEqual(list(await listed_ids(self.store)), [])
        chunks = sample_chunks(30, self.digest)
        self.hold(*chunks)
        self.hold_otherwise(sample_chunk(99, digest=self.digest))
        found = await listed_ids(self.store)
        self.assertEqual(list(found), sorted(chunk.chunk_id for chunk in chunks))

    async def test_listing_stops(self) -> None:
        """A listing hands over no more once what takes it has failed, and fails with that."""
        self.hold(*sample_chunks(3, self.digest))
        parts = []

        def refuse(ids: ChunkIds) -> Deferred[None]:
            parts.append(ids)
            return fail(ZeroDivisionError())

        await self.fails(ZeroDivisionError, self.store.list_ids, refuse)
        self.assertEqual(len(parts), 1)

    async def test_listing_waits(self) -> None:
        """A listing isn't over before what takes it says so."""
        self.hold(*sample_chunks(3, self.digest))
        asked: Deferred[None] = Deferred()
        gate: Deferred[None] = Deferred()

        def take(ids: ChunkIds) -> Deferred[None]:
            asked.callback(None)
            return gate

        listing = self.store.list_ids(take)
        await asked
        self.assertFalse(listing.called)
        gate.callback(None)
        await listing

    async def test_remove(self) -> None:
        """A removed chunk is gone, and can't be removed again."""
        chunk, other = sample_chunk(0, digest=self.digest), sample_chunk(1, digest=self.digest)
        self.hold(chunk, other)
        await self.store.remove(chunk.chunk_id)
        self.assertIs(await self.store.has(chunk.chunk_id), False)
        self.assertIs(await self.store.has(other.chunk_id), True)
        error = await self.fails(ChunkMissing, self.store.remove, chunk.chunk_id)
        self.assertEqual(error.chunk_id, chunk.chunk_id)
        await self.fails(ValueError, self.store.remove, b"short")

    async def test_remove_own_form(self) -> None:
        """A chunk in the other form is left alone."""
        chunk = sample_chunk(digest=self.digest)
        self.hold(chunk)
        self.hold_otherwise(chunk)
        await self.store.remove(chunk.chunk_id)
        self.assertIs(await self.store.has(chunk.chunk_id), False)
        if self.finds_other_form:
            await self.store.get(chunk.chunk_id)

    async def test_prune(self) -> None:
        """Old chunks that aren't kept are removed and counted; a dry run only counts them."""
        chunks = sample_chunks(12, self.digest)
        self.hold(*chunks)
        self.hold_otherwise(sample_chunk(99, digest=self.digest))
        self.pass_time(1000)
        keep = ChunkIds.from_iterable(sorted(chunk.chunk_id for chunk in chunks[::2]))
        form = form_named(self.extension)
        size = sum(len(chunk.copy().stored_as(form)) for chunk in chunks[1::2])
        expected = Pruned(kept=6, removed=6, removed_bytes=size)
        self.assertEqual(await self.store.prune(keep, 600, dry_run=True), expected)
        self.assertEqual(len(await listed_ids(self.store)), 12)
        self.assertEqual(await self.store.prune(keep, 600), expected)
        self.assertEqual(await listed_ids(self.store), keep)
        if self.finds_other_form:
            await self.store.get(sample_chunk(99, digest=self.digest).chunk_id)

    async def test_prune_spares_young(self) -> None:
        """A chunk that was just put or renewed is spared, unless no minimum age is asked for."""
        if not self.renews:
            return
        put, renewed, old = (sample_chunk(number, digest=self.digest) for number in range(3))
        self.hold(renewed, old)
        self.pass_time(1000)
        await self.store.put(put)
        await self.store.renew(renewed.chunk_id)
        keep = ChunkIds.from_bytes(b"", is_sorted=True)
        outcome = await self.store.prune(keep, 600)
        self.assertEqual((outcome.kept, outcome.removed, outcome.spared), (0, 1, 2))
        self.assertIs(await self.store.has(put.chunk_id), True)
        self.assertIs(await self.store.has(renewed.chunk_id), True)
        self.assertIs(await self.store.has(old.chunk_id), False)
        outcome = await self.store.prune(keep, 0)
        self.assertEqual((outcome.removed, outcome.spared), (2, 0))
        self.assertEqual(list(await listed_ids(self.store)), [])
