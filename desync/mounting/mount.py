# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A mount's life under a reactor: libfuse blocks a thread from when something is mounted until it is
unmounted, by us or by somebody else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from desync.errors import FileError

from . import libfuse

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

    from .libfuse import FileSystem

    class Reactor(IReactorFromThreads, IReactorTime):
        """What a mount needs of a reactor."""


#: How much the kernel reads ahead of those who read in order, in KiB: enough that it always has
#: asked for the next part before it is wanted.
READ_AHEAD_KIB: Final = 512

#: Seconds after which a mount that can't be ended, because a user who isn't root can't break off
#: what others have open, is left to the end of the process.
_PATIENCE: Final = 2.0

_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2


class MountPoint(NamedTuple):
    """
    A folder that something can be mounted on.

    :ivar path: absolute, without links.
    :ivar has_content: whether something is in it, which can't be seen while something is mounted.
    """

    path: str
    has_content: bool


def check_mountpoint(path: str) -> MountPoint:
    """
    Make sure that something can be mounted on a folder.

    :raises FileError: if not, with what can be done about it.
    """
    try:
        real = os.path.realpath(path, strict=True)
        has_content = bool(os.listdir(real))
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise FileError(
                path,
                "a mount is left there whose process has ended; it goes away with:"
                f" fusermount -uz {path}",
            ) from None
        if error.errno == errno.ENOTDIR:
            raise FileError(path, "a folder is needed to mount on, and this isn't one") from None
        raise FileError(path, error.strerror or str(error)) from None
    if has_content and os.geteuid() != 0:
        # fusermount takes it or not, depending on its version.
        raise FileError(path, "the folder to mount on isn't empty")
    return MountPoint(real, has_content)


class Mount:
    """
    A file system that is mounted once.

    :param file_system: what is to be seen.
    :param mountpoint: where; from :func:`check_mountpoint`.
    :param reactor: where the Deferreds fire.
    :ivar ended: fires when nothing is mounted any more; fails if the mounting did.
    """

    def __init__(self, file_system: FileSystem, mountpoint: MountPoint, reactor: Reactor) -> None:
        self._file_system = file_system
        self._mountpoint = mountpoint
        self._reactor = reactor
        self._device: str | None = None
        self._is_mounted = False
        self._begun: Deferred[None] = Deferred()
        self._thread: threading.Thread | None = None
        self.ended: Deferred[None] = Deferred()

    def begin(self) -> Deferred[None]:
        """
        Mount it.

        :returns: fires when it can be used.
        :raises FileError: if it can't be mounted.
        :raises libfuse.FuseMissing: if nothing can be on this system.
        """
        libfuse.load()
        self._thread = threading.Thread(target=self._serve, name="desync-fuse", daemon=True)
        self._thread.start()
        return self._begun

    def _serve(self) -> None:
        # Signals are for the reactor's thread. libfuse's threads inherit this.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        outcome: Failure | None = None
        try:
            libfuse.serve(
                self._file_system,
                self._mountpoint.path,
                self._serving,
                over_content=self._mountpoint.has_content,
            )
        except RuntimeError:
            outcome = Failure(FileError(self._mountpoint.path, "it can't be mounted"))
        except BaseException:
            outcome = Failure()
        finally:
            _ignore_broken_pipes()
        self._reactor.callFromThread(self._end, outcome)

    def _serving(self) -> None:
        # libfuse waits for this before it answers anything, so nothing that touches the mount may
        # be done here.
        self._reactor.callFromThread(self._note_begun)

    def _note_begun(self) -> None:
        self._is_mounted = True
        self._device = device_of(self._mountpoint.path)
        if self._device is not None:
            arguments = self._mountpoint.path, self._device
            threading.Thread(target=_read_further, args=arguments, daemon=True).start()
        if not self._begun.called:
            self._begun.callback(None)

    def _end(self, outcome: Failure | None) -> None:
        if not self._begun.called:
            why = outcome or Failure(FileError(self._mountpoint.path, "it was unmounted at once"))
            self._begun.errback(why)
            outcome = None
        if not self.ended.called:
            self.ended.callback(outcome)

    async def unmount(self) -> None:
        """
        Unmount it, if that hasn't happened, also while somebody has a file open: reading it fails
        from then on. Whoever blocks in the file system's methods has to be let go before.
        """
        thread = self._thread
        if thread is None:
            return
        done: Deferred[None] = Deferred()
        timeout = self._reactor.callLater(_PATIENCE, done.callback, None)
        detached = False

        def look() -> None:
            nonlocal detached
            if done.called:
                return
            if not thread.is_alive():
                timeout.cancel()
                done.callback(None)
                return
            # It may be that it is just being mounted.
            if self._is_mounted and not detached:
                detached = True
                # Not what somebody else has mounted in the same place since.
                if self._device is None or device_of(self._mountpoint.path) == self._device:
                    detach(self._mountpoint.path, self._device)
            self._reactor.callLater(0.01, look)

        look()
        await done


def detach(path: str, device: str | None = None) -> None:
    """
    Take a mount out of the tree, and break off what is under way in it.

    :param device: of the mount, as :func:`device_of` gives it; without it, only root can break off
        what others have open.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_FORCE | _MNT_DETACH) == 0:
        return
    if ctypes.get_errno() != errno.EPERM:
        return
    # Where this can't be done, the end of the process ends it too.
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            ["fusermount", "-u", "-z", "--", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    if device is not None:
        minor = device.partition(":")[2]
        with (
            contextlib.suppress(OSError),
            open(f"/sys/fs/fuse/connections/{minor}/abort", "wb", buffering=0) as abort,
        ):
            abort.write(b"1")


def device_of(path: str) -> str | None:
    """
    Say which device is mounted on a folder, without touching it.

    :param path: absolute, without links.
    :returns: as in ``0:53``; None if none is, or the system doesn't tell.
    """
    wanted = os.fsencode(path)
    found = None
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            for line in lines:
                fields = line.split(b" ")
                # What is mounted last in a place is the last one.
                if len(fields) > 4 and _unescaped(fields[4]) == wanted:
                    found = fields[2].decode("ascii")
    except OSError:
        return None
    return found


def _unescaped(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    return b"".join(
        part if not number else bytes([int(part[:3], 8)]) + part[3:]
        for number, part in enumerate(field.split(b"\\"))
    )


def _read_further(mountpoint: str, device: str) -> None:
    # The kernel lowers the setting once more when libfuse answers its first request, and anything
    # that looks at the mount waits for that.
    with contextlib.suppress(OSError):
        os.stat(mountpoint)
        raise_read_ahead(device)


def raise_read_ahead(device: str, kib: int = READ_AHEAD_KIB) -> bool:
    """
    Have the kernel read further ahead on a device, if we may and it doesn't already.

    :param device: as :func:`device_of` gives it.
    """
    try:
        with open(f"/sys/class/bdi/{device}/read_ahead_kb", "r+b", buffering=0) as setting:
            if int(setting.read()) < kib:
                setting.seek(0)
                setting.write(b"%d" % kib)
    except (OSError, ValueError):
        return False
    return True


def _ignore_broken_pipes() -> None:
    """
    Have the system report a broken pipe as an error again, and not end the process.

    libfuse leaves that signal as the system has it by default, behind Python's back, which may set
    it in the main thread only.
    """
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes = (ctypes.c_int, ctypes.c_void_p)
    set_handler.restype = ctypes.c_void_p
    set_handler(signal.SIGPIPE, int(signal.SIG_IGN))
