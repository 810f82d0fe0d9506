# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What of an archive's metadata is restored, and what of that could not be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final, NamedTuple

from desync.formats import catar
from desync.formats import flags as feature

try:
    import grp
    import pwd
except ImportError:  # not on this system
    grp = pwd = None  # type: ignore[assignment]

_LARGEST_ID: Final = 0xFFFFFFFE

_FEATURE_OF_TYPE: Final[dict[type[catar.Event], int]] = {
    catar.Symlink: feature.WITH_SYMLINKS,
    catar.Device: feature.WITH_DEVICE_NODES,
    catar.Fifo: feature.WITH_FIFOS,
    catar.Socket: feature.WITH_SOCKETS,
}


class Restoring(NamedTuple):
    """
    What is to be restored.

    :ivar owner: owners, and what goes with them: xattrs, access control lists, capabilities and
        labels.
    :ivar permissions: modes as the archive has them; otherwise less the umask, without set-id bits.
    :ivar chown: whether owners are set; whoever isn't root usually can't.
    :ivar uid_shift: what is added to each uid and gid.
    :ivar uid_range: ids are taken modulo this before, unless it is 0.
    :ivar delete: whether what the archive doesn't have is removed.
    :ivar features: bits of a feature word for what may be restored, if the archive has it. Of times
        and of owners' ids, which archives have in several forms, a bit for any form means them all.
    """

    owner: bool = True
    permissions: bool = True
    chown: bool = True
    uid_shift: int = 0
    uid_range: int = 0
    delete: bool = False
    features: int = feature.ALL_WITH

    def of(self, flags: int) -> int:
        """
        Say what is restored of an archive.

        :param flags: the archive's feature flags.
        :return: the bits of those that count; a mode without its access control list is a mode.
        """
        chosen = flags & self.features
        for forms in (catar.WITH_TIME, catar.WITH_UIDS):
            if self.features & forms:
                chosen |= flags & forms
        if flags & feature.WITH_ACL and self.features & feature.WITH_PERMISSIONS:
            chosen |= feature.WITH_PERMISSIONS
        return chosen

    def left_out(self) -> list[type[catar.Event]]:
        """Say which types of nodes, by the events that announce them, aren't made at all."""
        return [kind for kind, bit in _FEATURE_OF_TYPE.items() if not self.features & bit]


class Shortfall:
    """
    What could not be restored.

    :param note: told each failure as a line.
    :ivar failed: how many failures there were.
    :ivar owners: nodes whose owner was not restored because that wasn't tried.
    :ivar set_ids: nodes whose set-user-ID or set-group-ID bits were left off, because they would
        have meant another owner than the archive's.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self.failed = 0
        self.owners = 0
        self.set_ids = 0

    def fail(self, path: str, what: str, error: OSError) -> None:
        """
        Note a failure.

        :param path: of the node.
        :param what: the action, such as ``set its mode``.
        """
        self.failed += 1
        # What the error itself names is a descriptor or a part of the path, if anything.
        self._note(f"{path}: can't {what}: {error.strerror or error}")

    def note(self, path: str, what: str) -> None:
        """Say something about a node that is no failure."""
        self._note(f"{path}: {what}")

    def summary(self) -> str | None:
        """Say in a line what wasn't tried; None if all was."""
        parts = []
        if self.owners:
            parts.append(f"owners of {_nodes(self.owners)} were not restored")
        if self.set_ids:
            parts.append(f"set-id bits of {_nodes(self.set_ids)} were left off")
        if not parts:
            return None
        return "; ".join(parts)


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


class OwnerIds:
    """
    Finds the ids here of the owners that an archive names.

    A name that exists here decides, as with tar; otherwise the number does. Where numbers are
    shifted they are another system's, and names don't count.
    """

    def __init__(self, restoring: Restoring) -> None:
        self._shift = restoring.uid_shift
        self._range = restoring.uid_range
        shifted = restoring.uid_shift or restoring.uid_range
        self._by_name = bool(restoring.features & feature.WITH_USER_NAMES) and not shifted
        self._users: dict[tuple[bytes | None, int], int] = {}
        self._groups: dict[tuple[bytes | None, int], int] = {}

    def user(self, name: bytes | None, number: int) -> int:
        """Give a user's id."""
        found = self._users.get((name, number))
        if found is None:
            found = self._users[name, number] = self._find(name, number, _uid_of)
        return found

    def group(self, name: bytes | None, number: int) -> int:
        """Give a group's id."""
        found = self._groups.get((name, number))
        if found is None:
            found = self._groups[name, number] = self._find(name, number, _gid_of)
        return found

    def _find(self, name: bytes | None, number: int, look_up: Callable[[bytes], int | None]) -> int:
        if name is not None and name.isdigit() and len(name) <= 10:
            number = int(name)  # casync's way to name those who have no name
        elif name is not None and self._by_name:
            known = look_up(name)
            if known is not None:
                return known
        if self._range:
            number %= self._range
        number += self._shift
        if not 0 <= number <= _LARGEST_ID:
            raise OSError(errno.EINVAL, f"{number} is no possible id")
        return number


def _uid_of(name: bytes) -> int | None:
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except (AttributeError, KeyError, OSError):
        return None


def _gid_of(name: bytes) -> int | None:
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except (AttributeError, KeyError, OSError):
        return None
