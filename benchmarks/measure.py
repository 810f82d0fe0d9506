# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Running a command and telling what it took: wall time, processor time, memory of all its processes.

Processor time is what the kernel accounts to the command and to the processes that it waited for;
with :func:`adopt_orphans`, also to those that it left behind. Memory is sampled: the sum of the
proportional set sizes of the command's processes, where memory that several share counts once.
Sampling costs time, so that a run is either timed or sampled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SAMPLE_INTERVAL = 0.02
"""Seconds from the end of one sample of the memory to the beginning of the next."""

_PR_SET_CHILD_SUBREAPER = 36


class Measured(NamedTuple):
    """
    What a run took.

    :ivar code: the exit code; that of a signal is negative.
    :ivar wall: seconds from start to end.
    :ivar cpu: seconds of processor time, user and system, of all its processes.
    :ivar peak: the most memory that a sample found, in bytes; None if it wasn't sampled.
    :ivar said: the last line that it wrote to stderr.
    """

    code: int
    wall: float
    cpu: float
    peak: int | None
    said: str


class TreeMemory:
    """
    The memory of a process and all that it started.

    :param root: the process, which leads its process group.
    :param proc: where the proc file system is.
    :ivar peak: the most that a sample found, in bytes.
    :ivar measure: ``PSS``, or ``RSS`` if a process's proportional set size couldn't be read.
    """

    def __init__(self, root: int, proc: str = "/proc") -> None:
        self._root = root
        self._proc = proc
        self.peak = 0
        self.measure = "PSS"

    def sample(self) -> int:
        """Give the memory in use now, in bytes."""
        total = sum(self._memory(pid) for pid in self.processes())
        self.peak = max(self.peak, total)
        return total

    def processes(self) -> set[int]:
        """List the process, what it started, directly or not, and what else is in its group."""
        children: dict[int, list[int]] = {}
        found = set()
        for name in os.listdir(self._proc):
            if not name.isdigit():
                continue
            try:
                with open(f"{self._proc}/{name}/stat", "rb") as stat:
                    # The name, in parentheses, may hold anything.
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has just ended
            parent, group = int(fields[1]), int(fields[2])
            children.setdefault(parent, []).append(int(name))
            if self._root in (int(name), group):
                found.add(int(name))
        waiting = list(found)
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return found

    def _memory(self, pid: int) -> int:
        for name, field in (("smaps_rollup", b"Pss:"), ("status", b"VmRSS:")):
            try:
                with open(f"{self._proc}/{pid}/{name}", "rb") as lines:
                    for line in lines:
                        if line.startswith(field):
                            if name == "status":
                                self.measure = "RSS"
                            return int(line.split()[1]) * 1024
            except (FileNotFoundError, ProcessLookupError):
                if not os.path.exists(f"{self._proc}/{pid}"):
                    return 0  # it has just ended
            except PermissionError:
                pass
        return 0  # ended, but not waited for


def adopt_orphans() -> bool:
    """
    Become the parent of what commands leave behind, so that its processor time is counted too.

    :return: whether the system can do that. Linux can.
    """
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: str,
    stdout: str = os.devnull,
    stdin: str = os.devnull,
    sampled: bool = False,
    timeout: float = 600,
) -> Measured:
    """
    Run a command to its end, in a process group of its own.

    :param argv: the program's path and its arguments.
    :param directory: where the file with its messages is put for as long as it runs.
    :param stdout: the file that its output goes to.
    :param sampled: sample its memory, and so disturb its times.
    :param timeout: after so many seconds it is killed.
    :raises OSError: if it can't be started.
    """
    messages = os.path.join(directory, f"messages-{os.getpid()}")
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    begin = time.perf_counter()
    pid = os.posix_spawn(
        argv[0],
        list(argv),
        dict(environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, stdout, writing, 0o644),
            (os.POSIX_SPAWN_OPEN, 2, messages, writing, 0o644),
        ],
        setpgroup=0,
    )
    watchdog = threading.Timer(timeout, _kill, [pid])
    watchdog.daemon = True
    watchdog.start()
    sampler = _Sampler(TreeMemory(pid)) if sampled else None
    try:
        if sampler is not None:
            sampler.start()
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - begin
        cpu = usage.ru_utime + usage.ru_stime + _wait_for_orphans(pid)
        return Measured(
            os.waitstatus_to_exitcode(status),
            wall,
            cpu,
            sampler.stop() if sampler is not None else None,
            _last_line(messages),
        )
    except BaseException:
        _kill(pid)
        _wait_for_orphans(pid)
        raise
    finally:
        watchdog.cancel()
        if sampler is not None:
            sampler.stop()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(messages)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _wait_for_orphans(group: int) -> float:
    """Wait for what is left of a group and is this process's child; give its processor time."""
    cpu = 0.0
    with contextlib.suppress(ChildProcessError):
        while True:
            _, _, usage = os.wait4(-group, 0)
            cpu += usage.ru_utime + usage.ru_stime
    return cpu


def _last_line(path: str) -> str:
    with open(path, "rb") as messages:
        lines = messages.read().decode("utf-8", "replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


class _Sampler(threading.Thread):
    """Samples a tree's memory until it is stopped."""

    def __init__(self, tree: TreeMemory) -> None:
        super().__init__(daemon=True)
        self._tree = tree
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            self._tree.sample()
            self._ended.wait(SAMPLE_INTERVAL)

    def stop(self) -> int:
        """Stop, and give the peak in bytes."""
        self._ended.set()
        if self.is_alive():
            self.join()
        return self._tree.peak
