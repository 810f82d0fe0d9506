# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Where the keys for S3 come from."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.errors import StoreError
from desync.options import S3Credentials
from desync.stores.s3_credentials import Credentials
from desync.stores.s3_signing import Keys
from desync.stores.threads import StoreThreads
from desync.testing.threads import InlineThreads, ManualThreads

reactor: Any = default_reactor

#: botocore looks for nothing of this machine's.
NOTHING = {
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
    "AWS_EC2_METADATA_DISABLED": "true",
    "HOME": "/nonexistent",
    "PATH": "/usr/bin:/bin",
}


class CredentialsCase(SynchronousTestCase):
    """What botocore finds is up to the test."""

    def setUp(self) -> None:
        self.environ(**NOTHING)
        self.now = 1000.0

    def environ(self, **variables: str) -> None:
        """Let the environment be this, and nothing else."""
        patcher = mock.patch.dict("os.environ", variables, clear=True)
        patcher.start()
        self.addCleanup(patcher.stop)

    def credentials(self, threads: Any = None, **given: str) -> Credentials:
        """Look for keys, at the time that the test says."""
        threads = threads or InlineThreads()
        return Credentials(S3Credentials(**given), "s3+http://h/b", threads, lambda: self.now)

    def current(self, credentials: Credentials) -> Keys | None:
        """Give the keys, which are there at once."""
        return self.successResultOf(Deferred.fromCoroutine(credentials.current()))

    def file(self, text: str) -> Path:
        """Write a credentials file."""
        path = Path(self.mktemp())
        path.write_text(text)
        return path


class GivenTests(CredentialsCase):
    """What the configuration says."""

    def test_keys(self) -> None:
        """Keys are used as they are, and nobody is asked."""
        given = {"access_key": "a", "secret_key": "s", "session_token": "t"}
        credentials = self.credentials(ManualThreads(), **given)
        self.assertEqual(self.current(credentials), Keys("a", "s", "t"))
        renewed = Deferred.fromCoroutine(credentials.renew(Keys("a", "s", "t")))
        self.assertIs(self.successResultOf(renewed), False)

    def test_file(self) -> None:
        """A profile of a file is read, and read again when it may have changed."""
        path = self.file(
            "[default]\naws_access_key_id = a\naws_secret_access_key : s\n"
            "[other]\naws_access_key_id=b\naws_secret_access_key=t\naws_session_token = u\n"
        )
        credentials = self.credentials(credentials_file=str(path))
        self.assertEqual(self.current(credentials), Keys("a", "s"))
        other = self.credentials(credentials_file=str(path), profile="other")
        self.assertEqual(self.current(other), Keys("b", "t", "u"))
        path.write_text("[default]\naws_access_key_id = c\naws_secret_access_key = s\n")
        self.now += 59
        self.assertEqual(self.current(credentials), Keys("a", "s"))
        self.now += 1
        self.assertEqual(self.current(credentials), Keys("c", "s"))

    def test_file_renewed(self) -> None:
        """Keys that the service says have expired are read anew at once; only others help."""
        path = self.file("[default]\naws_access_key_id = a\naws_secret_access_key = s\n")
        credentials = self.credentials(credentials_file=str(path))
        old = self.current(credentials)
        renewed = Deferred.fromCoroutine(credentials.renew(old))
        self.assertIs(self.successResultOf(renewed), False)
        path.write_text("[default]\naws_access_key_id = b\naws_secret_access_key = s\n")
        for _ in range(2):
            # The second of two that were refused finds the new ones there.
            renewed = Deferred.fromCoroutine(credentials.renew(old))
            self.assertIs(self.successResultOf(renewed), True)
        self.assertEqual(self.current(credentials), Keys("b", "s"))

    def test_bad_files(self) -> None:
        """A file without the keys is an error that names it, and no reason to go on without."""
        whole = "[default]\naws_access_key_id = a\n"
        for path, why in (
            ("/nonexistent/file", "no keys of the profile 'default'"),
            (str(self.file("")), "no keys of the profile 'default'"),
            (str(self.file(whole)), "artial credentials"),
            (str(self.file("rubbish")), ""),
            (str(self.file(whole + "aws_secret_access_key = s\n").parent), ""),
        ):
            credentials = self.credentials(credentials_file=path)
            failed = Deferred.fromCoroutine(credentials.current())
            error = self.failureResultOf(failed, StoreError).value
            self.assertIn(path, str(error))
            self.assertIn(why, str(error))
            self.assertNotIn("\n", str(error))

    def test_waiting(self) -> None:
        """Whoever needs keys while they are read waits for the same reading."""
        threads = ManualThreads()
        path = self.file("[default]\naws_access_key_id = a\naws_secret_access_key = s\n")
        credentials = self.credentials(threads, credentials_file=str(path))
        waiting = [Deferred.fromCoroutine(credentials.current()) for _ in range(3)]
        self.assertEqual(threads.waiting, 1)
        threads.advance()
        found = self.successResultOf(gatherResults(waiting))
        self.assertEqual(found, [Keys("a", "s")] * 3)


class ChainTests(CredentialsCase):
    """What botocore finds."""

    def test_nothing(self) -> None:
        """Without any keys, requests aren't signed."""
        self.assertIsNone(self.current(self.credentials()))

    def test_profile(self) -> None:
        """AWS's own files and variables count, and say the region too."""
        path = self.file("[mine]\naws_access_key_id = a\naws_secret_access_key = s\n")
        config = self.file("[profile mine]\nregion = eu-north-1\n")
        variables = {
            "AWS_PROFILE": "mine",
            "AWS_SHARED_CREDENTIALS_FILE": str(path),
            "AWS_CONFIG_FILE": str(config),
        }
        self.environ(**{**NOTHING, **variables})
        credentials = self.credentials()
        self.assertEqual(self.current(credentials), Keys("a", "s"))
        self.assertEqual(credentials.region, "eu-north-1")
        configured = self.credentials(region="eu-west-1")
        self.current(configured)
        self.assertEqual(configured.region, "eu-west-1")

    def test_unknown_profile(self) -> None:
        """A profile that isn't there is an error."""
        self.environ(**{**NOTHING, "AWS_PROFILE": "none"})
        failed = Deferred.fromCoroutine(self.credentials().current())
        self.assertIn("none", str(self.failureResultOf(failed, StoreError).value))

    def test_role(self) -> None:
        """The role of a container gives keys that expire, and are renewed in time."""
        service = RoleService()
        self.addCleanup(service.stop)
        self.environ(**{**NOTHING, "AWS_CONTAINER_CREDENTIALS_FULL_URI": service.url})
        credentials = self.credentials()
        self.assertEqual(self.current(credentials), Keys("a1", "s", "t"))
        self.now += 1000
        self.assertEqual(self.current(credentials), Keys("a1", "s", "t"))
        self.assertEqual(service.asked, 1)
        service.lifetime = timedelta(seconds=30)
        renewed = Deferred.fromCoroutine(credentials.renew(Keys("a1", "s", "t")))
        self.assertIs(self.successResultOf(renewed), True)
        # These are nearly over, but aren't asked for anew at each request.
        asked = service.asked
        self.now += 59
        self.assertEqual(self.current(credentials), Keys(f"a{asked}", "s", "t"))
        self.now += 1
        self.assertEqual(self.current(credentials), Keys(f"a{asked + 1}", "s", "t"))


class ThreadTests(TestCase):
    """With real threads."""

    async def test_not_in_reactor(self) -> None:
        """botocore works in another thread than the reactor."""
        threads = StoreThreads(reactor, 1)
        self.addCleanup(threads.stop)
        found: list[threading.Thread] = []

        def find(*args: Any) -> tuple[None, None, str]:
            found.append(threading.current_thread())
            return None, None, ""

        self.patch(
            __import__("desync.stores.s3_credentials").stores.s3_credentials, "_ask_chain", find
        )
        self.assertIsNone(await Credentials(S3Credentials(), "b", threads).current())
        self.assertIsNot(found[0], threading.main_thread())


class RoleService:
    """What gives containers the keys of their role: a1, a2 and so on."""

    def __init__(self) -> None:
        self.asked = 0
        self.lifetime = timedelta(hours=1)
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked += 1
                expires = datetime.now(UTC) + service.lifetime
                answer = json.dumps(
                    {
                        "AccessKeyId": f"a{service.asked}",
                        "SecretAccessKey": "s",
                        "Token": "t",
                        "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    }
                ).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/role"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
