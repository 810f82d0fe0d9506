# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Random conversations with both sides of the casync protocol::

    python -m tests.casync_fuzz SECONDS [SEED]

Each begins with something sensible and is then spoiled. Nothing but the protocol's own two errors
may come out, none of ours among them; a store that is pushed to holds only good chunks, and no
index is installed that names a chunk it lacks.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock

from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import DesyncError
from desync.formats import protocol as p
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.index import IndexBuilder
from desync.services.casync_offer import Offer
from desync.services.casync_pull import PullSession
from desync.services.casync_push import PushSession
from desync.stores.casync_source import ChunkSession
from desync.stores.memory import MemoryIndexStore, MemoryStore
from desync.testing.samples import sample_chunks
from desync.testing.sinks import listed_ids
from desync.testing.threads import InlineThreads

from .casync_link import connect
from .fuzz_seeds import main

CHUNKS = sample_chunks(12, SHA512_256)


def make_index() -> Any:
    """Make an index of the chunks."""
    builder = IndexBuilder(ChunkSizes(1, 1 << 20, 1 << 21), SHA512_256)
    for chunk in CHUNKS:
        builder.append(len(chunk.plain), chunk.chunk_id)
    return builder.finish()


INDEX = make_index()


class Fuzz:
    """
    One run of conversations.

    :param seed: which.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def an_id(self) -> bytes:
        """Choose an id, of a chunk or of nothing."""
        if self.random.random() < 0.8:
            return self.random.choice(CHUNKS).chunk_id
        return self.random.randbytes(32)

    def a_message(self) -> bytes:
        """Choose a frame that somebody might send."""
        choose = self.random
        data = INDEX.to_bytes()
        cut = choose.randrange(1, len(data))
        chunk = choose.choice(CHUNKS)
        plain = chunk.plain if choose.random() < 0.7 else choose.randbytes(50)
        message: Any = choose.choice(
            [
                p.Hello(choose.choice([0x40, 0xC0, 0xE00, 0x400, 0x100, 0x1000, 1, 5, 10, 0x1FFF])),
                p.IndexData(data),
                p.IndexData(data[:cut]),
                p.IndexEnd(),
                p.ArchiveData(choose.randbytes(100)),
                p.ArchiveEnd(),
                p.Request(
                    ChunkIds.from_iterable(self.an_id() for _ in range(choose.randrange(1, 5))),
                    choose.random() < 0.5,
                ),
                p.ChunkData(chunk.chunk_id, plain, compressed=choose.random() < 0.3),
                p.Missing(self.an_id()),
                p.Goodbye(),
                p.Abort(choose.randrange(200), "spoiled"),
            ]
        )
        frame: bytes = message.encode()
        return frame

    def spoil(self, data: bytes) -> bytes:
        """Change something, or nothing."""
        spoiled = bytearray(data)
        for _ in range(self.random.choice([0, 0, 0, 1, 1, 3])):
            at = self.random.randrange(len(spoiled) + 1)
            match self.random.randrange(4):
                case 0 if spoiled:
                    spoiled[at % len(spoiled)] ^= 1 << self.random.randrange(8)
                case 1:
                    del spoiled[at:]
                case 2:
                    spoiled[at:at] = self.random.randbytes(self.random.randrange(1, 30))
                case _:
                    del spoiled[at : at + self.random.randrange(1, 30)]
        return bytes(spoiled)

    def conversation(self) -> list[bytes]:
        """Make what a peer says, in the pieces in which it arrives."""
        begin = []
        if self.random.random() < 0.9:
            flags = self.random.choice([0x40, 0xC0, 0xE00, 0x400, 0x1, 0x1000])
            begin.append(p.Hello(flags).encode())
        if self.random.random() < 0.4:
            begin += [p.IndexData(INDEX.to_bytes()).encode(), p.IndexEnd().encode()]
        if self.random.random() < 0.4:
            begin += [
                p.ChunkData(chunk.chunk_id, chunk.plain, compressed=False).encode()
                for chunk in self.random.sample(CHUNKS, self.random.randrange(len(CHUNKS) + 1))
            ]
        frames = [*begin, *(self.a_message() for _ in range(self.random.randrange(6)))]
        whole = self.spoil(b"".join(frames))
        cuts = sorted(self.random.randrange(len(whole) + 1) for _ in range(8))
        return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]

    def run_once(self) -> None:
        """Hold one conversation."""
        clock, threads = Clock(), InlineThreads()
        target, indexes = MemoryStore(), MemoryIndexStore()
        side: Any
        match self.random.randrange(3):
            case 0:
                source = MemoryStore(CHUNKS[:8], skip_verify=True)
                indexes.plant("x.caibx", INDEX.to_bytes())
                offer = Offer(source=source, indexes=indexes, index_name="x.caibx")
                side = PullSession(offer, threads, lambda session: None)
            case 1:
                offer = Offer(target=target, index_target=indexes, index_name="y.caibx")
                side = PushSession(offer, threads, lambda session: None)
            case _:
                side = ChunkSession("far", lambda session: None)
                side.ask([chunk.chunk_id for chunk in CHUNKS[:5]], lambda *answer: None)
        peer = Protocol()
        _, far = connect(clock, side, peer)
        for piece in self.conversation():
            far.write(piece)
            settle(clock)
        if self.random.random() < 0.9:
            far.loseConnection()
        settle(clock)
        check(side, target, indexes)


def settle(clock: Clock) -> None:
    """Let everything happen that is about to."""
    for _ in range(1000):
        if not clock.getDelayedCalls():
            return
        clock.advance(0.001)
    raise AssertionError("it goes on and on")


def check(side: Any, target: MemoryStore, indexes: MemoryIndexStore) -> None:
    """Make sure that a conversation has come to nothing bad."""
    why = side.ended_by
    assert why is None or isinstance(why, DesyncError), repr(why)
    assert not isinstance(why, p.LocalProtocolError), repr(why)
    held = result_of(Deferred.fromCoroutine(listed_ids(target)))
    for chunk_id in held:
        assert isinstance(result_of(target.get(chunk_id)), Chunk)
    stored = indexes.stored("y.caibx")
    if stored is not None:
        assert INDEX.ids.sorted_unique().difference(held) == ChunkIds.from_bytes(b"")


def result_of(deferred: Deferred[Any]) -> Any:
    """Give the result of what has fired."""
    results: list[Any] = []
    deferred.addCallback(results.append)
    return results[0]


if __name__ == "__main__":
    main(lambda seed: Fuzz(seed).run_once())
