# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Where a blob gets its chunks from: the seam, and the one for local stores.

Chunks in local stores are read and decoded by whoever wants them, in its own thread, and ahead of
need by a few threads of the supply. No reactor is in between.
"""

from __future__ import annotations

import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from desync.assembly.local_chunks import read_from
from desync.errors import ChunkInvalid, DesyncError, Interrupted
from desync.formats.ids import ID_SIZE
from desync.stores.local_batches import BatchReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from desync.chunking.digests import Digest
    from desync.stores.local_files import LocalFiles


class Wanted:
    """
    A chunk that somebody wants. It is answered once, by any thread; further answers are ignored.

    Whoever answers says what there is with :meth:`have` or :meth:`fail`, of several perhaps, and
    then calls :func:`settle` with all of them.

    :ivar chunk_id: 32 bytes.
    :ivar length: how many bytes it has to have.
    :ivar plain: the bytes, once they are there.
    :ivar error: why they can't be had.
    """

    __slots__ = ("_settled", "_tell", "_waiting", "chunk_id", "error", "length", "plain")

    def __init__(
        self, chunk_id: bytes, length: int, tell: Callable[[Sequence[Wanted]], object]
    ) -> None:
        self.chunk_id = chunk_id
        self.length = length
        self.plain: bytes | memoryview | None = None
        self.error: BaseException | None = None
        self._tell = tell
        self._settled = False
        # A plain lock is the cheapest thing that a thread can wait for.
        self._waiting = threading.Lock()
        self._waiting.acquire()

    @property
    def is_answered(self) -> bool:
        """Whether there has been an answer."""
        return self.plain is not None or self.error is not None

    @property
    def is_settled(self) -> bool:
        """Whether that has been made known."""
        return self._settled

    def have(self, plain: bytes | memoryview) -> None:
        """Answer with the chunk's bytes, which are known to be those of the id."""
        if len(plain) != self.length:
            why = f"unexpected size: {len(plain)} instead of {self.length} bytes"
            self.fail(ChunkInvalid(self.chunk_id, why))
        elif not self.is_answered:
            self.plain = plain

    def fail(self, error: BaseException) -> None:
        """Answer that it can't be had."""
        if not self.is_answered:
            self.error = error

    def wake(self) -> None:
        """Let those go on who wait."""
        self._settled = True
        with contextlib.suppress(RuntimeError):  # by two threads at the very same time
            self._waiting.release()

    def wait(self) -> bytes | memoryview:
        """
        Block until there is an answer.

        :raises: what it couldn't be had for.
        """
        if not self._settled:
            self._waiting.acquire()
            self._waiting.release()
        if self.plain is None:
            assert self.error is not None
            raise self.error
        return self.plain


def settle(wanted: Sequence[Wanted]) -> None:
    """
    Make known that there are answers.

    :param wanted: chunks of the same blob that have been answered together; their bytes may share
        memory.
    """
    if wanted:
        wanted[0]._tell(wanted)
        for each in wanted:
            each.wake()


class Supply(Protocol):
    """
    Where chunks come from. Called by any thread. It sees to it that all that is wanted is answered,
    if only that it failed.
    """

    @property
    def batch(self) -> int:
        """How many chunks are best asked for ahead of need at a time."""

    def fetch(self, wanted: Sequence[Wanted]) -> None:
        """Get chunks that somebody waits for. This may block until they are there."""

    def fetch_ahead(self, wanted: Sequence[Wanted]) -> None:
        """Get chunks that somebody will probably want. This doesn't block."""

    def stop(self) -> None:
        """Answer all that is still wanted, and everything from now on, with a failure."""


class LocalSupply:
    """
    Chunks from the files of local stores.

    :param stores: asked in turn.
    :param digest: what ids are made with.
    :param threads: how many read ahead of need.
    """

    batch = 16

    def __init__(self, stores: Sequence[LocalFiles], digest: Digest, threads: int) -> None:
        self._stores = tuple(stores)
        self._digest = digest
        self._most_threads = threads
        self._threads = 0
        self._work: SimpleQueue[Sequence[Wanted] | None] = SimpleQueue()
        # libfuse's threads are new to Python with each call, so that nothing can be kept by thread.
        self._idle: list[tuple[BatchReader, ...]] = []
        self._starting = threading.Lock()
        self._stopped = False

    def fetch(self, wanted: Sequence[Wanted]) -> None:
        """See :class:`Supply`. Reads them here and now."""
        try:
            if self._stopped:
                raise Interrupted
            try:
                stores = self._idle.pop()
            except IndexError:
                stores = tuple(BatchReader(store.twin()) for store in self._stores)
            try:
                self._read(stores, wanted)
            finally:
                self._idle.append(stores)
        except BaseException as error:
            for each in wanted:
                each.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            settle(wanted)

    def _read(self, stores: tuple[BatchReader, ...], wanted: Sequence[Wanted]) -> None:
        if len(wanted) == 1:
            found: list[memoryview | None] = [None]
        else:
            found = stores[0].read([(each.chunk_id, each.length) for each in wanted])
        unverified: list[tuple[Wanted, bytes | memoryview, LocalFiles]] = []
        for each, plain in zip(wanted, found, strict=True):
            store = stores[0].files
            buffer: bytes | memoryview
            if plain is not None:
                buffer = plain
            else:
                try:
                    buffer, store = read_from(
                        [reader.files for reader in stores], each.chunk_id, each.length
                    )
                except (DesyncError, MemoryError) as error:
                    each.fail(error)
                    continue
            if store.skip_verify:
                each.have(buffer)
            else:
                unverified.append((each, buffer, store))
        if not unverified:
            return
        digests = self._digest.ids_of_buffers([buffer for _, buffer, _ in unverified])
        for number, (each, buffer, store) in enumerate(unverified):
            actual = digests[number * ID_SIZE : (number + 1) * ID_SIZE]
            if actual == each.chunk_id:
                each.have(buffer)
            else:
                why = f"its {self._digest.name} is {actual.hex()}"
                each.fail(ChunkInvalid(each.chunk_id, why, store.location))

    def fetch_ahead(self, wanted: Sequence[Wanted]) -> None:
        """See :class:`Supply`."""
        with self._starting:
            if self._threads < self._most_threads:
                self._start_thread()
        if not self._threads:
            # The system has no thread left: whoever wants one of these reads it.
            self.fetch(wanted)
            return
        self._work.put(wanted)

    def _start_thread(self) -> None:
        name = f"desync-ahead-{self._threads + 1}"
        try:
            threading.Thread(target=self._read_ahead, name=name, daemon=True).start()
        except RuntimeError:
            self._most_threads = self._threads
        else:
            self._threads += 1

    def _read_ahead(self) -> None:
        while True:
            wanted = self._work.get()
            if wanted is None:
                return
            self.fetch(wanted)
            del wanted

    def stop(self) -> None:
        """See :class:`Supply`."""
        self._stopped = True
        for _ in range(self._threads):
            self._work.put(None)
