# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading an HTTP/1.1 response: httptools does it, or h11 where there is no httptools.

One parser is for one response. Informational responses (100 and so on) before it are skipped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

try:
    import httptools
except ImportError:  # a platform that it isn't built for
    httptools = None  # type: ignore[assignment,unused-ignore]

if TYPE_CHECKING:
    from typing import Any

#: The most bytes before the body.
_HEAD_LIMIT: Final = 1 << 16


class BadResponse(Exception):
    """What came isn't a response. The message says why, in one line."""


class ResponseSink(Protocol):
    """Takes what a response consists of. It may raise, which ends the reading."""

    def started(self, status: int, headers: dict[bytes, bytes]) -> None:
        """
        Take the head.

        :param headers: by lower-case name; of one that occurs several times the last.
        """

    def data(self, data: bytes) -> None:
        """Take a piece of the body."""


class ResponseParser(Protocol):
    """
    Reads one response.

    :ivar complete: whether the response is all there.
    :ivar reusable: whether the connection can be used for another one afterwards.
    """

    complete: bool
    reusable: bool

    def feed(self, data: bytes) -> None:
        """
        Take bytes, in any pieces.

        :raises BadResponse: if they can't be a response.
        :raises: whatever the sink did.
        """

    def feed_end(self) -> None:
        """
        Learn that the connection was closed: some responses end with it.

        :raises BadResponse: if the response isn't complete.
        """


class HttptoolsParser:
    """
    Reads one response with httptools. See :class:`ResponseParser`.

    :param head: whether it answers HEAD, and so has no body whatever it says.
    """

    def __init__(self, sink: ResponseSink, *, head: bool = False) -> None:
        self._sink = sink
        self._head = head
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._room = _HEAD_LIMIT
        self._started = False
        self._superfluous = False
        self._error: BaseException | None = None
        self.complete = False
        self.reusable = False

    def feed(self, data: bytes) -> None:
        """See :meth:`ResponseParser.feed`."""
        if self.complete:
            # Nobody asked for it: what it belongs to can't be known.
            self.reusable = False
            return
        if not self._started:
            self._room -= len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadResponse("the server changes to another protocol") from None
        except httptools.HttpParserError as error:
            if self._error is not None:
                raise self._error from None
            if self._head and self.complete:
                return
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadResponse(f"not an HTTP response: {why}") from None
        if not self._started and self._room < 0:
            raise BadResponse("the head of the response is too large")

    def feed_end(self) -> None:
        """See :meth:`ResponseParser.feed_end`."""
        ends = self._started and not (
            b"content-length" in self._headers or b"transfer-encoding" in self._headers
        )
        if not (self.complete or ends):
            raise BadResponse("the connection was closed in the middle of the response")
        self.complete = True
        self.reusable = False

    # What httptools calls. An exception comes out of it as one of its own.

    def on_message_begin(self) -> None:
        if self.complete:
            # Nobody asked for another one.
            self._superfluous = True
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._superfluous:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._superfluous:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._headers = {}
            return
        self._started = True
        if self._head:
            self.complete = True
            self.reusable = self._parser.should_keep_alive() or _stays(
                self._headers, self._parser.get_http_version()
            )
        self._call(self._sink.started, status, self._headers)

    def on_body(self, body: bytes) -> None:
        if not (self._head or self._superfluous):
            self._call(self._sink.data, body)

    def on_message_complete(self) -> None:
        if self._started and not (self._head or self._superfluous):
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

    def _call(self, function: Any, *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:
            self._error = error
            raise


def _stays(headers: dict[bytes, bytes], version: str) -> bool:
    # For a response to HEAD that announces a body httptools waits for it.
    connection = headers.get(b"connection", b"").lower()
    return connection != b"close" and (version == "1.1" or connection == b"keep-alive")


class H11Parser:
    """
    Reads one response with h11, which is slower. See :class:`ResponseParser`.

    :param head: whether it answers HEAD, and so has no body whatever it says.
    """

    def __init__(self, sink: ResponseSink, *, head: bool = False) -> None:
        import h11

        self._h11: Any = h11
        self._sink = sink
        self._connection = h11.Connection(h11.CLIENT, _HEAD_LIMIT)
        # It has to know the request to know the response's end.
        method = b"HEAD" if head else b"GET"
        self._connection.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"x")]))
        self._connection.send(h11.EndOfMessage())
        self.complete = False
        self.reusable = False

    def feed(self, data: bytes) -> None:
        """See :meth:`ResponseParser.feed`."""
        if self.complete:
            self.reusable = False
            return
        self._read(data)

    def feed_end(self) -> None:
        """See :meth:`ResponseParser.feed_end`."""
        if not self.complete:
            self._read(b"")
        if not self.complete:
            raise BadResponse("the connection was closed in the middle of the response")
        self.reusable = False

    def _read(self, data: bytes) -> None:
        h11 = self._h11
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Response):
                    self._sink.started(event.status_code, dict(event.headers))
                elif isinstance(event, h11.Data):
                    self._sink.data(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.complete = True
                    self.reusable = self._connection.their_state is h11.DONE
                    return
                elif not isinstance(event, h11.InformationalResponse):
                    raise BadResponse("the connection was closed in the middle of the response")
        except h11.RemoteProtocolError as error:
            raise BadResponse(f"not an HTTP response: {error}") from None


def response_parser(sink: ResponseSink, *, head: bool = False) -> ResponseParser:
    """Make a parser of the faster kind there is."""
    return H11Parser(sink, head=head) if httptools is None else HttptoolsParser(sink, head=head)
