# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Seeds as the command line names them."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from desync.errors import DesyncError, FileError, UsageError
from desync.formats.index import HEADER_SIZE, INDEX_TYPE
from desync.operations.seeds import Seed

from .indexes import STANDARD, read_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .invocation import Invocation

_SUFFIX: Final = ".caibx"

#: How an index begins: the size of its first record, and what it is.
_BEGIN: Final = struct.pack("<2Q", HEADER_SIZE, INDEX_TYPE)


def read_seeds(
    invocation: Invocation, index: str, seeds: Sequence[str], directories: Sequence[str]
) -> list[Seed]:
    """
    Find the files that a rebuild may take from, and read their indexes.

    :param index: the index of what is rebuilt, which in a directory is left out.
    :param seeds: values of ``--seed``.
    :param directories: values of ``--seed-dir``.
    :raises UsageError: if a value names nothing.
    :raises: what reading an index raises; of those in directories nothing.
    """
    found = [_read_seed(invocation, seed) for seed in seeds]
    for directory in directories:
        for path in _indexes_below(directory):
            data = path.removesuffix(_SUFFIX)
            if not os.path.exists(data) or (index != STANDARD and _is_same(path, index)):
                continue
            try:
                found.append(Seed(data, read_index(invocation, path)))
            except DesyncError as error:
                invocation.note(f"seed {data} is not used: {error}")
    return found


def _read_seed(invocation: Invocation, text: str) -> Seed:
    if os.path.exists(text):
        if not _is_index(text):
            return Seed(text)
        data = text.removesuffix(_SUFFIX)
        if data == text:
            raise UsageError(
                f"the seed {text} is an index whose name doesn't end with {_SUFFIX}: "
                f"name its data too, as in {text}:DATA"
            )
        return Seed(data, read_index(invocation, text))
    at = text.rfind(":")
    while at > 0:
        if _is_index(text[:at]):
            return Seed(text[at + 1 :], read_index(invocation, text[:at]))
        at = text.rfind(":", 0, at)
    raise UsageError(f'the provided seed "{text}" is neither a file nor INDEX:DATA')


def _is_index(path: str) -> bool:
    try:
        # Not to wait for whoever might write to what turns out to be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(_BEGIN)) == _BEGIN
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _indexes_below(directory: str) -> Iterator[str]:
    """List the indexes in a directory and those below it, links to directories not followed."""

    def fail(error: OSError) -> None:
        raise FileError(error.filename or directory, error.strerror or str(error))

    for folder, folders, names in os.walk(directory, onerror=fail):
        folders.sort()
        for name in sorted(names):
            if name.endswith(_SUFFIX) and name != _SUFFIX:
                yield os.path.join(folder, name)


def _is_same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
