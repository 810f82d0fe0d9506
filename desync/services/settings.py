# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What can be said about a server, whether it is started by ``desync`` or by ``twistd``.

:data:`CHUNK_SERVER` and :data:`INDEX_SERVER` list the flags, of which both make theirs;
:class:`ChunkServerSettings` and :class:`IndexServerSettings` are what comes of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from desync.errors import UsageError
from desync.options import StoreFlags

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from desync.config import Config
    from desync.options import StoreOptions


class Setting(NamedTuple):
    """
    A flag of a server.

    :param name: its long spelling, without dashes.
    :param kind: what its value is.
    :param help: what it is for.
    :param short: its short spelling, without the dash.
    :param default: for what isn't None, False or empty.
    :param minimum: the smallest number that makes sense.
    :param old_name: another spelling, which is deprecated.
    """

    name: str
    kind: Literal["text", "texts", "switch", "number", "seconds", "log format"]
    help: str
    short: str = ""
    default: Any = None
    minimum: int | None = None
    old_name: str = ""

    @property
    def attribute(self) -> str:
        """The name of the field of the settings."""
        return self.name.replace("-", "_")


#: Where servers listen unless told otherwise.
DEFAULT_LISTEN: Final = ":80"

LOG_FORMATS: Final = ("combined", "json")

_LISTENING: Final = (
    Setting(
        "listen",
        "texts",
        "where to listen: host:port, :port, or a Twisted endpoint such as unix:/run/x.sock",
        short="l",
        default=(DEFAULT_LISTEN,),
    ),
)

LOGGING: Final = (
    Setting("log", "text", "log requests to this file, or to stderr if it is -"),
    Setting("log-format", "log format", "how requests are logged", default=LOG_FORMATS[0]),
)

OPERATOR: Final = Setting(
    "operator",
    "text",
    "where the operator's page, metrics and health are served; :port is on this machine alone",
)

_COMMON: Final = (
    Setting("writable", "switch", "let clients write", short="w", old_name="writeable"),
    *LOGGING,
    Setting("cert", "text", "the server's certificate, and those up to its authority, PEM"),
    Setting("key", "text", "the key of that certificate, PEM"),
    Setting("mutual-tls", "switch", "require certificates of clients, see --client-ca"),
    Setting("client-ca", "text", "authorities of clients' certificates, PEM"),
    Setting(
        "authorization",
        "text",
        "what the Authorization header has to be (default: the environment's DESYNC_HTTP_AUTH)",
    ),
    OPERATOR,
    Setting("max-connections", "number", "connections at once", default=10_000, minimum=1),
    Setting("max-requests", "number", "requests at once", default=1_000, minimum=1),
)

CHUNK_SERVER: Final = (
    Setting("store", "texts", "upstream store; several are asked in turn", short="s"),
    Setting("cache", "text", "store where chunks from upstream are kept", short="c"),
    Setting("store-file", "text", "file that names stores and cache, read again on SIGHUP"),
    *_LISTENING,
    *_COMMON,
    Setting(
        "skip-verify-read",
        "switch",
        "don't verify what is read from the stores; clients do",
        default=True,
    ),
    Setting("skip-verify-write", "switch", "don't verify what clients write"),
    Setting("uncompressed", "switch", "serve uncompressed chunks", short="u"),
    Setting("workers", "number", "processes that serve", default=1, minimum=1),
)

INDEX_SERVER: Final = (
    Setting("store", "text", "store of indexes", short="s"),
    *_LISTENING,
    *_COMMON,
)

#: Flags that say how stores are used, of those that ``desync`` has for all its commands; for
#: ``twistd``.
STORE_SETTINGS: Final = (
    Setting("config", "text", "configuration file"),
    Setting("digest", "text", "digest algorithm of chunk ids", default="sha512-256"),
    Setting("concurrency", "number", "requests to a store at once", short="n", default=10),
    Setting("client-cert", "text", "certificate to show to upstream servers, PEM"),
    Setting("client-key", "text", "key of that certificate, PEM"),
    Setting("ca-cert", "text", "authorities of upstream servers, PEM"),
    Setting("trust-insecure", "switch", "trust any certificate", short="t"),
    Setting(
        "cache-repair", "switch", "replace invalid chunks in the cache", short="r", default=True
    ),
    Setting("error-retry", "number", "how often a request that failed is tried", short="e"),
)


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """
    What is common to all servers. Fields are named as the flags.

    :param config_path: the configuration file; None for the default one.
    :param digest: the name of the digest algorithm.
    :param store_flags: how stores are used.
    """

    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    log: str | None = None
    log_format: str = LOG_FORMATS[0]
    operator: str | None = None
    max_connections: int = 10_000
    config_path: str | None = None
    digest: str = "sha512-256"
    store_flags: StoreFlags = field(default_factory=StoreFlags)

    def check(self) -> None:
        """
        Make sure that the settings go together.

        :raises UsageError: if they don't.
        """
        if not self.listen:
            raise UsageError("nowhere to listen")

    def load_config(self, environ: Mapping[str, str]) -> Config:
        """Read the configuration file."""
        from desync.config import Config

        # A file that was named has been read before; this may be the default one.
        return Config.load(self.config_path, environ, may_be_missing=True)


@dataclass(frozen=True, kw_only=True)
class ServerSettings(CommonSettings):
    """What is common to the servers of HTTP."""

    writable: bool = False
    cert: str | None = None
    key: str | None = None
    mutual_tls: bool = False
    client_ca: str | None = None
    authorization: str = ""
    max_requests: int = 1_000

    def check(self) -> None:
        """See :meth:`CommonSettings.check`."""
        super().check()
        if bool(self.cert) != bool(self.key):
            raise UsageError("--key and --cert options need to be provided together")
        if self.mutual_tls and not self.cert:
            raise UsageError("--mutual-tls requires --cert and --key (TLS must be enabled)")
        if self.client_ca and not self.cert:
            raise UsageError("--client-ca requires --cert and --key (TLS must be enabled)")
        if self.mutual_tls and not self.client_ca:
            raise UsageError(
                "--mutual-tls requires --client-ca, the authorities of clients' certificates"
            )
        if self.client_ca and not self.mutual_tls:
            raise UsageError("--client-ca requires --mutual-tls")

    def to_json(self) -> dict[str, Any]:
        """Give all fields, fit for JSON, for another process: see :meth:`from_json`."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values["store_flags"] = self.store_flags._asdict()
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make the settings that :meth:`to_json` describes."""
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        made["store_flags"] = StoreFlags(**made["store_flags"])
        return cls(**made)


@dataclass(frozen=True, kw_only=True)
class ChunkServerSettings(ServerSettings):
    """What can be said about a chunk server."""

    store: tuple[str, ...] = ()
    cache: str | None = None
    store_file: str | None = None
    skip_verify_read: bool = True
    skip_verify_write: bool = False
    uncompressed: bool = False
    workers: int = 1

    def check(self) -> None:
        """See :meth:`ServerSettings.check`."""
        super().check()
        if self.store_file:
            for name, given in (("store", self.store), ("cache", self.cache)):
                if given:
                    raise UsageError(f"--{name} and --store-file can't be used together")
        elif not self.store:
            raise UsageError("no store provided")
        if self.writable and (len(self.store) > 1 or self.cache):
            raise UsageError("Only one upstream store supported for writing and no cache")

    def options_of(self, config: Config, location: str) -> StoreOptions:
        """Say how a store is used."""
        flags = self.store_flags._replace(skip_verify=self.skip_verify_read)
        return config.options_for(location, flags)


@dataclass(frozen=True, kw_only=True)
class IndexServerSettings(ServerSettings):
    """What can be said about an index server."""

    store: str | None = None

    def check(self) -> None:
        """See :meth:`ServerSettings.check`."""
        super().check()
        if not self.store:
            raise UsageError("no store provided")


def settings_of(
    kind: type[CommonSettings], values: Mapping[str, Any], environ: Mapping[str, str]
) -> Any:
    """
    Make settings of flags, and check them.

    :param kind: of which server.
    :param values: field -> value; None for what wasn't given.
    :raises UsageError: if they don't go together.
    """
    known = {each.name for each in fields(kind)}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None and name in known
    }
    if "authorization" in known:
        given["authorization"] = given.get("authorization") or environ.get("DESYNC_HTTP_AUTH", "")
    settings = kind(**given)
    settings.check()
    return settings
