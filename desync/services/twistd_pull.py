# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``twistd desync-pull``: its options, and the service that they make."""

from __future__ import annotations

import os
from typing import Any

from twisted.python import usage

from desync.chunking.digests import Digest
from desync.config import Config
from desync.errors import DesyncError
from desync.options import StoreFlags
from desync.stores.threads import StoreThreads

from .listening import endpoint_description
from .pull_service import Exports, Limits, PullService, host_key


def _number(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError("must be greater than 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 0 < number < 1 << 30:
        raise ValueError("must be at least 1")
    return number


class Options(usage.Options):
    """The command line."""

    synopsis = "--users FILE [options]"
    optParameters = [  # noqa: N815, RUF012
        ["listen", "l", "tcp:2222", "where to listen: host:port, :port, or a Twisted endpoint"],
        ["users", "u", None, "file that says who may do what; read again on SIGHUP"],
        ["host-key", None, "desync-pull-host-key", "the server's private key; made if not there"],
        ["config", None, None, "configuration file, for how stores are used"],
        ["digest", None, "sha512-256", "digest algorithm of chunk ids"],
        ["max-connections", None, Limits().connections, "connections at once", _count],
        ["max-per-address", None, Limits().per_address, "of these from one address", _count],
        ["max-per-user", None, Limits().per_user, "of these of one user", _count],
        ["handshake-timeout", None, Limits().handshake, "seconds to log in", _number],
        ["idle-timeout", None, Limits().idle, "seconds without anything moving", _number],
        ["grace", None, Limits().grace, "seconds that sessions are given at the end", _number],
    ]

    def postOptions(self) -> None:  # noqa: N802
        """Make sure that what is needed is there."""
        if not self["users"]:
            raise usage.UsageError("--users is missing: the file that says who may do what")


def makeService(options: Options, reactor: Any = None) -> PullService:  # noqa: N802
    """
    Make the service.

    :param reactor: the default one if None.
    :raises UsageError: if something that the options name can't be used.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        config = Config.load(
            options["config"], os.environ, may_be_missing=options["config"] is None
        )
        digest = Digest.named(options["digest"])
        threads = StoreThreads(reactor)
        flags = StoreFlags()
        limits = Limits(
            options["max-connections"],
            options["max-per-address"],
            options["max-per-user"],
            options["handshake-timeout"],
            options["idle-timeout"],
            options["grace"],
        )

        def load() -> Exports:
            return Exports(
                options["users"],
                reactor,
                threads,
                lambda location: config.options_for(location, flags),
                digest,
            )

        description = endpoint_description(options["listen"])
        key = host_key(options["host-key"])
        return PullService(description, key, load, threads, reactor, limits)
    except DesyncError as error:
        raise usage.UsageError(str(error)) from None
