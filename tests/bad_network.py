# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A network between a client and a real server that does what networks do now and then."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence

_STEP = 1 << 14


class BadNetwork:
    """
    Passes bytes on to a server, until something happens.

    :param port: of the server, on this machine.
    :param after: how many bytes of answers pass before it does.
    :param event: what happens then: ``cut`` (every connection is reset, and nobody can connect any
        more), ``stall`` (nothing passes any more), ``flip`` (one bit in each further piece is
        flipped), ``trickle`` (the rest of that piece comes byte by byte, and nothing after it), or
        nothing.
    :param then: called when it happens.
    :param budgets: for each connection in turn how many bytes of answers it lasts before it is
        reset; those that come after them last.
    :ivar broken: how many connections came to the end of their budget.
    """

    def __init__(
        self,
        port: int,
        after: int = 1 << 62,
        event: str = "",
        then: Callable[[], object] = lambda: None,
        budgets: Sequence[int] = (),
    ) -> None:
        self._port = port
        self._left = after
        self._event = event
        self._then = then
        self._budgets = list(budgets)
        self.broken = 0
        self._happened = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def happened(self) -> bool:
        """Whether the event has taken place."""
        return self._happened.is_set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                self._reset(client)
                continue
            with self._lock:
                self._sockets += [client, server]
            if self._closed.is_set():
                self._reset(client)
                self._reset(server)
            budget = self._budgets.pop(0) if self._budgets else None
            for ways in (client, server, False, None), (server, client, True, budget):
                threading.Thread(target=self._pass, args=ways, daemon=True).start()

    def _pass(
        self, source: socket.socket, target: socket.socket, counted: bool, budget: int | None
    ) -> None:
        try:
            while data := source.recv(_STEP):
                if counted:
                    data = self._meddle(data, target)
                if budget is None:
                    target.sendall(data)
                    continue
                target.sendall(data[:budget])
                budget -= min(len(data), budget)
                if not budget:
                    self.broken += 1
                    self._reset(target)
                    break
        except OSError:
            pass
        for each in source, target:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _meddle(self, data: bytes, target: socket.socket) -> bytes:
        with self._lock:
            self._left -= len(data)
            due = self._left < 0 and bool(self._event)
            first = due and not self._happened.is_set()
            if first:
                self._happened.set()
        if first:
            self._then()
        if not due:
            return data
        if self._event == "cut":
            self.close()
            raise OSError
        if self._event == "stall":
            self._closed.wait()
            raise OSError
        if self._event == "trickle":
            for byte in data:
                target.sendall(bytes([byte]))
                if self._closed.wait(0.02):
                    break
            raise OSError
        middle = len(data) // 2
        return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]

    @staticmethod
    def _reset(each: socket.socket) -> None:
        try:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.shutdown(socket.SHUT_RD)
            each.close()
        except OSError:
            pass

    def close(self) -> None:
        """Reset every connection, and accept no more. Twice is fine."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            self._reset(each)
