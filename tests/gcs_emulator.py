# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Google Cloud Storage as gcp-storage-emulator imitates it, as a program of its own.

It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import logging
import socketserver
import sys

from tests.radosgw_server import free_port


def main() -> None:
    """Serve."""
    from gcp_storage_emulator.server import create_server

    logging.disable(logging.CRITICAL)
    # Clients that leave are no news.
    socketserver.BaseServer.handle_error = lambda *_: None  # type: ignore[method-assign]
    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    print(port, flush=True)
    sys.stdin.buffer.read()
    server.stop()


if __name__ == "__main__":
    main()
