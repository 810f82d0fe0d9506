# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Having the file system place content without reading and writing it: sharing blocks between files,
copying within the kernel, giving blocks back.

Each of these may be refused, for many reasons, and nothing depends on them: whoever is refused
writes the bytes.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import Final

from desync.assembly.writing import write_all

_FICLONERANGE: Final = 0x4020940D
_FS_IOC_UNRESVSP: Final = 0x4030582B
_BLKZEROOUT: Final = 0x127F
_BLKGETSIZE64: Final = 0x80081272

_CLONE: Final = struct.Struct("@qQQQ")
_SPACE: Final = struct.Struct("@hhqqiI4I")
_RANGE: Final = struct.Struct("@QQ")
_SIZE: Final = struct.Struct("@Q")

#: A whole number of any device's sectors, and a page.
_SECTORS: Final = 4096
_ZEROS: Final = 1 << 20

#: File systems that only ever copy, whatever they are asked for.
_PLAIN: Final = frozenset({"ext2", "ext3", "ext4", "ramfs", "tmpfs", "vfat"})

#: What one call shares or copies, in bytes: the system can't be interrupted meanwhile.
PIECE: Final = 64 << 20

#: Below this a range isn't worth a call of its own, in bytes.
LEAST: Final = 64 << 10


def aligned(source: int, target: int, length: int, block: int) -> tuple[int, int]:
    """
    Find the part of a range that can be shared with another file.

    :param source: where the range begins in the file that has it.
    :param target: where it is to begin in the other one.
    :param block: the block size, in bytes.
    :returns: where in the target the part begins and ends: whole blocks in both files. Both are the
        same if there is none.
    """
    if (source - target) % block:
        return target, target
    begin = -(-target // block) * block
    end = (target + length) // block * block
    return (begin, end) if begin < end else (target, target)


def moves_all_bytes(descriptor: int) -> bool:
    """
    Tell whether a file is on a file system that can neither share blocks nor have copies made
    elsewhere, so that it isn't worth asking. False where that isn't known.
    """
    device = os.fstat(descriptor).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                if fields.split()[2] == wanted:
                    return rest.split()[0] in _PLAIN
    except (OSError, IndexError):
        pass
    return False


def clone(source: int, target: int, offset: int, place: int, length: int) -> bool:
    """
    Let a file share blocks of another one.

    :param source: the descriptor of the file that has them.
    :param target: that of the file that is to have them, open for writing.
    :param offset: where in the source; a whole number of blocks, like the others.
    :param place: where in the target.
    :param length: in bytes.
    :returns: whether it was done; if not, nothing is known about that part of the target.
    """
    if not length:
        return False  # which would mean: all up to the end
    return _control(target, _FICLONERANGE, _CLONE.pack(source, offset, length, place))


def copy_in_kernel(source: int, target: int, offset: int, place: int, length: int) -> bool:
    """
    Have the system copy from one file to another, which some file systems do without moving bytes.

    :returns: whether all of it was done. See :func:`clone`.
    """
    if not hasattr(os, "copy_file_range"):
        return False
    with suppress(OSError):
        while length:
            done = os.copy_file_range(source, target, length, offset, place)
            if not done:
                return False
            offset += done
            place += done
            length -= done
        return True
    return False


def write_zeros(descriptor: int, start: int, length: int) -> None:
    """
    Let a range of a file or block device read as zeros, without taking up space if possible.

    :param start: in bytes; the range lies within the file.
    :raises OSError: if the system refuses.
    """
    if _control(descriptor, _FS_IOC_UNRESVSP, _SPACE.pack(0, 0, start, length, 0, 0, 0, 0, 0, 0)):
        return
    begin = -(-start // _SECTORS) * _SECTORS
    end = (start + length) // _SECTORS * _SECTORS
    if begin < end and _control(descriptor, _BLKZEROOUT, _RANGE.pack(begin, end - begin)):
        _write_zeros(descriptor, start, begin)
        _write_zeros(descriptor, end, start + length)
    else:
        _write_zeros(descriptor, start, start + length)


def _write_zeros(descriptor: int, start: int, end: int) -> None:
    zeros = memoryview(bytes(min(_ZEROS, end - start)))
    while start < end:
        part = zeros[: end - start]
        write_all(descriptor, [part], start)
        start += len(part)


def device_size(descriptor: int) -> int:
    """
    Say how large a block device is, in bytes. A file of its kind says 0 of itself.

    :raises OSError: if the system can't tell.
    """
    answer = bytearray(8)
    if _control(descriptor, _BLKGETSIZE64, answer):
        (size,) = _SIZE.unpack(answer)
        return int(size)
    return os.lseek(descriptor, 0, os.SEEK_END)


def _control(descriptor: int, request: int, argument: bytes | bytearray) -> bool:
    """Ask for something that only some systems, file systems and devices do."""
    try:
        import fcntl

        fcntl.ioctl(descriptor, request, argument)
    except (ImportError, OSError):
        return False
    return True
