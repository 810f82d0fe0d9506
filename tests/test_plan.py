# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The plan of a rebuild."""

from __future__ import annotations

import random
from array import array

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.assembly.matching import match
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

    @given(PIECES, st.lists(PIECES, max_size=3), st.data())
    @settings(max_examples=150, deadline=None)
    def test_seeds_and_what_is_there(
        self, pieces: list[bytes], seeds: list[list[bytes]], data: st.DataObject
    ) -> None:
        """Whatever seeds and the target have, carrying out the plan gives the file."""
        index = index_of(pieces)
        flags = st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces))
        kept = data.draw(st.none() | flags.map(bytes))
        plan = Plan(index, NULL, [index_of(seed) for seed in seeds], kept)
        wanted = b"".join(pieces)
        files = [b"".join(seed) for seed in seeds]
        target = bytearray(b"?" * len(wanted))
        known = {index.id(position) for position in range(len(pieces)) if kept and kept[position]}
        known.update(SHA512_256.id_of(piece) for seed in seeds for piece in seed)
        for part in plan.parts():
            here = slice(part.start, part.start + part.length)
            if part.kind in ("kept", "fetch"):
                target[here] = wanted[here]
            elif part.kind == "null":
                target[here] = bytes(part.length)
            elif part.kind == "seed":
                target[here] = files[part.seed][part.source : part.source + part.length]
        for source, place, length in plan.copies():
            target[place : place + length] = target[source : source + length]
        self.assertEqual(bytes(target), wanted)
        self.assertEqual(known.intersection(plan.fetched_ids()), set(), "fetched needlessly")
        places = plan.fetched_positions()
        fetched = [index.id(places.of(chunk_id)) for chunk_id in plan.fetched_ids()]
        self.assertEqual(fetched, list(plan.fetched_ids()))
        self.assertEqual(sum(plan.totals[::2]), len(pieces))
        self.assertEqual(sum(plan.totals[1::2]), len(wanted))
        self.assertEqual(sum(length for _, length in plan.nulls()), plan.totals.null_bytes, "holes")

    def test_the_longest_run_wins(self) -> None:
        """Of the runs that begin at a place the longest is taken, of equal ones the first."""
        a, b, c, d, x, y = (bytes([number]) * 64 for number in b"abcdxy")
        index = index_of([a, b, c, d, a, b])
        seeds = [index_of([a, b, x, c, d]), index_of([y, a, b, c]), index_of([b, c, d])]
        runs = match(index, seeds, bytes([1]) * 6)
        self.assertEqual(list(runs), [(0, 3, 1, 1), (3, 1, 0, 4), (4, 2, 0, 0)])

    def test_runs_end_with_their_seed(self) -> None:
        """What one seed ends with and the next begins with is no run."""
        a, b, c = (bytes([number]) * 64 for number in b"abc")
        runs = match(index_of([a, b, c]), [index_of([a]), index_of([b, c])], bytes([1]) * 3)
        self.assertEqual(list(runs), [(0, 1, 0, 0), (1, 2, 1, 0)])

    def test_long_runs(self) -> None:
        """Runs of any length are found to their last chunk, and no further."""
        chance = random.Random(5)
        chunks = [bytes([number, number + 1]) * 32 for number in range(200)]
        for _ in range(200):
            begin, length = chance.randrange(190), chance.randrange(1, 190)
            seed = chunks[begin : begin + length]
            runs = match(index_of(chunks), [index_of(seed)], bytes([1]) * 200)
            self.assertEqual(list(runs), [(begin, len(seed), 0, 0)])

    def test_a_seed_of_one_chunk_again_and_again(self) -> None:
        """Thousands of places to begin at don't take thousands of times as long."""
        index = index_of([b"a" * 64] * 5000)
        runs = match(index, [index_of([b"a" * 64] * 4000)], bytes([1]) * 5000)
        self.assertEqual(list(runs), [(0, 4000, 0, 0), (4000, 1000, 0, 0)])

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
