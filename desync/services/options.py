# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The command line of a server under ``twistd``, made of the same settings as ``desync``'s."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.python.usage import Options, UsageError

from desync.config import Config
from desync.errors import DesyncError
from desync.options import StoreFlags

from .settings import LOG_FORMATS, STORE_SETTINGS, CommonSettings, Setting, settings_of

_TRUE = frozenset({"1", "t", "true", "yes"})
_FALSE = frozenset({"0", "f", "false", "no"})


class ServerOptions(Options):
    """
    Options of a server; subclasses are made by :func:`options_for`.

    :cvar kind: of the settings that come of them.
    :ivar given: field of the settings -> value, of what was given.
    """

    kind: ClassVar[type[CommonSettings]]

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        Options.__init__(self)

    def settings(self) -> Any:
        """
        Make the settings.

        :raises UsageError: if they don't go together.
        """
        values = dict(self.given)
        names = StoreFlags._fields
        flags = StoreFlags(**{name: values.pop(name) for name in names if name in values})
        path = values.pop("config", None)
        try:
            if path is not None:
                Config.load(path, os.environ)
            more = {"config_path": path, "store_flags": flags}
            return settings_of(self.kind, {**values, **more}, os.environ)
        except DesyncError as error:
            raise UsageError(str(error)) from None

    def postOptions(self) -> None:  # noqa: N802
        """Find out at once what is wrong with them."""
        self.settings()


def _parser(setting: Setting) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if setting.kind == "number":
            try:
                number = int(text)
            except ValueError:
                raise UsageError(f"--{setting.name} takes a number") from None
            if setting.minimum is not None and number < setting.minimum:
                raise UsageError(f"--{setting.name} must be at least {setting.minimum}")
            return number
        if setting.kind == "seconds":
            return _seconds(setting.name, text)
        if setting.kind == "switch":
            if text.lower() not in _TRUE | _FALSE:
                raise UsageError(f"--{setting.name} takes true or false")
            return text.lower() in _TRUE
        if setting.kind == "log format" and text not in LOG_FORMATS:
            raise UsageError(f"--{setting.name} takes one of {', '.join(LOG_FORMATS)}")
        return text

    return parse


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e9:
        raise UsageError(f"--{name} takes a number of seconds greater than 0")
    return seconds


def _option(setting: Setting) -> Callable[..., None]:
    """Make the method that takes one option, as :class:`twisted.python.usage.Options` has them."""
    parse = _parser(setting)
    field = setting.attribute

    def switch(self: ServerOptions) -> None:
        self.given[field] = True

    def single(self: ServerOptions, value: str) -> None:
        self.given[field] = parse(value)

    def several(self: ServerOptions, value: str) -> None:
        self.given.setdefault(field, []).append(value)

    option: Callable[..., None] = single
    if setting.kind == "texts":
        option = several
    elif setting.kind == "switch" and not setting.default:
        option = switch
    option.__doc__ = setting.help
    return option


def options_for(settings: Sequence[Setting], kind: type[CommonSettings]) -> type[ServerOptions]:
    """
    Make the options of a server.

    Switches that are on unless told otherwise take ``true`` or ``false`` here.

    :param settings: its flags.
    :param kind: of the settings that come of them.
    """
    members: dict[str, Any] = {"kind": kind, "synopsis": "[options]"}
    for each in (*settings, *STORE_SETTINGS):
        members[f"opt_{each.attribute}"] = option = _option(each)
        if each.short:
            members[f"opt_{each.short}"] = option
    return type("Options", (ServerOptions,), members)
