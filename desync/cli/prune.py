# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import UsageError
from desync.running import run

from .command import argument, command, flag, store_flags
from .flags import BOOLEAN, DURATION
from .indexes import read_index
from .invocation import Invocation

if TYPE_CHECKING:
    from desync.stores.pruning import Pruned

_MINUTE = 60_000_000_000

# Where the age of a chunk is that of an object, which only writing it anew changes.
_NOT_RENEWING = ("s3+http", "s3+https", "gs")


@command(
    "prune",
    examples=[
        "desync prune -s /path/to/store current.caibx previous.caibx",
        "desync prune -s /path/to/store --dry-run file.caibx",
        "desync prune -s /path/to/store --yes --min-age 24h file.caibx",
    ],
)
@argument("indexes", nargs=-1, required=True, metavar="<index>")
@flag("--store", "-s", help="the store to prune")
@flag("--yes", "-y", kind=BOOLEAN, help="don't ask before removing chunks")
@flag("--dry-run", kind=BOOLEAN, help="only say what would be removed")
@flag(
    "--min-age",
    kind=DURATION,
    default=10 * _MINUTE,
    minimum=0,
    help="spare chunks younger than this: an index that needs them may be about to be written",
)
@store_flags
def prune(
    invocation: Invocation,
    indexes: tuple[str, ...],
    store: str | None,
    yes: bool,
    dry_run: bool,
    min_age: int,
) -> None:
    """
    Remove from a store all chunks that none of some indexes needs.

    All indexes are read before anything is removed. "-" reads one from stdin, and needs --yes.
    """
    from desync.operations.prune import needed_by, prune
    from desync.stores.location import WITHOUT_LISTING, parse_location
    from desync.stores.opening import check_scheme, local_target

    if not store:
        raise UsageError("no store provided")
    files = local_target(store, invocation.store_options, invocation.digest, writing=not dry_run)
    shown = invocation.shown_location(store)
    if files is None:
        # Before the question, not after it.
        if parse_location(store).scheme in WITHOUT_LISTING:
            raise UsageError(f"store '{shown}' does not support pruning")
        check_scheme(store)
    keep = needed_by(read_index(invocation, index) for index in indexes)
    if parse_location(store).scheme in _NOT_RENEWING and not (yes or dry_run):
        invocation.print(
            "Note: finding a chunk present makes it no younger in this store. An index that is made"
            " at this\ntime may name chunks that are about to be deleted."
        )
    if not (yes or dry_run) and not _confirmed(invocation, len(keep), shown):
        return
    progress, seconds = invocation.progress, min_age / 1e9
    if files is not None:
        pruned = run(prune(keep, files, progress, seconds, dry_run))
    else:
        from .layered import Layered, run_layered

        async def work(session: Layered) -> Pruned:
            from desync.interfaces import IChunkRemover

            remover = IChunkRemover(session.target(store), None)
            if remover is None:
                raise UsageError(f"store '{shown}' does not support pruning")
            return await prune(keep, remover, progress, seconds, dry_run)

        pruned = run_layered(invocation, work)
    if dry_run:
        invocation.print(_summary(pruned, "would be removed"))
    else:
        invocation.note(_summary(pruned, "removed"))


def _confirmed(invocation: Invocation, kept: int, store: str) -> bool:
    """Ask, in Go desync's words, as long as it takes to get an answer. An empty one is no."""
    invocation.print(
        f"Warning: The provided index files reference {kept} unique chunks. Are you sure\n"
        f"you want to delete all other chunks from '{invocation.session.shown(store)}'?"
    )
    while True:
        invocation.out.write(b"[y/N]: ")
        invocation.out.flush()
        line = invocation.stdin.readline()
        if not line:
            raise UsageError("nobody is there to confirm; --yes prunes without asking")
        answer = line.strip()
        if answer in (b"y", b"Y"):
            return True
        if answer in (b"n", b"N", b""):
            return False


def _summary(pruned: Pruned, verb: str) -> str:
    text = f"{pruned.removed} chunks {verb}, {pruned.removed_bytes} bytes"
    if pruned.leftovers:
        text += f", and {pruned.leftovers} temporary files"
    text += f"; {pruned.kept} kept"
    if pruned.spared:
        text += f"; {pruned.spared} spared for being young, {pruned.spared_bytes} bytes"
    return text
