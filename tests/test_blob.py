# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A blob: what it fetches and when, what it keeps in memory, and what it does about failures."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkMissing, StoreError
from desync.formats.index import Index, IndexBuilder, IndexSizes
from desync.mounting.blob import Blob
from desync.mounting.supply import Supply, Wanted, settle

CHUNK = 1000
COUNT = 3000
SIZES = IndexSizes(500, CHUNK, 2000)


class Sample:
    """A stream of chunks, and its index."""

    def __init__(
        self,
        lengths: Sequence[int],
        zeros: Sequence[int] = (),
        sizes: IndexSizes = SIZES,
    ) -> None:
        source = random.Random(1)
        self.chunks: dict[bytes, bytes] = {}
        builder = IndexBuilder(sizes, SHA512_256)
        pieces = []
        for position, length in enumerate(lengths):
            plain = bytes(length) if position in zeros else source.randbytes(length)
            chunk_id = SHA512_256.id_of(plain)
            self.chunks[chunk_id] = plain
            builder.append(length, chunk_id)
            pieces.append(plain)
        self.data = b"".join(pieces)
        self.index: Index = builder.finish()


class ScriptedSupply:
    """Answers from a dictionary, at once or when it's told to."""

    batch = 16

    def __init__(self, chunks: dict[bytes, bytes]) -> None:
        self.chunks = dict(chunks)
        self.asked: list[bytes] = []
        self.ahead: list[bytes] = []
        self.error: BaseException | None = None
        self.waiting: list[Sequence[Wanted]] = []
        self.is_slow = False
        self.stopped = False

    def fetch(self, wanted: Sequence[Wanted]) -> None:
        self.asked += [each.chunk_id for each in wanted]
        self._answer(wanted)

    def fetch_ahead(self, wanted: Sequence[Wanted]) -> None:
        self.ahead += [each.chunk_id for each in wanted]
        self._answer(wanted)

    def _answer(self, wanted: Sequence[Wanted]) -> None:
        if self.is_slow:
            self.waiting.append(wanted)
            return
        for each in wanted:
            if self.error is not None:
                each.fail(self.error)
            elif each.chunk_id in self.chunks:
                each.have(self.chunks[each.chunk_id])
            else:
                each.fail(ChunkMissing(each.chunk_id, "scripted"))
        settle(wanted)

    def release(self) -> None:
        """Answer what is waiting, and from now on at once."""
        self.is_slow = False
        waiting, self.waiting = self.waiting, []
        for wanted in waiting:
            self._answer(wanted)

    def stop(self) -> None:
        self.stopped = True


class BlobCase(SynchronousTestCase):
    """A blob of some thousand chunks over a scripted supply."""

    def setUp(self) -> None:
        self.sample = Sample([CHUNK] * COUNT)
        self.supply = ScriptedSupply(self.sample.chunks)
        self.said: list[str] = []

    def blob(self, cache_size: int = 1 << 20, sample: Sample | None = None) -> Blob:
        """Make the blob."""
        supply: Supply = self.supply
        return Blob((sample or self.sample).index, supply, self.said.append, cache_size=cache_size)

    def assert_fails(self, blob: Blob, offset: int) -> None:
        """Make sure that a read is an I/O error."""
        error = self.assertRaises(OSError, blob.read, offset, 10)
        self.assertEqual(error.errno, errno.EIO)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for another thread."""
        for _ in range(3000):
            if condition():
                return
            threading.Event().wait(0.01)
        self.fail("waited in vain")


class ReadingTests(BlobCase):
    """What is read."""

    @settings(max_examples=60, deadline=None)
    @given(
        lengths=st.lists(st.integers(1, 2000), max_size=40),
        zeros=st.sets(st.integers(0, 39)),
        reads=st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 50_000)), max_size=12),
        cache_size=st.sampled_from((0, 1, 5000, 1 << 20)),
    )
    def test_like_bytes(
        self,
        lengths: list[int],
        zeros: set[int],
        reads: list[tuple[int, int]],
        cache_size: int,
    ) -> None:
        """Any sequence of reads gives what slices of the stream give, whatever the cache holds."""
        for position in zeros & set(range(len(lengths))):
            lengths[position] = SIZES.max
        sample = Sample(lengths, zeros=sorted(zeros))
        self.supply = ScriptedSupply(sample.chunks)
        blob = self.blob(cache_size, sample)
        for offset, size in reads:
            self.assertEqual(blob.read(offset, size), sample.data[offset : offset + size])
        null = SHA512_256.null_id(SIZES.max)
        self.assertNotIn(null, self.supply.asked + self.supply.ahead)
        self.assertEqual(self.said, [])

    def test_end(self) -> None:
        """There is nothing beyond the end, and a read across it is short."""
        blob = self.blob()
        size = len(self.sample.data)
        self.assertEqual(blob.read(size, 10), b"")
        self.assertEqual(blob.read(size + 5, 10), b"")
        self.assertEqual(blob.read(size - 3, 10), self.sample.data[-3:])
        view = memoryview(bytearray(10))
        self.assertEqual(blob.read_into(view, size - 3), 3)
        self.assertEqual(view[:3], self.sample.data[-3:])

    def test_ids_with_two_lengths(self) -> None:
        """An index that gives a chunk two lengths gets an error where the length is wrong."""
        builder = IndexBuilder(SIZES, SHA512_256)
        chunk_id = SHA512_256.id_of(self.sample.data[:CHUNK])
        builder.append(CHUNK, chunk_id)
        builder.append(CHUNK - 1, chunk_id)
        blob = Blob(builder.finish(), self.supply, self.said.append)
        for _ in range(2):
            self.assertEqual(blob.read(0, CHUNK), self.sample.data[:CHUNK])
            self.assert_fails(blob, CHUNK)
        [line] = self.said
        self.assertIn(f"unexpected size: {CHUNK} instead of {CHUNK - 1} bytes", line)


class FetchingTests(BlobCase):
    """What is fetched, and when."""

    def test_in_order(self) -> None:
        """Reads in order fetch ahead, and each chunk once."""
        blob = self.blob()
        for offset in range(0, len(self.sample.data), 4096):
            blob.read(offset, 4096)
        self.assertLess(len(self.supply.asked), 20)
        fetched = self.supply.asked + self.supply.ahead
        self.assertEqual(len(fetched), COUNT)
        self.assertEqual(len(set(fetched)), COUNT)

    def test_nearly_in_order(self) -> None:
        """What the kernel reads ahead comes in parts that overtake each other: that's in order."""
        blob = self.blob()
        offsets = list(range(0, len(self.sample.data), 4096))
        source = random.Random(1)
        for begin in range(0, len(offsets), 4):
            part = offsets[begin : begin + 4]
            source.shuffle(part)
            for offset in part:
                blob.read(offset, 4096)
        fetched = self.supply.asked + self.supply.ahead
        self.assertEqual(len(fetched), COUNT)
        self.assertGreater(len(self.supply.ahead), COUNT * 9 // 10)

    def test_at_random(self) -> None:
        """Reads here and there fetch what they need and no more."""
        sample = Sample([2000] * 20_000)
        self.supply = ScriptedSupply(sample.chunks)
        blob = self.blob(sample=sample)
        source = random.Random(1)
        for _ in range(20):
            offset = source.randrange(len(sample.data) - 100) // 2_000_000 * 2_000_000
            blob.read(offset, 100)
        self.assertEqual(self.supply.ahead, [])
        self.assertLessEqual(len(self.supply.asked), 20)

    def test_not_too_far(self) -> None:
        """No more is fetched ahead than a part of what the cache holds."""
        blob = self.blob(cache_size=100_000)
        self.supply.is_slow = True
        reader = threading.Thread(
            target=lambda: [blob.read(at, 1000) for at in range(0, 9000, 1000)]
        )
        reader.start()
        self.until(lambda: bool(self.supply.waiting))
        self.supply.release()
        reader.join()
        self.assertTrue(self.supply.ahead)
        self.assertLess(len(self.supply.ahead) * CHUNK, 50_000)

    def test_from_memory(self) -> None:
        """What was read is read again without fetching it."""
        blob = self.blob()
        for _ in range(3):
            self.assertEqual(blob.read(5000, 3000), self.sample.data[5000:8000])
        self.assertEqual(len(self.supply.asked), 3)

    def test_memory_is_bounded(self) -> None:
        """The cache lets go of what wasn't used for longest, and holds no more than it may."""
        blob = self.blob(cache_size=50 * CHUNK)
        source = random.Random(1)
        for _ in range(300):
            blob.read(source.randrange(COUNT) * CHUNK, 10)
            blob.read(7 * CHUNK, 10)
            self.assertLessEqual(blob.held_size, 50 * CHUNK)
        self.assertGreater(blob.held_size, 10 * CHUNK)
        # This one was used all the time.
        asked = self.supply.asked + self.supply.ahead
        self.assertEqual(asked.count(SHA512_256.id_of(self.sample.data[7 * CHUNK : 8 * CHUNK])), 1)

    def test_once_for_all(self) -> None:
        """A chunk that several want at the same time is fetched once, and all get it."""
        blob = self.blob()
        self.supply.is_slow = True
        results: list[bytes] = []
        readers = [
            threading.Thread(target=lambda: results.append(blob.read(50, 100))) for _ in range(8)
        ]
        for reader in readers:
            reader.start()
        self.until(lambda: len(self.supply.asked) == 1)
        self.supply.release()
        for reader in readers:
            reader.join()
        self.assertEqual(results, [self.sample.data[50:150]] * 8)
        self.assertEqual(len(self.supply.asked), 1)


class FailureTests(BlobCase):
    """What can't be had."""

    def test_tried_again(self) -> None:
        """A failure is an error and a line; the next read tries again."""
        blob = self.blob()
        self.supply.error = StoreError("scripted", "it is on fire")
        self.assert_fails(blob, 5000)
        self.assertEqual(self.said, ["Error: reading at 5000: scripted: it is on fire"])
        self.supply.error = None
        self.assertEqual(blob.read(5000, 10), self.sample.data[5000:5010])

    def test_one_line(self) -> None:
        """The same failure, repeated at once as the kernel does, is one line."""
        blob = self.blob()
        self.supply.chunks.clear()
        for _ in range(5):
            self.assert_fails(blob, 5000)
        self.assertEqual(len(self.said), 1)
        self.assert_fails(blob, 9000)
        self.assertEqual(len(self.said), 2)

    def test_ahead(self) -> None:
        """What fails ahead of need is said of when it's needed, and tried once more then."""
        blob = self.blob()
        missing = SHA512_256.id_of(self.sample.data[100 * CHUNK : 101 * CHUNK])
        plain = self.supply.chunks.pop(missing)
        for offset in range(0, 90 * CHUNK, CHUNK):
            blob.read(offset, CHUNK)
        self.assertIn(missing, self.supply.ahead)
        self.assertEqual(self.said, [])
        self.supply.chunks[missing] = plain
        self.assertEqual(blob.read(100 * CHUNK, 5), plain[:5])
        self.assertIn(missing, self.supply.asked)

    def test_defect(self) -> None:
        """A supply that breaks is an error for its reader, and leaves nobody waiting."""
        blob = self.blob()

        def broken(wanted: Sequence[Wanted]) -> None:
            raise ZeroDivisionError("it broke")

        for name in ("fetch", "fetch_ahead"):
            self.patch(self.supply, name, broken)
        for offset in (5000, 6000, 7000, 5000):
            self.assert_fails(blob, offset)
        self.assertEqual(len(self.said), 1)
        self.assertIn("it broke", self.said[0])

    def test_stop(self) -> None:
        """When it is stopped all who wait get an error, and all who come; nothing is said."""
        blob = self.blob()
        self.supply.is_slow = True
        errors: list[int | None] = []

        def read() -> None:
            try:
                blob.read(50, 100)
            except OSError as error:
                errors.append(error.errno)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        self.until(lambda: len(self.supply.asked) == 1)
        blob.stop()
        for reader in readers:
            reader.join()
        self.assertEqual(errors, [errno.EIO] * 4)
        self.assertTrue(self.supply.stopped)
        self.assert_fails(blob, 9000)
        self.assertEqual(self.said, [])
        # An answer that comes too late does no harm.
        self.supply.release()
