# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The configuration file, and what it and the command line together say about a store.

The file is Go desync's: JSON with ``s3-credentials``, ``oci-credentials`` and ``store-options``,
whose keys are locations or patterns of locations. Names of fields match in any case, unknown ones
are ignored, numbers are whole, durations are nanoseconds. Beyond Go's: patterns in the keys of
``s3-credentials``, the deprecated ``http-timeout`` and ``http-error-retry``, an ``error-retry`` of
0 that survives ``config -w``, and the store options ``any-form``, ``single-requests`` and
``compression-level``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from .config_fields import (
    OCI_FIELDS,
    OPTION_FIELDS,
    S3_FIELDS,
    SECRET_FIELDS,
    Section,
    checked,
    fields_of,
    read_section,
    shown_section,
)
from .errors import ConfigError, describe_os_error
from .masking import mask_location
from .options import S3Credentials, StoreFlags, StoreOptions
from .patterns import BadPattern, match

__all__ = ["Config", "S3Credentials", "StoreFlags", "StoreOptions", "location_matches"]


class Config:
    """
    A configuration, loaded or empty.

    :ivar path: the file it belongs to; None when there is no home directory to have one in.
    :ivar warnings: lines for the user about what the file says.
    """

    __slots__ = (
        "_environ",
        "http_error_retry",
        "http_timeout",
        "oci_credentials",
        "path",
        "s3_credentials",
        "store_options",
        "warnings",
    )

    def __init__(self, path: str | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.s3_credentials: Section | None = None
        self.oci_credentials: Section | None = None
        self.store_options: Section | None = None
        self.http_timeout = 0
        self.http_error_retry = 0
        self._environ: Mapping[str, str] = {} if environ is None else environ

    @classmethod
    def load(
        cls, path: str | None, environ: Mapping[str, str], *, may_be_missing: bool = False
    ) -> Config:
        """
        Read the configuration file.

        :param path: the file that the user named; None, or empty, for the one in the home
            directory, ``.config/desync/config.json``, which needn't exist.
        :param environ: the environment, for HOME and later for credentials.
        :param may_be_missing: whether a named file needn't exist either (it's about to be written).
        :raise ConfigError: if the file can't be read, or isn't a configuration.
        """
        named = bool(path)
        if not path:
            home = environ.get("HOME", "")
            if not home:
                return cls(None, environ)
            path = os.path.join(home, ".config", "desync", "config.json")
        config = cls(path, environ)
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError as error:
            if named and not may_be_missing:
                raise ConfigError(describe_os_error(error, path)) from error
            return config
        except OSError as error:
            raise ConfigError(describe_os_error(error, path)) from error
        config._read(content)
        return config

    def options_for(self, location: str, flags: StoreFlags | None = None) -> StoreOptions:
        """
        Say how to use a chunk store. A failover group is asked for member by member.

        :param location: as the user wrote it.
        :param flags: what the command line says about all stores.
        :raise ConfigError: if several entries of the configuration match.
        """
        entry = _only_match(self.store_options, location, "store-options", location_matches)
        values = {} if entry is None else {_attribute(key): value for key, value in entry.items()}
        if values.get("n") == 0:
            del values["n"]
        options = StoreOptions(**values)
        if location.lower().startswith(("http://", "https://")):
            if options.timeout == 0 and self.http_timeout > 0:
                options = options._replace(timeout=self.http_timeout)
            if self.http_error_retry and "error_retry" not in values:
                options = options._replace(error_retry=self.http_error_retry)
        if options.encryption and not options.encryption_key:
            key = self._environ.get("DESYNC_ENCRYPTION_KEY", "")
            options = options._replace(encryption_key=key)
        if location.lower().startswith(("s3+http://", "s3+https://")):
            options = options._replace(s3=self.s3_credentials_for(location))
        return options if flags is None else flags.over(options)

    def index_options_for(self, location: str, flags: StoreFlags | None = None) -> StoreOptions:
        """
        Say how to use the store that an index is in: what precedes the last slash of its location.

        Without a slash that's empty, and stands for the working directory, ``-`` included.

        :raise ConfigError: if several entries match, or the one that does asks for encryption.
        """
        separator = "/" if "/" in location else "\\"
        options = self.options_for(location.rpartition(separator)[0], flags)
        if options.encryption or options.encryption_algorithm or options.encryption_key:
            raise ConfigError(
                f'store options for "{mask_location(location)}": '
                "encryption is not supported by index stores"
            )
        return options

    def s3_credentials_for(self, location: str) -> S3Credentials:
        """
        Find the credentials for an S3 store: those of the environment, else the configuration's.

        :param location: the store's, ``s3+https://host[:port]/bucket...``.
        :raise ConfigError: if no entry is exactly for that server and several patterns match it.
        """
        env = self._environ
        access, secret = env.get("S3_ACCESS_KEY", ""), env.get("S3_SECRET_KEY", "")
        token = env.get("S3_SESSION_TOKEN", "")
        if not access and not secret:
            access = env.get("AWS_ACCESS_KEY_ID", "")
            secret = env.get("AWS_SECRET_ACCESS_KEY", "")
            token = env.get("AWS_SESSION_TOKEN", "")
        if access or secret:
            return S3Credentials(access, secret, token, region=env.get("S3_REGION", ""))
        server = _server_of(location)
        entry = (self.s3_credentials or {}).get(server)
        if entry is None:
            entry = _only_match(self.s3_credentials, server, "s3-credentials", _server_matches)
        if entry is None:
            return S3Credentials()
        region = entry.get("aws-region", "")
        if entry.get("access-key"):
            return S3Credentials(entry["access-key"], entry.get("secret-key", ""), region=region)
        file = entry.get("aws-credentials-file", "")
        if not file:
            return S3Credentials(region=region)
        profile = entry.get("aws-profile") or env.get("AWS_PROFILE") or "default"
        return S3Credentials(credentials_file=file, profile=profile, region=region)

    def secrets(self) -> Iterator[str]:
        """List every secret that the configuration and the environment hold, to be masked."""
        for section in (self.s3_credentials, self.oci_credentials, self.store_options):
            for entry in (section or {}).values():
                for name in SECRET_FIELDS & entry.keys():
                    if entry[name]:
                        yield entry[name]
        for name in _SECRET_VARIABLES:
            if self._environ.get(name):
                yield self._environ[name]

    def to_json(self, *, show_secrets: bool = True) -> str:
        """
        Write the configuration as Go desync does, entries sorted and with what absent fields mean.

        :param show_secrets: whether secrets are shown, or ``***`` in their place.
        :return: the text, without a newline at its end.
        """
        from . import gojson

        shown: dict[str, gojson.Value] = {}
        if self.http_timeout:
            shown["http-timeout"] = self.http_timeout
        if self.http_error_retry:
            shown["http-error-retry"] = self.http_error_retry
        for name, section, known in (
            ("s3-credentials", self.s3_credentials, S3_FIELDS),
            ("oci-credentials", self.oci_credentials, OCI_FIELDS),
            ("store-options", self.store_options, OPTION_FIELDS),
        ):
            shown[name] = shown_section(section, known, show_secrets)
        return gojson.dumps(shown)

    def write(self) -> str:
        """
        Write the configuration, secrets and all, to its file, which only its owner can read.

        An existing file is replaced as a whole or not at all.

        :return: the path.
        :raise ConfigError: if there is no path, or it can't be written.
        """
        if self.path is None:
            raise ConfigError("HOME is not set; name a file with --config")
        # Through a symlink, as opening the file for writing would go.
        target = os.path.realpath(self.path)
        temporary = f"{target}.{os.getpid()}.tmp"
        try:
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with open(descriptor, "w", encoding="utf-8") as file:
                    file.write(self.to_json())
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError as error:
            raise ConfigError(describe_os_error(error, self.path)) from error
        return self.path

    def _read(self, content: bytes) -> None:
        import json

        where = str(self.path)
        try:
            document = json.loads(
                content.decode("utf-8", "surrogateescape"), parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"reading {where}: {error}") from error
        if document is None:
            return
        fields = fields_of(document, where, "the configuration")
        self.s3_credentials = read_section(fields, "s3-credentials", S3_FIELDS, where)
        self.oci_credentials = read_section(fields, "oci-credentials", OCI_FIELDS, where)
        self.store_options = read_section(fields, "store-options", OPTION_FIELDS, where)
        self.http_timeout = checked(fields.get("http-timeout"), int, 0, where, "http-timeout")
        self.http_error_retry = checked(
            fields.get("http-error-retry"), int, 0, where, "http-error-retry"
        )
        for old, new in (("http-timeout", "timeout"), ("http-error-retry", "error-retry")):
            if fields.get(old) is not None:
                self.warnings.append(
                    f"{where}: {old} is deprecated, use {new} in store-options instead"
                )


_SECRET_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "DESYNC_ENCRYPTION_KEY",
    "DESYNC_HTTP_AUTH",
    "DESYNC_OCI_PASSWORD",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "S3_SESSION_TOKEN",
)


def location_matches(pattern: str, location: str) -> bool:
    """
    Tell whether a key of ``store-options`` is meant for a location.

    A location with a scheme is compared as text, less one slash at the end; a path after both it
    and the pattern were made absolute. ``*`` and ``?`` don't match slashes. A malformed pattern
    matches nothing.
    """
    if _has_scheme(location):
        pattern, location = pattern.removesuffix("/"), location.removesuffix("/")
    else:
        pattern, location = os.path.abspath(pattern), os.path.abspath(location)
    return _matches(pattern, location)


def _server_matches(pattern: str, server: str) -> bool:
    return _matches(pattern.removesuffix("/"), server)


def _matches(pattern: str, name: str) -> bool:
    try:
        return match(pattern, name)
    except BadPattern:
        return False


def _has_scheme(location: str) -> bool:
    # One letter is a Windows drive.
    scheme, colon, _ = location.partition(":")
    return (
        bool(colon)
        and len(scheme) > 1
        and scheme.isascii()
        and scheme[0].isalpha()
        and all(character.isalnum() or character in "+-." for character in scheme)
    )


def _server_of(location: str) -> str:
    scheme, _, rest = location.partition("://")
    authority = rest.partition("/")[0].partition("?")[0]
    return f"{scheme.lower().removeprefix('s3+')}://{authority.rpartition('@')[2]}"


def _only_match(
    section: Section | None, location: str, name: str, matches: Any
) -> dict[str, Any] | None:
    found = [key for key in section or () if matches(key, location)]
    if len(found) > 1:
        raise ConfigError(f'multiple {name} entries match the location "{mask_location(location)}"')
    return section[found[0]] if found and section else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _attribute(field: str) -> str:
    return field.replace("-", "_")
