# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the commands that are servers share: their flags, and running until a signal comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from desync.running import run_with_reactor
from desync.services.settings import LOG_FORMATS, Setting, settings_of

from .flags import BOOLEAN, INTEGER, STRINGS, TEXT, choice, flag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from desync.services.service import ServerService
    from desync.services.settings import ServerSettings

    from .invocation import Invocation

_KINDS = {
    "text": TEXT,
    "texts": STRINGS,
    "switch": BOOLEAN,
    "number": INTEGER,
    "log format": choice(*LOG_FORMATS),
}


def server_flags(settings: Sequence[Setting]) -> Callable[[Any], Any]:
    """Declare the flags of a server."""

    def declare(function: Any) -> Any:
        for each in reversed(settings):
            old = {}
            if each.old_name:
                old = {f"--{each.old_name}": f"use --{each.name} instead"}
            function = flag(
                f"--{each.name}",
                *([f"-{each.short}"] if each.short else []),
                kind=_KINDS[each.kind],
                default=each.default,
                minimum=each.minimum,
                help=each.help,
                deprecated_spellings=old,
            )(function)
        return function

    return declare


def serve(
    invocation: Invocation,
    kind: type[ServerSettings],
    values: Mapping[str, Any],
    make: Callable[[Any, Any, Mapping[str, str]], ServerService],
) -> None:
    """
    Be a server until SIGINT or SIGTERM.

    :param kind: of its settings.
    :param values: of its flags.
    :param make: makes it, of settings, reactor and environment.
    :raises DesyncError: if it can't be started.
    """
    settings = settings_of(
        kind,
        {
            **values,
            "config_path": invocation.config.path,
            "digest": invocation.digest_name,
            "store_flags": invocation.store_flags,
        },
        invocation.environ,
    )

    async def operation(reactor: Any) -> None:
        from twisted.internet.defer import CancelledError, Deferred
        from twisted.logger import globalLogBeginner

        from desync.services.logs import operator_log

        observer = operator_log(invocation.note, verbose=invocation.verbose)
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        service = make(settings, reactor, invocation.environ)
        await service.start()
        try:
            waiting: Deferred[None] = Deferred()
            await waiting
        except CancelledError:
            # A signal: that is how servers end.
            await service.stop()

    run_with_reactor(operation)
