# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Who may do what over SSH: the users file of ``twistd desync-pull``.

JSON::

    {
      "exports": {
        "os": {"stores": ["/srv/os/default.castr"], "indexes": "/srv/os"}
      },
      "users": {
        "alice": {"keys": ["ssh-ed25519 AAAA... alice@example"], "read": ["os"], "write": ["os"]}
      }
    }

An export has a name that clients use in place of a path. Its stores are locations of any kind,
asked in turn; the first is the one that is written to. Its indexes and archives are the files of
one directory, or of an index store.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key

from desync.errors import FileError, UsageError
from desync.stores.index_files import InvalidIndexName, check_index_name

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Bytes that a users file has at most.
_LARGEST: Final = 16 << 20

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_KEY: Final = re.compile(
    r"(?:^|\s)((?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+\s+[A-Za-z0-9+/]+={0,2})(?:\s|$)"
)

#: What an index or an archive is called.
INDEX_SUFFIXES: Final = (".caibx", ".caidx")
ARCHIVE_SUFFIX: Final = ".catar"

#: The name that casync gives to the store beside an index.
DEFAULT_STORE: Final = "default.castr"


class Export(NamedTuple):
    """
    What clients know under a name.

    :param stores: locations of chunk stores.
    :param indexes: a directory, or the location of an index store; empty if there is none.
    :param cache: where chunks of the stores are kept; empty if nowhere.
    """

    name: str
    stores: tuple[str, ...]
    indexes: str = ""
    cache: str = ""


class User(NamedTuple):
    """
    Who may do what.

    :param keys: public keys, each of which lets the user in.
    :param read: names of exports that can be pulled from.
    :param write: those that can be pushed to.
    """

    name: str
    keys: tuple[Key, ...]
    read: frozenset[str]
    write: frozenset[str]


class Users(NamedTuple):
    """What a users file says, by name."""

    exports: Mapping[str, Export]
    users: Mapping[str, User]


def read_users_file(path: str) -> Users:
    """
    Read a users file.

    :raises FileError: if it can't be read.
    :raises UsageError: if it says what can't be.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    if len(data) > _LARGEST:
        raise FileError(path, "too large for a users file")
    try:
        return parse_users(json.loads(data))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {' '.join(str(error).split())}") from None


def parse_users(data: Any) -> Users:
    """
    Check what a users file holds.

    :param data: as JSON gives it.
    :raises UsageError: if it can't be.
    """
    _check_fields(data, "the file", {"exports", "users"})
    exports = {name: _export(name, each) for name, each in _named(data, "exports")}
    users = {name: _user(name, each, exports) for name, each in _named(data, "users")}
    return Users(exports, users)


def _check_fields(data: Any, where: str, known: set[str]) -> None:
    if not isinstance(data, dict):
        raise UsageError(f"{where} must be an object")
    unknown = sorted(set(data) - known)
    if unknown:
        raise UsageError(f"{where} has the unknown field {unknown[0]!a}")


def _named(data: dict[str, Any], field: str) -> list[tuple[str, Any]]:
    found = data.get(field, {})
    if not isinstance(found, dict):
        raise UsageError(f'"{field}" must be an object')
    for name in found:
        if not _NAME.fullmatch(name) or name in ("pull", "push"):
            raise UsageError(f'"{field}" has the invalid name {name!a}')
    return list(found.items())


def _texts(data: dict[str, Any], field: str, where: str) -> tuple[str, ...]:
    found = data.get(field, [])
    if not isinstance(found, list) or not all(isinstance(each, str) and each for each in found):
        raise UsageError(f'"{field}" of {where} must be a list of texts')
    return tuple(found)


def _text(data: dict[str, Any], field: str, where: str) -> str:
    found = data.get(field, "")
    if not isinstance(found, str):
        raise UsageError(f'"{field}" of {where} must be a text')
    return found


def _export(name: str, data: Any) -> Export:
    where = f'export "{name}"'
    _check_fields(data, where, {"stores", "indexes", "cache"})
    export = Export(
        name,
        _texts(data, "stores", where),
        _text(data, "indexes", where),
        _text(data, "cache", where),
    )
    if not export.stores and not export.indexes:
        raise UsageError(f"{where} has neither stores nor indexes")
    return export


def _user(name: str, data: Any, exports: Mapping[str, Export]) -> User:
    where = f'user "{name}"'
    _check_fields(data, where, {"keys", "read", "write"})
    lines = _texts(data, "keys", where)
    if not lines:
        raise UsageError(f"{where} has no keys")
    keys = tuple(_key(line, where) for line in lines)
    read, write = _texts(data, "read", where), _texts(data, "write", where)
    for each in (*read, *write):
        if each not in exports:
            raise UsageError(f"{where} may use the export {each!a}, which there isn't")
    for each in write:
        if exports[each].cache or len(exports[each].stores) > 1:
            raise UsageError(f'{where} may write to "{each}", which has a cache or several stores')
    return User(name, keys, frozenset(read) | frozenset(write), frozenset(write))


def _key(line: str, where: str) -> Key:
    # What precedes the key in a line of authorized_keys are options of OpenSSH's: what they
    # restrict isn't there to be used here.
    match = _KEY.search(line)
    try:
        if match is None:
            raise BadKeyError
        key: Key = Key.fromString(match[1].encode())
        if not key.isPublic():
            raise BadKeyError
    except (BadKeyError, EncryptedKeyError, ValueError, TypeError, KeyError, IndexError):
        raise UsageError(f"{where}: not a public key: {line[:40]!a}") from None
    return key


class Named(NamedTuple):
    """
    What a client's path stands for.

    :param file: the name of an index or archive of the export; empty if the store is meant.
    """

    export: str
    file: str


class NotNamed(UsageError):
    """A path that stands for nothing."""


class ReadOnly(PermissionError):
    """A user wants to write where he may only read."""


def resolve(path: str) -> Named:
    """
    Find out what a client's path stands for: ``EXPORT/FILE``, ``EXPORT/default.castr`` or
    ``EXPORT``, with a slash before it or without.

    Only names come of it; no file is looked at.

    :raises NotNamed: if it is anything else.
    """
    parts = path.removeprefix("/").removesuffix("/").split("/")
    if not _NAME.fullmatch(parts[0]) or len(parts) > 2:
        raise NotNamed("no such export")
    if len(parts) == 1 or parts[1] == DEFAULT_STORE:
        return Named(parts[0], "")
    name = parts[1]
    try:
        check_index_name(name)
    except InvalidIndexName:
        raise NotNamed("no such file") from None
    if name.startswith(".") or not name.endswith((*INDEX_SUFFIXES, ARCHIVE_SUFFIX)):
        raise NotNamed("no such file")
    return Named(parts[0], name)


def confined(directory: str, name: str) -> str:
    """
    Give the path of a file of a directory. Blocks.

    :param name: one path component.
    :raises FileNotFoundError: if it is a link, or anything else that leads out of the directory.
    """
    path = os.path.join(directory, name)
    if os.path.islink(path) or os.path.basename(path) != name:
        raise FileNotFoundError(path)
    return path
