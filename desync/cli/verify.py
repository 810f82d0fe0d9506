# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync verify``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from desync.errors import UsageError
from desync.running import run
from desync.stores.location import WITHOUT_LISTING, parse_location

from .command import command, flag, single_store_flags
from .flags import BOOLEAN
from .invocation import Invocation
from .storing import CODEC

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from desync.jobs.check import BadChunk
    from desync.operations.verify import Verified
    from desync.options import StoreOptions

    Report: TypeAlias = Callable[[BadChunk], object]

#: A directory with more has so many subdirectories that the workers are needed.
_MANY_LINKS: Final = 64


@command(
    "verify",
    examples=[
        "desync verify -s /path/to/store",
        "desync verify -s /path/to/store -r",
        "desync verify -s s3+https://s3.example.com/bucket/store",
    ],
)
@flag("--store", "-s", help="the store: a directory, or in a bucket")
@flag("--repair", "-r", kind=BOOLEAN, help="remove chunks that are invalid")
@single_store_flags
def verify(invocation: Invocation, store: str | None, repair: bool) -> int:
    """
    Check every chunk of a store.

    Prints a line for each chunk that isn't what its name says. The exit code is 1 if there is one
    that wasn't removed.
    """
    if not store:
        raise UsageError("no store provided")

    def report(bad: BadChunk) -> None:
        text = f"{bad.message}: removed" if bad.removed else bad.message
        invocation.print(invocation.session.shown(text))

    if parse_location(store).is_local:
        found = _verify_local(invocation, store, report, repair)
    else:
        found = _verify_remote(invocation, store, report, repair)
    summary = f"{found.checked} chunks checked, {found.bad} invalid"
    if found.bad:
        summary += f", {found.removed} removed"
    invocation.note(summary)
    return 1 if found.bad > found.removed else 0


def _verify_local(invocation: Invocation, store: str, report: Report, repair: bool) -> Verified:
    from desync.workers.pool import Pool, pool_size

    with Pool(pool_size(invocation.concurrency)) as pool:
        if _links_of(store) > _MANY_LINKS:
            pool.start("desync.jobs.check", CODEC)
        from desync.stores.opening import local_target

        files = local_target(store, invocation.store_options, invocation.digest, writing=repair)
        assert files is not None
        from desync.operations.verify import verify

        return run(verify(files, pool, invocation.progress, report, repair))


def _verify_remote(invocation: Invocation, store: str, report: Report, repair: bool) -> Verified:
    from desync.stores.opening import check_scheme

    from .layered import Layered, run_layered

    shown = invocation.shown_location(store)
    if parse_location(store).scheme in WITHOUT_LISTING:
        raise UsageError(f"store '{shown}' does not support verifying")
    check_scheme(store)

    def options(location: str) -> StoreOptions:
        # What is read is checked whatever else is configured, and in the one form.
        found = invocation.store_options(location)
        return found._replace(skip_verify=False, any_form=False)

    async def work(session: Layered) -> Verified:
        from desync.interfaces import IChunkRemover
        from desync.operations.verify_remote import verify_remote

        remover = IChunkRemover(session.target(store, options), None)
        if remover is None:
            raise UsageError(f"store '{shown}' does not support verifying")
        return await verify_remote(remover, invocation.progress, report, repair)

    return run_layered(invocation, work)


def _links_of(path: str) -> int:
    """
    Say how many links a directory has: most file systems count one for each subdirectory. 0 if it
    can't be said.
    """
    try:
        return os.stat(path).st_nlink
    except (OSError, ValueError):
        return 0
