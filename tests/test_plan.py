# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The plan of a rebuild."""

from __future__ import annotations

import random
from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.assembly.plan import Plan, first_positions
from desync.chunking import kernels, portable
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import InvalidIndex
from desync.formats.ids import ChunkIds
from desync.formats.index import Index, IndexBuilder

SIZES = ChunkSizes(64, 128, 256)
NULL = SHA512_256.null_id(SIZES.max)


def index_of(pieces: list[bytes]) -> Index:
    """Make the index of a file that consists of these chunks."""
    builder = IndexBuilder(SIZES, SHA512_256)
    for piece in pieces:
        builder.append(len(piece), SHA512_256.id_of(piece))
    return builder.finish()


PIECES = st.lists(
    st.sampled_from([b"a" * 100, b"b" * 256, b"c" * 64, bytes(256), bytes(100), b"d"]), max_size=60
)


class PlanTests(SynchronousTestCase):
    """What comes from where."""

    @given(PIECES, st.integers(1, 8), st.integers(1, 600))
    @settings(max_examples=150, deadline=None)
    def test_carrying_it_out_gives_the_file(
        self, pieces: list[bytes], most_chunks: int, most_bytes: int
    ) -> None:
        """Writing what is fetched and then copying what repeats gives the file, from any pieces."""
        index = index_of(pieces)
        plan = Plan(index, NULL)
        wanted = b"".join(pieces)
        target = bytearray(len(wanted))
        fetched: list[bytes] = []
        for begin, end in plan.runs(most_chunks, most_bytes):
            self.assertLessEqual(end - begin, most_chunks)
            for position in range(begin, end):
                start, length = index.start(position), index.length(position)
                target[start : start + length] = pieces[position]
                fetched.append(index.id(position))
        for source, place, length in plan.copies():
            self.assertLess(source, place)
            for offset in range(length):
                target[place + offset] = target[source + offset]
        self.assertEqual(bytes(target), wanted)
        self.assertEqual(len(fetched), len(set(fetched)), "a chunk is fetched once")
        self.assertNotIn(NULL, fetched)
        self.assertEqual(list(plan.fetched_ids()), sorted(fetched))

    @given(PIECES)
    @settings(deadline=None)
    def test_totals_add_up(self, pieces: list[bytes]) -> None:
        """Every chunk and every byte of the file is counted once."""
        totals = Plan(index_of(pieces), NULL).totals
        self.assertEqual(
            totals.fetched_chunks + totals.copied_chunks + totals.null_chunks, len(pieces)
        )
        self.assertEqual(
            totals.fetched_bytes + totals.copied_bytes + totals.null_bytes, len(b"".join(pieces))
        )
        self.assertEqual(totals.null_chunks, pieces.count(bytes(256)))

    def test_a_chunk_of_two_lengths(self) -> None:
        """
        An index in which a chunk is longer or shorter where it occurs again has no plan: copying
        would make something that nobody verified.
        """
        first = SHA512_256.id_of(b"a" * 100)
        for chunk_id, lengths in (first, (100, 50)), (first, (50, 100)), (NULL, (256, 100)):
            builder = IndexBuilder(SIZES, SHA512_256)
            builder.append(lengths[0], chunk_id)
            builder.append(64, SHA512_256.id_of(b"c" * 64))
            builder.append(lengths[1], chunk_id)
            error = self.assertRaises(InvalidIndex, Plan, builder.finish(), NULL)
            self.assertIn(chunk_id.hex(), str(error))

    def test_without_holes_zeros_are_fetched(self) -> None:
        """Where a target may hold other things, null chunks are fetched like all others."""
        plan = Plan(index_of([bytes(256), bytes(256), b"x"]), None)
        self.assertEqual(plan.totals.null_chunks, 0)
        self.assertEqual(list(plan.runs(10, 10_000)), [(0, 1), (2, 3)])

    def test_neighbors_are_copied_together(self) -> None:
        """A sequence that repeats as a whole is one copy."""
        plan = Plan(index_of([b"a", b"b", b"c", b"x", b"a", b"b", b"c"]), None)
        self.assertEqual(list(plan.copies()), [(0, 4, 3)])


class FirstPositionsTests(SynchronousTestCase):
    """Finding repeated ids."""

    def test_native_and_portable_agree(self) -> None:
        """Both find for every id the first that is equal, at any distance and number of repeats."""
        chance = random.Random(3)
        for count in (0, 1, 2, 7, 300, 5000):
            for different in (1, 3, count // 2 + 1):
                pool = [chance.randbytes(32) for _ in range(different)]
                ids = [chance.choice(pool) for _ in range(count)]
                table = b"".join(b"-" * 8 + one for one in ids)
                order = portable.sort_ids(table, 8, 40, count)
                expected = array("I", (ids.index(one) for one in ids))
                for kernel in (kernels, portable):
                    found = kernel.first_positions(table, 8, 40, count, order)
                    self.assertEqual(array("I", found), expected)

    def test_refuses_an_order_of_something_else(self) -> None:
        """An order that names an id outside the table, or too few, is a ValueError."""
        for kernel in (kernels, portable):
            for order in (array("I", [0, 9]), array("I", [0])):
                with self.assertRaises(ValueError):
                    kernel.first_positions(bytes(64), 0, 32, 2, order.tobytes())

    def test_of_a_packed_sequence(self) -> None:
        """The positions are those in the sequence."""
        ids = ChunkIds.from_iterable([b"b" * 32, b"a" * 32, b"b" * 32])
        self.assertEqual(list(first_positions(ids)), [0, 1, 0])
