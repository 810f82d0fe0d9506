# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Block devices and file systems for tests, made of files. Only root can do that, and not everywhere;
whatever is made goes away with the test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from unittest import SkipTest

from .peers import peer, record

FILE_SYSTEMS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "vfat": ("mkfs.vfat",),
}
"""How each is made."""

SHARING = ("xfs", "btrfs")
"""Those on which files can share blocks."""

MIB = 1 << 20


@contextlib.contextmanager
def loop_device(size: int) -> Iterator[str]:
    """
    Make a block device.

    :param size: in bytes.
    :returns: its path.
    """
    losetup = peer("losetup")
    if os.geteuid() != 0:
        raise SkipTest("only root can make a loop device")
    with tempfile.TemporaryDirectory(prefix="desync-loop-") as folder:
        image = os.path.join(folder, "image")
        with open(image, "wb") as file:
            file.truncate(size)
        made = _run(losetup, "--find", "--show", image)
        if made.returncode:
            reason = f"no loop device: {made.stderr.strip()}"
            record(f"met losetup, but {reason}")
            raise SkipTest(reason)
        device = made.stdout.strip()
        try:
            yield device
        finally:
            _run(losetup, "--detach", device)


@contextlib.contextmanager
def file_system(kind: str, size: int) -> Iterator[str]:
    """
    Make a file system and mount it.

    :param kind: one of :data:`FILE_SYSTEMS`.
    :param size: in bytes; XFS needs 300 MiB, of which next to nothing is really used.
    :returns: where it is mounted.
    """
    program, *arguments = FILE_SYSTEMS[kind]
    make = peer(program)
    with loop_device(size) as device:
        made = _run(make, *arguments, device)
        if made.returncode:
            raise RuntimeError(made.stderr)
        place = tempfile.mkdtemp(prefix=f"desync-{kind}-")
        try:
            mounted = _run("mount", "-t", kind, device, place)
            if mounted.returncode:
                raise SkipTest(f"{kind} can't be mounted here: {mounted.stderr.strip()}")
            try:
                yield place
            finally:
                # Lazily: what a failed test has left open mustn't keep it.
                _run("umount", "--lazy", place)
        finally:
            shutil.rmtree(place, ignore_errors=True)


def for_test(made: contextlib.AbstractContextManager[str], cleanup: Callable[..., object]) -> str:
    """
    Let a device or file system last as long as a test.

    :param cleanup: the test's ``addCleanup``.
    """
    path = made.__enter__()
    cleanup(made.__exit__, None, None, None)
    return path


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
