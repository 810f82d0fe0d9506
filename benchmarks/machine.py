# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a measurement ran on, without anything that tells whose machine it is."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime


def describe() -> dict[str, str]:
    """Describe the machine, each property under its name."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor(cpuinfo: str = "/proc/cpuinfo") -> str:
    names: dict[str, str] = {}
    try:
        with open(cpuinfo, encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                names.setdefault(name.strip(), value.strip())
    except OSError:
        pass
    name = names.get("model name", platform.machine())
    # What matters of the many flags: which kernels can run.
    known = ("avx2", "avx512bw", "avx512vbmi", "sha_ni")
    flags = [flag for flag in known if flag in names.get("flags", "").split()]
    return f"{name} ({', '.join(flags)})" if flags else name


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def file_system(path: str, mounts: str = "/proc/self/mounts") -> str:
    """Tell the type of the file system that a folder is in, ``tmpfs`` for instance."""
    path = os.path.realpath(path)
    best, found = "", "unknown"
    try:
        with open(mounts, encoding="utf-8") as lines:
            for line in lines:
                _, where, kind, *_ = line.split()
                where = where.replace("\\040", " ")
                # Of two that are mounted on the same folder the later one is seen.
                if len(where) >= len(best) and _is_below(path, where):
                    best, found = where, kind
    except OSError:
        pass
    return found


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
