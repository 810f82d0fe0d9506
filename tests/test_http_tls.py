# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""HTTPS and proxies: an authority of one's own, certificates of clients, a real proxy."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.chunking.digests import SHA512_256
from desync.errors import ConfigError, StoreError
from desync.formats.stored import chunk_name, form_named
from desync.options import StoreOptions
from desync.stores import http_proxies
from desync.stores.http import HTTPObjects
from desync.stores.http_proxies import Proxy, proxy_for
from desync.stores.http_server import HTTPServer
from desync.stores.keyed_chunks import KeyedChunkStore
from desync.stores.location import parse_location
from desync.testing.samples import sample_chunk
from tests.authority import Authority
from tests.command_line import desync_process
from tests.peers import peer
from tests.web_server import FileServer, ScriptedServer, reactor, response


class Case(TestCase):
    """A server with a chunk, over TLS or not, and stores on it."""

    timeout = 60.0

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.authority = Authority(self.folder)
        self.chunk = sample_chunk()

    def serve(self, host: str | None = None, *, mutual: bool = False) -> FileServer:
        """Start a server; over TLS if the name in its certificate is given."""
        context = None
        if host is not None:
            pem = b"".join(Path(path).read_bytes() for path in self.authority.issue("server", host))
            own = PrivateCertificate.loadPEM(pem)
            trusted = None
            if mutual:
                trusted = [Certificate.loadPEM(Path(self.authority.path).read_bytes()).original]
            context = CertificateOptions(
                privateKey=own.privateKey.original,
                certificate=own.original,
                verify=mutual,
                caCerts=trusted,
            )
        server = FileServer(context)
        self.addCleanup(server.stop)
        name = chunk_name(self.chunk.chunk_id, ".cacnk")
        server.files[f"/{name}"] = form_named(".cacnk").encode(self.chunk.plain)
        return server

    def store(
        self, url: str, environ: dict[str, str] | None = None, **options: Any
    ) -> KeyedChunkStore:
        """Open a store; it is closed after the test."""
        given = StoreOptions(**{"timeout": 20_000_000_000, **options})
        server = HTTPServer(parse_location(url), given, reactor, environ or {})
        store = KeyedChunkStore(HTTPObjects(server), "", reactor, digest=SHA512_256)
        self.addCleanup(store.close)
        return store

    async def works(self, store: KeyedChunkStore) -> None:
        """Make sure that the chunk can be had."""
        self.assertEqual((await store.get(self.chunk.chunk_id)).plain, self.chunk.plain)

    async def fails(self, store: KeyedChunkStore, why: str) -> None:
        """Make sure that it can't be had, for a reason."""
        try:
            await store.get(self.chunk.chunk_id)
        except StoreError as error:
            self.assertRegex(str(error), why)
            self.assertNotIn("\n", str(error))
        else:
            self.fail("it worked")


class TLSTests(Case):
    """Who is trusted, and who trusts."""

    async def test_authority(self) -> None:
        """A server is trusted if an authority that was named vouches for it, or without asking."""
        for host, url_host in (("127.0.0.1", "127.0.0.1"), ("localhost", "localhost")):
            url = self.serve(host).url("/", url_host)
            await self.works(self.store(url, ca_cert=self.authority.path))
            await self.works(self.store(url, trust_insecure=True))
            await self.fails(self.store(url), "TLS failed: certificate verify failed")
            other = Authority(self.folder, "other")
            await self.fails(self.store(url, ca_cert=other.path), "certificate verify failed")

    async def test_host_name(self) -> None:
        """A certificate for another name is refused, though the authority is trusted."""
        url = self.serve("elsewhere.example").url()
        await self.fails(
            self.store(url, ca_cert=self.authority.path), "certificate is for another name"
        )
        await self.works(self.store(url, trust_insecure=True))

    async def test_mutual(self) -> None:
        """A certificate of the client's own is shown, where the server wants one."""
        url = self.serve("127.0.0.1", mutual=True).url()
        certificate, key = self.authority.issue("client")
        trusted: dict[str, Any] = {"ca_cert": self.authority.path}
        await self.works(self.store(url, client_cert=certificate, client_key=key, **trusted))
        await self.fails(self.store(url, **trusted), "TLS|closed")

    def test_bad_files(self) -> None:
        """Files that hold no certificate or key are named, before anything is asked."""
        empty = self.folder / "empty"
        empty.write_text("nothing")
        certificate, key = self.authority.issue("client")
        bad: tuple[dict[str, Any], ...] = (
            {"ca_cert": str(empty)},
            {"ca_cert": str(self.folder / "absent")},
            {"client_cert": certificate, "client_key": str(empty)},
            {"client_cert": str(empty), "client_key": key},
        )
        for options in bad:
            with self.assertRaises(ConfigError) as caught:
                self.store("https://127.0.0.1:1/", **options)
            self.assertRegex(str(caught.exception), "empty|absent")

    async def test_not_tls(self) -> None:
        """A server that doesn't speak TLS, and one that does where it shouldn't."""
        plain = self.serve().url().replace("http://", "https://")
        # It takes what comes for the beginning of a request, and waits for more.
        store = self.store(plain, trust_insecure=True, timeout=500_000_000)
        await self.fails(store, "TLS|closed|no answer")
        secure = self.serve("127.0.0.1").url().replace("https://", "http://")
        await self.fails(self.store(secure), "closed|HTTP")


class CommandTests(Case):
    """Commands, which import the reactor without what TLS takes."""

    async def test_redirect(self) -> None:
        """A server that redirects to a secure one brings TLS in; trust counts there as ever."""
        file, index, output = (str(self.folder / name) for name in ("file", "index", "output"))
        Path(file).write_bytes(b"less than a chunk has at least")
        self.assertEqual(desync_process("make", "-s", str(self.folder), index, file).code, 0)
        [stored] = self.folder.glob("*/*.cacnk")
        name = str(stored.relative_to(self.folder))
        secure = self.serve("127.0.0.1")
        secure.files[f"/{name}"] = stored.read_bytes()
        moved = response("307 Temporary Redirect", Location=secure.url(f"/{name}"))
        plain = ScriptedServer(lambda peer, head: peer.transport.write(moved))  # type: ignore[union-attr]
        self.addCleanup(plain.stop)
        extract = ("extract", "-e", "1", "-s", plain.url(), index, output)
        refused = await deferToThread(desync_process, *extract)
        self.assertEqual(refused.code, 1)
        self.assertIn("TLS failed: certificate verify failed", refused.err)
        done = await deferToThread(desync_process, *extract, "--ca-cert", self.authority.path)
        self.assertEqual((done.code, done.err), (0, ""))
        self.assertEqual(Path(output).read_bytes(), Path(file).read_bytes())


class ProxyTests(Case):
    """Through a real proxy."""

    def proxy(self, *lines: str) -> str:
        """Start tinyproxy; give its host and port."""
        tinyproxy = peer("tinyproxy")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = self.folder / "tinyproxy.conf"
        self.log = self.folder / "tinyproxy.log"
        fixed = (f"Port {port}", "Listen 127.0.0.1", f'LogFile "{self.log}"', "LogLevel Connect")
        config.write_text("\n".join((*fixed, "MaxClients 20", "Allow 127.0.0.1", *lines, "")))
        process = subprocess.Popen([tinyproxy, "-d", "-c", str(config)])
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        # Even what is on this machine.
        self.patch(http_proxies, "_is_near", lambda host: False)
        return f"127.0.0.1:{port}"

    async def ready(self, store: KeyedChunkStore) -> None:
        """Wait until the proxy is there."""
        from twisted.internet.task import deferLater

        for _ in range(100):
            try:
                await store.has(self.chunk.chunk_id)
            except StoreError as error:
                if "refused" not in str(error):
                    return
                await deferLater(reactor, 0.1)
            else:
                return

    async def test_http(self) -> None:
        """Requests go through the proxy that the environment names."""
        proxy = self.proxy()
        url = self.serve().url()
        store = self.store(url, {"http_proxy": f"http://{proxy}"})
        await self.ready(store)
        await self.works(store)
        self.assertIn(f"GET {url}", self.log.read_text())

    async def test_https(self) -> None:
        """TLS goes through the proxy from end to end."""
        proxy = self.proxy()
        server = self.serve("127.0.0.1")
        store = self.store(server.url(), {"HTTPS_PROXY": proxy}, ca_cert=self.authority.path)
        await self.ready(store)
        await self.works(store)
        self.assertIn(f"CONNECT 127.0.0.1:{server.number}", self.log.read_text())
        untrusted = self.store(server.url(), {"HTTPS_PROXY": proxy})
        await self.fails(untrusted, "certificate verify failed")

    async def test_credentials(self) -> None:
        """The proxy is told who asks; without that it refuses."""
        proxy = self.proxy("BasicAuth user pass")
        plain, secure = self.serve(), self.serve("127.0.0.1")
        trusted: dict[str, Any] = {"ca_cert": self.authority.path}
        for server, name in ((plain, "http_proxy"), (secure, "https_proxy")):
            store = self.store(server.url(), {name: f"http://user:pass@{proxy}"}, **trusted)
            await self.ready(store)
            await self.works(store)
            store = self.store(server.url(), {name: f"http://{proxy}"}, **trusted)
            await self.fails(store, "407")

    async def test_nobody_there(self) -> None:
        """A proxy that isn't there is no server that isn't there: nothing goes past it."""
        self.patch(http_proxies, "_is_near", lambda host: False)
        server = self.serve()
        store = self.store(server.url(), {"http_proxy": "http://127.0.0.1:1"})
        await self.fails(store, "Connection refused")
        self.assertEqual(server.seen, [])


class EnvironmentTests(SynchronousTestCase):
    """Which proxy the environment names."""

    def test_exceptions(self) -> None:
        """NO_PROXY names what is asked directly; this machine always is."""
        exceptions = "a.example,.b.example:81,10.1.1.1"
        environ = {"HTTP_PROXY": "proxy.example:3128", "NO_PROXY": exceptions}
        proxy = Proxy("proxy.example", 3128, False, "")
        for host, port, expected in (
            ("a.example", 80, None),
            ("x.a.example", 80, None),
            ("c.example", 80, proxy),
            ("y.b.example", 81, None),
            ("y.b.example", 80, proxy),
            ("10.1.1.1", 80, None),
            ("localhost", 80, None),
            ("127.0.0.1", 80, None),
            ("::1", 80, None),
        ):
            self.assertEqual(proxy_for("http", host, port, environ), expected, host)
        self.assertIsNone(proxy_for("https", "c.example", 443, environ))
        self.assertIsNone(proxy_for("http", "c.example", 80, {**environ, "NO_PROXY": "*"}))
        self.assertIsNone(proxy_for("http", "c.example", 80, {**environ, "REQUEST_METHOD": "GET"}))

    def test_forms(self) -> None:
        """Proxies have schemes, ports and passwords; what can't be used is refused, unseen."""
        for text, expected in (
            ("http://h", Proxy("h", 80, False, "")),
            ("https://h", Proxy("h", 443, True, "")),
            ("http://us%20er:p@h:1", Proxy("h", 1, False, "Basic dXMgZXI6cA==")),
        ):
            self.assertEqual(proxy_for("https", "x", 443, {"https_proxy": text}), expected)
        for text in (
            "socks5://u:secret@h",
            "socks5://u:secret@h:1",
            "http://",
            "http://u:secret@h:x",
        ):
            with self.assertRaises(ConfigError) as caught:
                proxy_for("https", "x", 443, {"https_proxy": text})
            self.assertNotIn("secret", str(caught.exception))
