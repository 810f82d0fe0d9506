# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Commands for testing what all commands have in common."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import Any

from desync.cli.command import argument, casync_flags, command, flag, store_flags
from desync.cli.flags import BOOLEAN, DURATION, INTEGER, STRINGS
from desync.cli.invocation import Invocation
from desync.cli.table import Entry
from desync.errors import ChunkMissing, DesyncError, Interrupted, StoreError

SAMPLES = {
    "show": Entry("tests.sample_commands:show", "Print what the command was given"),
    "fail": Entry("tests.sample_commands:fail", "Fail in some way"),
    "many": Entry("tests.sample_commands:many", "Take many arguments"),
    "wait": Entry("tests.sample_commands:wait", "Wait for a signal"),
    "nowhere": Entry("tests.no_such_module:nowhere", "Not there"),
}


@command("show", examples=["desync show -s /path/to/store somewhere"])
@argument("where")
@argument("other", required=False)
@flag("--store", "-s", kind=STRINGS, help="stores")
@flag("--wait", kind=DURATION, default=1_500_000_000, help="how long")
@flag("--length", "-l", kind=INTEGER, default=0, minimum=0, help="how many")
@flag(
    "--writable",
    "-w",
    kind=BOOLEAN,
    help="write",
    deprecated_spellings={"--writeable": "use --writable instead"},
)
@casync_flags
@store_flags
def show(invocation: Invocation, **params: Any) -> None:
    """Print what the command was given."""
    for name in sorted(params):
        invocation.print(f"{name}={params[name]!r}")
    invocation.print(f"options={invocation.store_options('/store')!r}")
    invocation.print(f"cache_repair={invocation.store_flags.cache_repair}")
    invocation.print(f"digest={invocation.digest.name}")
    invocation.note("noted")
    invocation.debug("in detail")


@command("fail", examples=["desync fail with some words"])
@argument("how")
def fail(invocation: Invocation, how: str) -> int:
    """Fail in some way."""
    invocation.print("before")
    errors: dict[str, BaseException] = {
        "usage": DesyncError("it's wrong"),
        "chunk": ChunkMissing(bytes(32), "https://user:***@host/"),
        "secret": StoreError("https://user:hunter2@host/", "Bearer hunter2hunter2"),
        "controls": DesyncError("name\x1b[31m\n\udcff\u202e"),
        "os": FileNotFoundError(errno.ENOENT, "No such file or directory", b"/a\xff"),
        "bare-os": OSError("odd"),
        "memory": MemoryError(),
        "recursion": RecursionError("too deep"),
        "defect": ZeroDivisionError("division\nby zero"),
        "exit": SystemExit(7),
        "interrupted": Interrupted(),
        "keyboard": KeyboardInterrupt(),
        "pipe": BrokenPipeError(errno.EPIPE, "Broken pipe", "/run/socket"),
    }
    if how in errors:
        raise errors[how]
    return 1


@command("many", examples=["desync many a b c"])
@argument("first")
@argument("rest", nargs=-1, required=True)
def many(invocation: Invocation, first: str, rest: tuple[str, ...]) -> None:
    """Take many arguments."""
    invocation.print(repr((first, rest)))


@command("wait", examples=["desync wait target"])
@argument("target")
@flag("--signals", kind=INTEGER, default=1, help="how many more signals come while tidying up")
def wait(invocation: Invocation, target: str, signals: int) -> None:
    """Wait for a signal, and tidy up when it comes."""
    with open(target, "w"):
        pass
    try:
        invocation.print(str(os.getpid()))
        invocation.out.flush()
        # Whoever tests this sends the signals; this is how long it lives if nobody does.
        time.sleep(60)
    finally:
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGTERM)
        os.unlink(target)
