# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What can be said about servers, on either command line, and where they are told to listen."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError as OptionsError
from twisted.trial.unittest import SynchronousTestCase

from desync.cli.chunk_server import chunk_server
from desync.errors import FileError, UsageError
from desync.services import twistd_servers
from desync.services.certificates import tls_options
from desync.services.listening import endpoint_description
from desync.services.settings import CHUNK_SERVER, ChunkServerSettings, settings_of
from tests.command_line import Outcome, desync, desync_process


class EndpointTests(SynchronousTestCase):
    """What ``-l`` takes."""

    def test_addresses(self) -> None:
        """Hosts and ports, by number or name, mean TCP."""
        any_ = r"interface=\:\:"
        for text, description in (
            (":8080", f"tcp:8080:{any_}"),
            (":http", f"tcp:80:{any_}"),
            (":0", f"tcp:0:{any_}"),
            ("127.0.0.1:https", "tcp:443:interface=127.0.0.1"),
            ("[::1]:8080", r"tcp:8080:interface=\:\:1"),
            ("localhost:1", "tcp:1:interface=localhost"),
        ):
            self.assertEqual(endpoint_description(text), f"{description}:backlog=1024")

    def test_descriptions(self) -> None:
        """Endpoint descriptions are what they are."""
        for text in ("tcp:80", "unix:/run/x.sock:mode=660", "systemd:domain=INET:index=0", "ssl:1"):
            self.assertEqual(endpoint_description(text), text)

    def test_bad(self) -> None:
        """Anything else is refused."""
        for text in ("", "80", "host", ":", "host:", ":65536", ":nosuchport", "::1:80", ":-1"):
            self.assertRaises(UsageError, endpoint_description, text)


class SettingsTests(SynchronousTestCase):
    """Which settings go together."""

    def refused(self, **values: object) -> str:
        error = self.assertRaises(
            UsageError, settings_of, ChunkServerSettings, {"store": ["/s"], **values}, {}
        )
        return str(error)

    def test_refused(self) -> None:
        """What the reference refuses is refused, in its words."""
        pair = {"cert": "c", "key": "k"}
        for values, words in (
            ({"cert": "c"}, "--key and --cert options need to be provided together"),
            ({"key": "k"}, "--key and --cert options need to be provided together"),
            ({"mutual_tls": True, "client_ca": "a"}, "--mutual-tls requires --cert and --key"),
            ({"client_ca": "a"}, "--client-ca requires --cert and --key"),
            ({"mutual_tls": True, **pair}, "--mutual-tls requires --client-ca"),
            ({"client_ca": "a", **pair}, "--client-ca requires --mutual-tls"),
            ({"store": []}, "no store provided"),
            ({"store_file": "f"}, "--store and --store-file can't be used together"),
            (
                {"store": [], "store_file": "f", "cache": "c"},
                "--cache and --store-file can't be used together",
            ),
            ({"writable": True, "store": ["/a", "/b"]}, "Only one upstream store supported"),
            ({"writable": True, "cache": "/c"}, "Only one upstream store supported"),
        ):
            self.assertIn(words, self.refused(**values))

    def test_environment(self) -> None:
        """The Authorization header is in the environment unless it is given."""
        environ = {"DESYNC_HTTP_AUTH": "Bearer env"}
        for given, expected in ((None, "Bearer env"), ("", "Bearer env"), ("Basic x", "Basic x")):
            settings = settings_of(
                ChunkServerSettings, {"store": ["/s"], "authorization": given}, environ
            )
            self.assertEqual(settings.authorization, expected)

    def test_defaults(self) -> None:
        """What the lists of flags say about defaults is what the settings have."""
        settings = ChunkServerSettings()
        for each in CHUNK_SERVER:
            self.assertEqual(
                getattr(settings, each.attribute) or None, each.default or None, each.name
            )


class CommandLineTests(SynchronousTestCase):
    """Both command lines."""

    def test_same_flags(self) -> None:
        """``twistd`` takes every flag that ``desync`` takes, but for those of all its commands."""
        options = twistd_servers.chunk_server.Options()
        ours = {flag.long.removeprefix("--") for flag in chunk_server.own_flags}
        theirs = {name.rstrip("=") for name in options.longOpt}
        self.assertEqual(ours - theirs, {"error-retry-base-interval"})

    def test_options(self) -> None:
        """What is given to ``twistd`` arrives in the settings."""
        options: Any = twistd_servers.chunk_server.Options()
        options.parseOptions(
            [
                *("--store", "/a", "-s", "/b", "-c", "/c", "--listen", "tcp:80", "-l", "unix:/x"),
                *("-u", "--log", "-", "--log-format", "json", "--skip-verify-read=false", "-n3"),
            ]
        )
        settings = options.settings()
        self.assertEqual(settings.store, ("/a", "/b"))
        self.assertEqual(settings.listen, ("tcp:80", "unix:/x"))
        self.assertTrue(settings.uncompressed)
        self.assertFalse(settings.skip_verify_read)
        self.assertFalse(settings.writable)
        self.assertEqual((settings.log, settings.log_format), ("-", "json"))
        self.assertEqual(settings.store_flags.concurrency, 3)

    def test_bad_options(self) -> None:
        """What can't be is a usage error."""
        for args in (
            "",
            "-s /a --cert x",
            "-s /a --max-requests 0",
            "-s /a --max-requests many",
            "-s /a --log-format xml",
            "-s /a --skip-verify-read=perhaps",
            "-s /a --config /nonexistent/config.json",
        ):
            options: Any = twistd_servers.chunk_server.Options()
            self.assertRaises(OptionsError, options.parseOptions, args.split())

    def test_make_service(self) -> None:
        """The service can be made without being started; a bad store is a usage error."""
        path = self.mktemp()
        options: Any = twistd_servers.chunk_server.Options()
        options.parseOptions(["-s", path])
        reactor = MemoryReactorClock()
        self.assertRaises(OptionsError, twistd_servers.chunk_server.makeService, options, reactor)
        os.mkdir(path)
        service: Any = twistd_servers.chunk_server.makeService(options, reactor)
        self.assertEqual(reactor.tcpServers, [])
        service.startService()
        [[port, factory, *_]] = reactor.tcpServers
        [part] = service.parts
        self.assertEqual((port, factory), (80, part.server))
        self.successResultOf(service.stopService())

    def test_errors(self) -> None:
        """``desync`` says in one line what is wrong."""
        bad: tuple[tuple[str, ...], ...] = (
            (),
            ("-s", ".", "--cert", "x"),
            ("-s", ".", "--log-format", "xml"),
            ("-s", ".", "--store-file", "x"),
        )
        for args in bad:
            self.assert_error(desync("chunk-server", *args))
        bad = (
            ("-s", "/nonexistent"),
            ("-s", ".", "-l", "nowhere"),
            ("-s", ".", "-l", "192.0.2.1:80"),
            ("-s", ".", "--log", "/nonexistent/log"),
            ("-s", ".", "--cert", "/nonexistent", "--key", "/nonexistent"),
            ("--store-file", "/nonexistent"),
        )
        for args in bad:
            self.assert_error(desync_process("chunk-server", *args))

    def assert_error(self, outcome: Outcome) -> None:
        """Make sure that a command ended with an error of one line."""
        self.assertEqual((outcome.code, outcome.out), (1, b""), outcome)
        self.assertTrue(outcome.err.startswith("Error: "), outcome.err)
        self.assertEqual(outcome.err.count("\n"), 1, outcome.err)


class CertificateTests(SynchronousTestCase):
    """Files for TLS that can't be used."""

    def test_bad(self) -> None:
        """They are named, with the reason."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        for cert in (path, "/nonexistent", "/"):
            error = self.assertRaises(FileError, tls_options, cert, path, None)
            self.assertIn(cert, str(error))
