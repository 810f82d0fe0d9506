# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What servers say: to the operator, and about each request if asked for.

Both go through Twisted's logger. Requests are events of the namespace ``desync.access``, with the
fields of :func:`access_event`; they are formatted only if somebody wants to see them.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    Logger,
    LogLevel,
    PredicateResult,
    formatEvent,
)
from zope.interface import implementer, provider

from desync.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from twisted.logger import LogEvent

    from .exchange import Exchange

ACCESS: Final = "desync.access"
SERVER: Final = "desync.server"

_access = Logger(namespace=ACCESS)

_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


def log_access(exchange: Exchange) -> None:
    """Emit the event for a request that is over."""
    _access.info(
        "{client} {method} {uri} {status}",
        client=exchange.connection.peer,
        method=_text(exchange.method),
        uri=_text(exchange.uri),
        protocol=_text(exchange.version),
        status=exchange.code,
        bytes=exchange.sent,
        referer=_text(exchange.header(b"Referer") or b"-"),
        agent=_text(exchange.header(b"User-Agent") or b"-"),
    )


def log_session(user: str, client: str, verb: str, names: str, outcome: str, size: int) -> None:
    """
    Emit the event for a session over SSH that is over, in the fields of a request.

    :param names: what it was about, in printable characters.
    :param outcome: how it ended, in a word.
    :param size: bytes of what was transferred.
    """
    _access.info(
        "{client} {method} {uri} {status}",
        client=client,
        user=user,
        method=verb.upper(),
        uri=_text(names.encode()).replace(" ", "+"),
        protocol="casync",
        status=outcome.replace(" ", "-"),
        bytes=size,
        referer="-",
        agent="-",
    )


def _text(data: bytes) -> str:
    # Whatever a peer sent is printable afterwards, and within its quotes.
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in data
    )


def combined(event: LogEvent) -> str:
    """Format a request as a line of the combined format, in local time."""
    who = f"{event['client']} - {event.get('user', '-')}"
    return (
        f'{who} [{_local_time(event["log_time"])}] "{event["method"]}'
        f' {event["uri"]} {event["protocol"]}" {event["status"]} {event["bytes"] or "-"}'
        f' "{event["referer"]}" "{event["agent"]}"'
    )


def _local_time(seconds: float) -> str:
    moment = time.localtime(seconds)
    month = _MONTHS[3 * moment.tm_mon - 3 : 3 * moment.tm_mon]
    offset = moment.tm_gmtoff // 60
    zone = f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}{abs(offset) % 60:02}"
    return (
        f"{moment.tm_mday:02}/{month}/{moment.tm_year}"
        f":{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02} {zone}"
    )


_FIELDS: Final = ("client", "method", "uri", "protocol", "status", "bytes", "referer", "agent")


def as_json(event: LogEvent) -> str:
    """Format a request as a JSON object on one line."""
    fields = ("user", *_FIELDS) if "user" in event else _FIELDS
    return json.dumps({"time": round(event["log_time"], 3), **{n: event[n] for n in fields}})


@implementer(ILogObserver)
class AccessLog:
    """
    Writes the requests to a file.

    :param path: appended to; ``-`` is stderr.
    :param log_format: ``combined`` or ``json``.
    :raises FileError: if it can't be opened.
    """

    def __init__(self, path: str, log_format: str) -> None:
        self._format = as_json if log_format == "json" else combined
        self._owned = path != "-"
        self._file: TextIO = sys.stderr
        self._path = path
        if self._owned:
            self._open()

    def _open(self) -> None:
        try:
            self._file = open(self._path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise FileError(self._path, error.strerror or str(error)) from None

    def __call__(self, event: LogEvent) -> None:
        """Take an event, and write it if it is a request."""
        if event.get("log_namespace") != ACCESS:
            return
        try:
            self._file.write(self._format(event) + "\n")
            if not self._owned:
                self._file.flush()
        except (OSError, ValueError):
            # A full disk doesn't keep anybody from being served.
            pass

    def reopen(self) -> None:
        """Open the file anew, after it was moved away."""
        if self._owned:
            old = self._file
            self._open()
            old.close()

    def close(self) -> None:
        """Close the file."""
        if self._owned:
            self._file.close()


def operator_log(say: Callable[[str], None], *, verbose: bool = False) -> ILogObserver:
    """
    Make an observer that tells what a server has to say, a line each.

    :param say: takes a line.
    :param verbose: also what Twisted itself has to say.
    """

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None and not text:
            text = f"internal error: {failure.value!r}"
        say(" ".join(text.split()))
        if verbose and failure is not None:
            for line in failure.getTraceback().splitlines():
                say(line)

    @provider(ILogFilterPredicate)
    def wanted(event: LogEvent) -> Any:
        namespace, level = event.get("log_namespace", ""), event.get("log_level", LogLevel.info)
        if namespace == ACCESS:
            return PredicateResult.no
        ours = namespace == SERVER and level >= LogLevel.info
        return PredicateResult.yes if ours or level >= LogLevel.error else PredicateResult.no

    return FilteringLogObserver(observe, [wanted])
