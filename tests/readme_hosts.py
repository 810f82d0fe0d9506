# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Web servers that stand for the hosts of README examples: each has the files of a folder."""

from __future__ import annotations

import ssl
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.peers import peer

if TYPE_CHECKING:
    from tests.readme_sandbox import Sandbox

TRUSTED = "trusted.pem"
"""The file in a sandbox that has the certificates which are trusted there, if there is one."""

DOWN = ".down"
"""A file of this name in its folder makes a server fail."""


class _Files(SimpleHTTPRequestHandler):
    """Serves files, over connections that are kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if (Path(self.directory) / DOWN).exists():
            self.send_error(503)
            return
        super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def web_folder(sandbox: Sandbox, host: str) -> Path:
    """Give the folder with the files of a host."""
    return sandbox.root / "hosts" / host.partition("://")[2].strip("/").replace(":", "-")


def web_address(sandbox: Sandbox, host: str) -> str:
    """Give the URL of the server that stands for a host, which is started if it isn't there."""
    folder = web_folder(sandbox, host)
    known = folder.with_name(f"{folder.name}.url")
    if known.exists():
        return known.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder)))
    server.daemon_threads = True
    scheme = host.partition("://")[0]
    if scheme == "https":
        server.socket = _context(sandbox).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    sandbox.cleanup.callback(server.server_close)
    sandbox.cleanup.callback(thread.join)
    sandbox.cleanup.callback(server.shutdown)
    url = f"{scheme}://127.0.0.1:{server.server_address[1]}/"
    known.write_text(url)
    return url


def _context(sandbox: Sandbox) -> ssl.SSLContext:
    """Have a server show a certificate that the sandbox trusts."""
    key, certificate = sandbox.root / "hosts" / "key.pem", sandbox.root / TRUSTED
    if not certificate.exists():
        made = ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=host", "-days", "2"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        name = ["-addext", "subjectAltName=IP:127.0.0.1"]
        command = [peer("openssl"), "req", "-x509", *curve, *made, *name]
        subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
