# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The real programs that some tests talk to, and a record of which of them a run met.

A test asks for its peer by name and gets its path, or is skipped with a reason::

    casync = peer("casync")

Where the environment variable ``DESYNC_TEST_PEERS_LOG`` names a file, each answer is a line in it;
``bin/test`` shows them at the end. As a program (it needs no more than Python) it serves it::

    python tests/peers.py packages      # the packages that hold the peers missing here
    python tests/peers.py report LOG    # a record's lines, each once; exit 1 if one was skipped

A new peer is one line in :data:`PEERS`.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from typing import NamedTuple
from unittest import SkipTest


class Peer(NamedTuple):
    """A program that tests talk to."""

    #: The name of the program, looked for on the PATH and in the folders for system administration.
    command: str
    #: The package of Debian and Ubuntu that holds it.
    package: str
    #: What makes it print its version.
    version_arguments: tuple[str, ...] = ("--version",)
    #: Whether the name is that of a shared library, without "lib", and no program's.
    is_library: bool = False


PEERS = {
    "bsdtar": Peer("bsdtar", "libarchive-tools"),
    "caddy": Peer("caddy", "caddy", ("version",)),
    "casync": Peer("casync", "casync"),
    "chromium": Peer("chromium", "chromium"),
    "curl": Peer("curl", "curl"),
    "tinyproxy": Peer("tinyproxy", "tinyproxy-bin", ("-v",)),
    "ceph-mon": Peer("ceph-mon", "ceph-mon"),
    "ceph-osd": Peer("ceph-osd", "ceph-osd"),
    "radosgw": Peer("radosgw", "radosgw"),
    "fusermount": Peer("fusermount", "fuse3"),
    "losetup": Peer("losetup", "mount"),
    "mkfs.btrfs": Peer("mkfs.btrfs", "btrfs-progs"),
    "mkfs.ext4": Peer("mkfs.ext4", "e2fsprogs", ("-V",)),
    "mkfs.vfat": Peer("mkfs.vfat", "dosfstools", ("--help",)),
    "mkfs.xfs": Peer("mkfs.xfs", "xfsprogs", ("-V",)),
    "nginx": Peer("nginx", "nginx-light", ("-v",)),
    "openssl": Peer("openssl", "openssl", ("version",)),
    "gnu-tar": Peer("tar", "tar"),
    "ssh": Peer("ssh", "openssh-client", ("-V",)),
    "sshd": Peer("sshd", "openssh-server", ("-V",)),
    "systemd-analyze": Peer("systemd-analyze", "systemd"),
    "systemd-socket-activate": Peer("systemd-socket-activate", "systemd"),
    "libfuse2": Peer("fuse", "libfuse2", is_library=True),
    "rsync": Peer("rsync", "rsync"),
}


def peer(name: str) -> str:
    """
    The path of a real program to test against.

    :param name: a key of :data:`PEERS`.
    :raises SkipTest: when the program is not installed.
    """
    path = find(name)
    if path is None:
        reason = f"{name}: not installed (package {PEERS[name].package})"
        record(f"skipped {reason}")
        raise SkipTest(reason)
    record(f"met {name} {version(name)}".rstrip())
    return path


def find(name: str) -> str | None:
    """Where a peer is installed, or None; /usr/sbin counts: servers live there."""
    if PEERS[name].is_library:
        return find_library(PEERS[name].command)
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(PEERS[name].command, path=f"{path}:/usr/sbin:/sbin")


@functools.cache
def version(name: str) -> str:
    """The first thing in a peer's own words that looks like a version; empty when nothing does."""
    program = find(name)
    if program is None or PEERS[name].is_library:
        return ""
    done = subprocess.run(
        [program, *PEERS[name].version_arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    found = re.search(rb"\d[\w.+~-]*", done.stdout)
    return found[0].decode() if found else ""


def record(line: str) -> None:
    """Append one line to the record of this run, if there is one; several processes may."""
    path = os.environ.get("DESYNC_TEST_PEERS_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as log:
            log.write(line + "\n")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["packages"]:
            print(*sorted({kind.package for name, kind in PEERS.items() if find(name) is None}))
            return 0
        case ["report", path]:
            with open(path, encoding="utf-8") as log:
                lines = sorted(set(log.read().splitlines()))
            for line in lines:
                print(line)
            return int(any(line.startswith("skipped ") for line in lines))
        case _:
            print("usage: peers.py packages | report LOG", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
