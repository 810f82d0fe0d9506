# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What an index server answers."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from desync.chunking.digests import SHA256, SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import StoreError
from desync.formats.index import Index, IndexBuilder
from desync.interfaces import IIndexSource
from desync.services.counters import Counters
from desync.services.index_site import LARGEST, IndexSite, index_name
from desync.services.metering import Troubles
from desync.stores.index_local import LocalIndexStore
from desync.stores.memory import MemoryIndexStore
from desync.testing.threads import InlineThreads
from tests.server_wire import Wire, request


def sample_index(count: int = 3, digest: object = SHA512_256) -> bytes:
    """Make the bytes of an index."""
    builder = IndexBuilder(ChunkSizes(1024, 4096, 16384), digest)  # type: ignore[arg-type]
    for number in range(count):
        builder.append(2000 + number % 100, bytes([number % 251]) * 32)
    return builder.finish().to_bytes()


@implementer(IIndexSource)
class Failing:
    """A store that can't tell."""

    location = "/var/lib/secret"

    def get_index(self, name: str) -> Deferred[Index]:
        return fail(StoreError("/var/lib/secret", "Permission denied"))

    def close(self) -> Deferred[None]:
        raise NotImplementedError


class IndexTests(SynchronousTestCase):
    """Requests for indexes."""

    def serve(self, store: IIndexSource, **more: object) -> Wire:
        self.counters, self.troubles = Counters(), Troubles(lambda: 0)
        site = IndexSite(
            store,
            InlineThreads(),
            self.counters,
            self.troubles,
            digest=SHA512_256,
            **more,  # type: ignore[arg-type]
        )
        return Wire(site, counters=self.counters)

    def local(self) -> LocalIndexStore:
        self.folder = Path(self.mktemp()).absolute() / "indexes"
        self.folder.mkdir(parents=True)
        return LocalIndexStore(str(self.folder), None, InlineThreads())  # type: ignore[arg-type]

    def test_get(self) -> None:
        """An index comes as it is; what precedes its name in the path means nothing."""
        store = MemoryIndexStore()
        data = sample_index()
        store.plant("a b.caibx", data)
        wire = self.serve(store)
        for path in ("/a%20b.caibx", "/some/where/a%20b.caibx?x=y", "/../a%20b.caibx"):
            answer = wire.ask("GET", path)
            self.assertEqual((answer.code, answer.body), (200, data))
            self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")

    def test_first_bytes(self) -> None:
        """The first bytes of an index come with the head: casync takes no piece below 64 bytes."""
        store = MemoryIndexStore()
        store.plant("x.caibx", sample_index(50_000))
        wire = self.serve(store)
        writes: list[bytes] = []
        write = wire.transport.write
        wire.transport.write = lambda data: (writes.append(data), write(data))[1]  # type: ignore
        wire.send(request("GET", "/x.caibx"))
        self.assertGreater(len(writes[0].partition(b"\r\n\r\n")[2]), 64)
        [answer] = wire.answers()
        self.assertEqual(len(answer.body), len(sample_index(50_000)))

    def test_head_and_missing(self) -> None:
        """HEAD tells whether an index is there; one that isn't is 404."""
        store = MemoryIndexStore()
        store.plant("x.caibx", sample_index())
        wire = self.serve(store)
        self.assertEqual(wire.ask("HEAD", "/x.caibx").code, 200)
        self.assertEqual(wire.ask("HEAD", "/y.caibx").code, 404)
        answer = wire.ask("GET", "/y.caibx")
        self.assertEqual((answer.code, answer.body), (404, b"index not found\n"))

    def test_put(self) -> None:
        """An index that is put replaces the one before it, as a whole."""
        store = self.local()
        wire = self.serve(store, writable=True)
        for count in (2, 5):
            answer = wire.ask("PUT", "/x.caibx", sample_index(count))
            self.assertEqual((answer.code, answer.body), (200, b""))
            self.assertEqual((self.folder / "x.caibx").read_bytes(), sample_index(count))
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(sample_index()), sample_index())
        self.assertEqual(wire.ask("PUT", "/y.caibx", body, Transfer_Encoding="chunked").code, 200)
        self.assertEqual(sorted(os.listdir(self.folder)), ["x.caibx", "y.caibx"])

    def test_put_invalid(self) -> None:
        """What isn't an index, or has other ids, isn't taken, and what was there stays."""
        store = self.local()
        wire = self.serve(store, writable=True)
        wire.ask("PUT", "/x.caibx", sample_index())
        for data in (
            b"",
            b"nonsense",
            sample_index()[:-1],
            sample_index() + b"x",
            sample_index(digest=SHA256),
            b"\xff" * 200,
        ):
            answer = wire.ask("PUT", "/x.caibx", data)
            self.assertEqual(answer.code, 415, data[:20])
            self.assertTrue(answer.body.startswith(b"invalid index: "), answer.body)
            self.assertNotIn(str(self.folder).encode(), answer.body)
        self.assertEqual((self.folder / "x.caibx").read_bytes(), sample_index())
        self.assertEqual(os.listdir(self.folder), ["x.caibx"])

    def test_put_refused(self) -> None:
        """Without -w nothing is written; what is too large isn't read."""
        wire = self.serve(self.local())
        answer = wire.ask("PUT", "/x.caibx", sample_index())
        self.assertEqual(
            (answer.code, answer.body), (400, b"writing to upstream index store is not enabled\n")
        )
        self.assertEqual(os.listdir(self.folder), [])
        wire = self.serve(self.local(), writable=True)
        wire.send(request("PUT", "/x.caibx", Content_Length=str(LARGEST + 1)))
        self.assertEqual(wire.answers()[0].code, 413)

    def test_names(self) -> None:
        """Names that lead elsewhere, or can be none, are refused, escaped or not."""
        wire = self.serve(self.local(), writable=True)
        (self.folder.parent / "outside").write_bytes(b"")
        for name in (
            "/",
            "/.",
            "/..",
            "/...",
            "/a/..",
            "/..%2Foutside",
            "/%2e%2e%2foutside",
            "/..%5Coutside",
            "/a%5Cb",
            "/%2Fetc%2Fpasswd",
            "/a%00b",
            "/a%0Ab",
            "/a%7F",
            "/%C2%85",
        ):
            for method, body in (("GET", None), ("HEAD", None), ("PUT", sample_index())):
                answer = wire.ask(method, name, body)
                self.assertEqual(answer.code, 400, name)
        self.assertEqual(os.listdir(self.folder), [])
        self.assertEqual((self.folder.parent / "outside").read_bytes(), b"")
        self.assertEqual(index_name(b"/..a"), "..a")
        self.assertEqual(index_name(b"/%ff"), "\udcff")

    def test_failure(self) -> None:
        """A store that can't tell is 500; the peer learns nothing more."""
        wire = self.serve(Failing())
        answer = wire.ask("GET", "/x.caibx")
        self.assertEqual((answer.code, answer.body), (500, b"failed to retrieve index\n"))
        self.assertIn("Permission denied", self.troubles.latest()[0].what)
        (self.folder_with_broken() / "x.caibx").write_bytes(b"broken")
        answer = self.wire.ask("GET", "/x.caibx")
        self.assertEqual(answer.code, 500)

    def folder_with_broken(self) -> Path:
        self.wire = self.serve(self.local())
        return self.folder

    def test_methods(self) -> None:
        """Other methods are refused."""
        wire = self.serve(self.local(), writable=True)
        for method in ("POST", "DELETE", "PATCH", "MKCOL"):
            self.assertEqual(wire.ask(method, "/x.caibx", b"").code, 405)
