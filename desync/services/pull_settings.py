# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What can be said about the SSH server ``twistd desync-pull``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from desync.errors import UsageError

from .pull_links import Limits
from .settings import LOGGING, OPERATOR, CommonSettings, Setting

_DEFAULT: Final = Limits()

DEFAULT_LISTEN: Final = "tcp:2222"

PULL_SERVER: Final = (
    Setting(
        "listen",
        "texts",
        f"where to listen: host:port, :port, or a Twisted endpoint (default {DEFAULT_LISTEN})",
        short="l",
        default=(DEFAULT_LISTEN,),
    ),
    Setting("users", "text", "file that says who may do what; read again on SIGHUP", short="u"),
    Setting(
        "host-key",
        "text",
        "the server's private key; made if it isn't there (default desync-pull-host-key)",
    ),
    *LOGGING,
    OPERATOR,
    Setting(
        "max-connections",
        "number",
        f"connections at once (default {_DEFAULT.connections})",
        minimum=1,
    ),
    Setting(
        "max-per-address",
        "number",
        f"of these from one address (default {_DEFAULT.per_address})",
        minimum=1,
    ),
    Setting(
        "max-per-user", "number", f"of these of one user (default {_DEFAULT.per_user})", minimum=1
    ),
    Setting("handshake-timeout", "seconds", f"to log in (default {_DEFAULT.handshake:g})"),
    Setting("idle-timeout", "seconds", f"without anything moving (default {_DEFAULT.idle:g})"),
    Setting("grace", "seconds", f"that sessions are given at the end (default {_DEFAULT.grace:g})"),
)


@dataclass(frozen=True, kw_only=True)
class PullSettings(CommonSettings):
    """What comes of the flags. Fields are named as these."""

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    users: str | None = None
    host_key: str = "desync-pull-host-key"
    max_connections: int = _DEFAULT.connections
    max_per_address: int = _DEFAULT.per_address
    max_per_user: int = _DEFAULT.per_user
    handshake_timeout: float = _DEFAULT.handshake
    idle_timeout: float = _DEFAULT.idle
    grace: float = _DEFAULT.grace

    def check(self) -> None:
        """See :meth:`.settings.CommonSettings.check`."""
        super().check()
        if not self.users:
            raise UsageError("--users is missing: the file that says who may do what")

    def limits(self) -> Limits:
        """Say what clients are held to."""
        return Limits(
            self.max_connections,
            self.max_per_address,
            self.max_per_user,
            self.handshake_timeout,
            self.idle_timeout,
            self.grace,
        )
