# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What goes wrong between a client and a server: connections that break in the middle."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading


class FaultyProxy:
    """
    Passes on what a server says, and breaks some of the connections.

    :param port: the server's, on this machine.
    :param budgets: for each connection in turn how many bytes of answers it lasts; those that come
        after them last.
    :ivar port: where it listens.
    :ivar broken: how many connections were broken.
    """

    def __init__(self, port: int, budgets: list[int]) -> None:
        self._server = port
        self._budgets = list(budgets)
        self.broken = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        # Closing alone wouldn't wake up the thread that waits for one.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                budget = self._budgets.pop(0) if self._budgets else None
                try:
                    server = socket.create_connection(("127.0.0.1", self._server))
                except OSError:
                    client.close()
                    continue
                for ways in (client, server, None), (server, client, budget):
                    threading.Thread(target=self._pass_on, args=ways, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, budget: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if budget is not None:
                    data = data[:budget]
                    budget -= len(data)
                target.sendall(data)
                if budget == 0:
                    self.broken += 1
                    # Not the orderly end of a connection, but that it is gone.
                    target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
        for end in source, target:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
