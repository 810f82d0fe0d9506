# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Object stores for tests, and a plain client to look into them behind a store's back."""

from __future__ import annotations

import atexit
import functools
import hashlib
import http.client
import itertools
import os
import re
import subprocess
import sys
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from desync.options import S3Credentials
from desync.stores.s3_signing import EMPTY, Keys, Signer

from .command_line import ROOT
from .moto_server import ACCESS_KEY, SECRET_KEY
from .peers import peer

_numbers = itertools.count(1)


class Service(NamedTuple):
    """
    A service that runs on this machine.

    :ivar netloc: its host and port.
    """

    netloc: str
    access_key: str
    secret_key: str

    @property
    def credentials(self) -> S3Credentials:
        """Those of the user who may do everything."""
        return S3Credentials(self.access_key, self.secret_key)

    @property
    def environ(self) -> dict[str, str]:
        """The same, as environment variables."""
        return {"S3_ACCESS_KEY": self.access_key, "S3_SECRET_KEY": self.secret_key}

    def call(self, method: str, path: str, body: bytes = b"", query: str = "") -> tuple[int, bytes]:
        """Make a request, and wait for its answer. The path isn't escaped yet."""
        target = quote(path, safe="/-_.~") + (f"?{query}" if query else "")
        checksum = hashlib.sha256(body).hexdigest() if body else EMPTY
        signer = Signer(Keys(self.access_key, self.secret_key), "us-east-1")
        headers = signer.sign(
            method, f"http://{self.netloc}{target}", {"Host": self.netloc}, checksum
        )
        parts = urlsplit(f"//{self.netloc}")
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def new_bucket(self, name: str = "") -> str:
        """Make a bucket, and give its name: one that nobody else has, if none is given."""
        name = name or f"bucket-{os.getpid()}-{next(_numbers)}"
        status, body = self.call("PUT", f"/{name}")
        if status != 200:
            raise RuntimeError(f"no bucket: {status} {body!r}")
        return name

    def put(self, bucket: str, key: str, body: bytes) -> None:
        """Write an object."""
        status, answer = self.call("PUT", f"/{bucket}/{key}", body)
        if status != 200:
            raise RuntimeError(f"not written: {status} {answer!r}")

    def get(self, bucket: str, key: str) -> bytes | None:
        """Read an object."""
        status, answer = self.call("GET", f"/{bucket}/{key}")
        return answer if status == 200 else None

    def empty(self, bucket: str) -> None:
        """Remove the objects of a bucket, of which there are a thousand at most."""
        _, listing = self.call("GET", f"/{bucket}")
        for key in re.findall("<Key>([^<]*)</Key>", listing.decode()):
            self.call("DELETE", f"/{bucket}/{key}")

    def older(self, seconds: float) -> None:
        """Make all objects older. moto only."""
        self.call("POST", "/_older", query=f"seconds={seconds:g}")


@functools.cache
def moto() -> Service:
    """Start moto, once in a process. It ends with this process."""
    return Service(f"127.0.0.1:{_start('tests.moto_server')}", ACCESS_KEY, SECRET_KEY)


def moto_over_tls(certificate: str, key: str) -> tuple[Service, str]:
    """
    Start another moto that also speaks TLS. It ends with this process.

    :returns: the service, and its host and port for TLS.
    """
    running = _start_program("tests.moto_server", certificate, key)
    plain, secure = _port_of(running), _port_of(running)
    return Service(f"127.0.0.1:{plain}", ACCESS_KEY, SECRET_KEY), f"127.0.0.1:{secure}"


@functools.cache
def radosgw() -> Service:
    """
    Start Ceph with its S3 service, once in a process. It ends with this process.

    :raises SkipTest: if it isn't installed.
    """
    for name in "ceph-mon", "ceph-osd", "radosgw":
        peer(name)
    return Service(f"127.0.0.1:{_start('tests.radosgw_server')}", ACCESS_KEY, SECRET_KEY)


@functools.cache
def gcs_emulator() -> tuple[str, str]:
    """Start an emulator of Google Cloud Storage; gives its host and port, and a bucket in it."""
    netloc = f"127.0.0.1:{_start('tests.gcs_emulator')}"
    host, _, port = netloc.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request(
        "POST",
        "/storage/v1/b?project=p",
        b'{"name": "bucket"}',
        {"Content-Type": "application/json"},
    )
    status = connection.getresponse().status
    connection.close()
    if status != 200:
        raise RuntimeError(f"no bucket: {status}")
    return netloc, "bucket"


def endless_bucket(count: int) -> Service:
    """Start a service whose bucket has so many chunks, see :mod:`tests.endless_bucket`."""
    return Service(f"127.0.0.1:{_start('tests.endless_bucket', str(count))}", "key", "secret")


# Their standard input is open as long as this process lives.
_running: list[subprocess.Popen[bytes]] = []


def _start_program(module: str, *args: str) -> subprocess.Popen[bytes]:
    running = subprocess.Popen(
        [sys.executable, "-m", module, *args],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    _running.append(running)
    return running


def _port_of(running: subprocess.Popen[bytes]) -> int:
    assert running.stdout is not None
    return int(running.stdout.readline())


def _start(module: str, *args: str) -> int:
    """Start a program that prints the port it listens on."""
    return _port_of(_start_program(module, *args))


@atexit.register
def stop_services() -> None:
    """End what was started, which happens at the end of the process anyway."""
    for running in _running:
        assert running.stdin is not None
        running.stdin.close()
        running.wait()
