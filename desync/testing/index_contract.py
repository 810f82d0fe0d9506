# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What every store of indexes is held to; see :mod:`desync.testing.contract`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from zope.interface.verify import verifyObject

from desync.chunking.digests import SHA512_256
from desync.errors import IndexMissing, InvalidIndex
from desync.formats.flags import EXCLUDE_NODUMP
from desync.formats.flags import SHA512_256 as FLAG_SHA512_256
from desync.formats.index import Index, IndexSizes
from desync.interfaces import IIndexTarget
from desync.stores.index_files import InvalidIndexName

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.trial.unittest import TestCase

    _Base = TestCase
else:
    _Base = object

_T = TypeVar("_T")


def sample_index(count: int = 3) -> Index:
    """Make an index of some chunks of 1000 bytes."""
    items = b"".join(
        (number * 1000 + 1000).to_bytes(8, "little") + SHA512_256.id_of(b"%d" % number)
        for number in range(count)
    )
    return Index(EXCLUDE_NODUMP | FLAG_SHA512_256, IndexSizes(100, 500, 1000), items)


class IndexTargetContract(_Base):
    """What holds of every store that provides :class:`desync.interfaces.IIndexTarget`."""

    def make_store(self) -> Any:
        """Make an empty store. It is closed after the test."""
        raise NotImplementedError

    def plant(self, name: str, data: bytes) -> None:
        """Put bytes where the store finds them under a name."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.store: Any = self.make_store()
        self.addCleanup(self.store.close)

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

    def test_provides(self) -> None:
        """The store has what the interface names."""
        verifyObject(IIndexTarget, self.store)
        self.assertIsInstance(self.store.location, str)

    async def test_put_and_get(self) -> None:
        """An index that was put is there, whatever its name."""
        names = ("os.caibx", "with space", "tree.caidx", "no-suffix", "ünïcode.caibx", "..x", ".x")
        for count, name in enumerate(names):
            index = sample_index(count)
            self.assertIsNone(await self.store.put_index(name, index))
            found = await self.store.get_index(name)
            self.assertEqual(found.to_bytes(), index.to_bytes())

    async def test_get_planted(self) -> None:
        """An index that somebody else wrote is found."""
        self.plant("os.caibx", sample_index().to_bytes())
        self.assertEqual(len(await self.store.get_index("os.caibx")), 3)

    async def test_replace(self) -> None:
        """A second index replaces the first, whichever is the larger."""
        for count in 3, 1, 5:
            await self.store.put_index("os.caibx", sample_index(count))
            self.assertEqual(len(await self.store.get_index("os.caibx")), count)

    async def test_put_concurrently(self) -> None:
        """Of several put at the same time one is there in the end."""
        await gatherResults(
            [self.store.put_index("os.caibx", sample_index(count)) for count in range(5)]
        )
        self.assertIn(len(await self.store.get_index("os.caibx")), range(5))

    async def test_missing(self) -> None:
        """An index that isn't there is missing, and the error names it."""
        error = await self.fails(IndexMissing, self.store.get_index, "os.caibx")
        self.assertIn("os.caibx", str(error))

    async def test_invalid(self) -> None:
        """What isn't an index isn't handed out, and the error names it."""
        good = sample_index().to_bytes()
        for data in b"", b"rubbish", good[:-1], good + b"\0", good[:100], bytes(1000):
            self.plant("bad.caibx", data)
            error = await self.fails(InvalidIndex, self.store.get_index, "bad.caibx")
            self.assertIn("bad.caibx", str(error))
            self.assertNotIn("\n", str(error))

    async def test_names(self) -> None:
        """A name that leads elsewhere, or can't be shown, is refused."""
        for name in (
            "", ".", "..", "...", "/", "/etc/passwd", "a/b", "../a", "a/", "a\\b", "..\\a",
            "a\nb", "a\0b", "\x1b[2J", "\x7f", "\x9b31m",
        ):  # fmt: skip
            await self.fails(InvalidIndexName, self.store.get_index, name)
            await self.fails(InvalidIndexName, self.store.put_index, name, sample_index())

    async def test_cancel(self) -> None:
        """A canceled put leaves the old index or the new one."""
        await self.store.put_index("os.caibx", sample_index(1))
        putting = self.store.put_index("os.caibx", sample_index(2))
        putting.addErrback(lambda why: why.trap(CancelledError) and None)
        putting.cancel()
        await putting
        self.assertIn(len(await self.store.get_index("os.caibx")), (1, 2))

    async def test_close_twice(self) -> None:
        """Closing a store again is fine."""
        await self.store.close()
        await self.store.close()
