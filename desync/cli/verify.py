# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync verify``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from desync.errors import UsageError
from desync.running import run

from .command import command, concurrency_flag, flag
from .flags import BOOLEAN
from .invocation import Invocation
from .storing import CODEC

if TYPE_CHECKING:
    from desync.jobs.check import BadChunk

#: A directory with more has so many subdirectories that the workers are needed.
_MANY_LINKS: Final = 64


@command(
    "verify",
    examples=[
        "desync verify -s /path/to/store",
        "desync verify -s /path/to/store -r",
    ],
)
@flag("--store", "-s", help="the store, a local directory")
@flag("--repair", "-r", kind=BOOLEAN, help="remove chunks that are invalid")
@concurrency_flag
def verify(invocation: Invocation, store: str | None, repair: bool) -> int:
    """
    Check every chunk of a local store.

    Prints a line for each chunk that isn't what its name says. The exit code is 1 if there is one
    that wasn't removed.
    """
    from desync.workers.pool import Pool, pool_size

    if not store:
        raise UsageError("no store provided")
    with Pool(pool_size(invocation.concurrency)) as pool:
        if _links_of(store) > _MANY_LINKS:
            pool.start("desync.jobs.check", CODEC)
        from desync.stores.opening import local_target

        files = local_target(store, invocation.store_options, invocation.digest, writing=repair)
        if files is None:
            raise UsageError(f"'{invocation.shown_location(store)}' is not a local store")
        from desync.operations.verify import verify

        def report(bad: BadChunk) -> None:
            text = f"{bad.message}: removed" if bad.removed else bad.message
            invocation.print(invocation.session.shown(text))

        found = run(verify(files, pool, invocation.progress, report, repair))
    summary = f"{found.checked} chunks checked, {found.bad} invalid"
    if found.bad:
        summary += f", {found.removed} removed"
    invocation.note(summary)
    return 1 if found.bad > found.removed else 0


def _links_of(path: str) -> int:
    """
    Say how many links a directory has: most file systems count one for each subdirectory. 0 if it
    can't be said.
    """
    try:
        return os.stat(path).st_nlink
    except (OSError, ValueError):
        return 0
