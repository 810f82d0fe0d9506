# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The fields of the configuration file: which there are, what each may hold, how they're shown.

The rules are those of Go's ``encoding/json``: names match in any case, unknown ones are ignored,
null is the same as nothing, numbers are whole and fit into 64 bits.
"""

from __future__ import annotations

from typing import Any

from .errors import ConfigError
from .masking import MASK, mask_location
from .options import DEFAULT_COMPRESSION_LEVEL, DEFAULT_ERROR_RETRY, DEFAULT_RETRY_INTERVAL

SECRET_FIELDS = frozenset(
    {"secret-key", "access-key", "secret", "http-auth", "http-cookie", "encryption-key"}
)
# Field, and what an absent one means. The order is that of the output.
Fields = tuple[tuple[str, type, Any], ...]
S3_FIELDS: Fields = tuple(
    (name, str, "")
    for name in ("access-key", "secret-key", "aws-credentials-file", "aws-profile", "aws-region")
)
OCI_FIELDS: Fields = (("username", str, ""), ("secret", str, ""))
OPTION_FIELDS: Fields = (
    ("n", int, 0),
    ("client-cert", str, ""),
    ("client-key", str, ""),
    ("ca-cert", str, ""),
    ("trust-insecure", bool, False),
    ("http-auth", str, ""),
    ("http-cookie", str, ""),
    ("timeout", int, 0),
    ("error-retry", int, DEFAULT_ERROR_RETRY),
    ("error-retry-base-interval", int, DEFAULT_RETRY_INTERVAL),
    ("skip-verify", bool, False),
    ("uncompressed", bool, False),
    ("encryption", bool, False),
    ("encryption-algorithm", str, ""),
    ("encryption-key", str, ""),
    ("any-form", bool, False),
    ("single-requests", bool, False),
    ("compression-level", int, DEFAULT_COMPRESSION_LEVEL),
)
# These are written even when they're zero, because zero isn't what an absent one means.
_ALWAYS_WRITTEN = frozenset({"error-retry", "error-retry-base-interval", "uncompressed"})

Section = dict[str, dict[str, Any]]


def fields_of(value: Any, where: str, what: str) -> dict[str, Any]:
    """
    Take an object's fields, by their names in lower case.

    :param where: the file.
    :param what: what the object is, for the message.
    :raise ConfigError: if it isn't an object.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"reading {where}: {what} must be an object, not {_kind(value)}")
    return {key.lower(): item for key, item in value.items()}


def read_section(fields: dict[str, Any], name: str, known: Fields, where: str) -> Section | None:
    """
    Take a section: objects with known fields, by locations, which keep their case.

    :param fields: those of the whole configuration.
    :return: the fields that are there and not null; None if the section isn't.
    :raise ConfigError: if something in it isn't what it has to be.
    """
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ConfigError(f"reading {where}: {name} must be an object, not {_kind(value)}")
    section: Section = {}
    for key, entry in value.items():
        what = f'{name} for "{mask_location(key)}"'
        given = {} if entry is None else fields_of(entry, where, what)
        section[key] = {
            field: checked(given[field], kind, absent, where, f"{field} of {what}")
            for field, kind, absent in known
            if given.get(field) is not None
        }
    return section


def checked(value: Any, kind: type, absent: Any, where: str, what: str) -> Any:
    """
    Take a field's value.

    :param absent: what null, which is the same as nothing, stands for.
    :raise ConfigError: if it's of another kind, or out of range.
    """
    if value is None:
        return absent
    if type(value) is not kind:
        wanted = {int: "a whole number", str: "a string", bool: "true or false"}[kind]
        raise ConfigError(f"reading {where}: {what} must be {wanted}, not {_kind(value)}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"reading {where}: {what} is out of range")
    if what.startswith("compression-level") and value not in range(1, 23):
        raise ConfigError(f"reading {where}: {what} must be between 1 and 22")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", dict: "an object", list: "a list"}
    if type(value) in names:
        return names[type(value)]
    return f"the number {value}"


def shown_section(section: Section | None, known: Fields, show_secrets: bool) -> Any:
    """Give a section as it's written: sorted, zeros left out, what absent fields mean filled in."""
    if section is None:
        return None
    return {
        key if show_secrets else mask_location(key): _shown_entry(section[key], known, show_secrets)
        for key in sorted(section, key=lambda key: key.encode("utf-8", "surrogateescape"))
    }


def _shown_entry(entry: dict[str, Any], known: Fields, show_secrets: bool) -> dict[str, Any]:
    shown = {}
    for field, _, absent in known:
        value = entry.get(field, absent)
        if field in _ALWAYS_WRITTEN or (value and value != (absent or None)):
            masked = field in SECRET_FIELDS and value and not show_secrets
            shown[field] = MASK if masked else value
    return shown
