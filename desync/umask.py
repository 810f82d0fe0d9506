# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The umask that the program was started with: what a store's modes are subject to, whatever a daemon
sets later.
"""

from __future__ import annotations

import errno
import os
from typing import Final


def _current() -> int:
    # /proc tells it without the moment of a changed umask that os.umask() costs, in which another
    # thread may create a file.
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


START: Final = _current()


def file_mode(mode: int) -> int:
    """Give the mode that a new file gets if `mode` is asked for."""
    return mode & ~START


def is_unchanged() -> bool:
    """Tell whether new files still get the modes of :func:`file_mode` by themselves."""
    return _current() == START


def set_mode(file: int | str, mode: int) -> None:
    """
    Give a file its mode. On a file system that has no modes it keeps what it has there.

    :param file: its path or descriptor.
    """
    try:
        os.chmod(file, mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
