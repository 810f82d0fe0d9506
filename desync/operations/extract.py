# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Rebuilding a file from its index, its chunks, and files that are like it."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from desync.assembly.cloning import moves_all_bytes
from desync.assembly.in_place import InPlace
from desync.assembly.plan import Plan
from desync.errors import DesyncError, FileError, UsageError, describe_os_error
from desync.jobs.rebuild import RebuildJob
from desync.operations import own_content
from desync.operations.own_content import OwnContent
from desync.operations.seeds import Seed
from desync.replace import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from desync.assembly.fetch import ChunkDownloads
    from desync.assembly.matching import SeedRun
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.replace import Replacement
    from desync.stores.local_files import LocalFiles
    from desync.workers.pool import Runner

#: What becomes of a seed that isn't what its index says.
SKIP: Final = "skip"
REGENERATE: Final = "regenerate"
REFUSE: Final = "refuse"


class Extracted(NamedTuple):
    """
    Where the target's content came from; sizes are in bytes.

    :ivar block_size: the block size of the target's file system; 0 where nothing was written.
    :ivar seeds: how many there were, the one of zeros included.
    """

    chunks_total: int
    bytes_total: int
    chunks_from_store: int
    chunks_from_seeds: int
    chunks_in_place: int
    bytes_copied: int
    bytes_cloned: int
    block_size: int
    seeds: int

    def to_json(self) -> dict[str, Any]:
        """Give what ``--print-stats`` shows, under the names that Go desync gives it."""
        return {
            "chunks-from-seeds": self.chunks_from_seeds,
            "chunks-from-store": self.chunks_from_store,
            "chunks-in-place": self.chunks_in_place,
            "bytes-copied-from-seeds": self.bytes_copied,
            "bytes-cloned-from-seeds": self.bytes_cloned,
            "blocksize": self.block_size,
            "bytes-total": self.bytes_total,
            "chunks-total": self.chunks_total,
            "seeds": self.seeds,
        }


class Manner(NamedTuple):
    """
    How a file is rebuilt.

    :ivar in_place: change the target itself, and keep what it has; it may be a block device.
    :ivar resume: go on with what an interrupted run has left, and leave it if interrupted.
    :ivar seed_output: what is in a target that is replaced is a seed too.
    :ivar invalid_seeds: ``"skip"``: do without seeds that aren't what their indexes say;
        ``"regenerate"``: find out what they are; ``"refuse"``: raise an error.
    """

    in_place: bool = False
    resume: bool = False
    seed_output: bool = True
    invalid_seeds: str = SKIP


DEFAULT: Final = Manner()


async def extract(
    index: Index,
    target: str,
    source: tuple[LocalFiles, ...] | ChunkDownloads,
    pool: Runner,
    progress: Progress,
    sync: str = "end",
    seeds: Sequence[Seed] = (),
    manner: Manner = DEFAULT,
    report: Callable[[str], object] = lambda text: None,
) -> Extracted:
    """
    Rebuild the file that an index describes.

    The target is replaced once the new one is complete, unless it is changed in place. Every chunk
    of it was checked against its id by then, wherever it came from. With local stores it never
    suspends.

    :param source: the local stores to ask in turn, or whatever else fetches chunks.
    :param sync: ``"none"`` leaves it to the system when the new file reaches the disk.
    :param seeds: files that may have chunks of it; they are closed afterwards.
    :param report: told in one line about seeds that are of no use.
    :raises ChunkMissing: if no store has a chunk; ChunkInvalid if what it has isn't the chunk; the
        target is as it was.
    :raises FileError: if the target can't be written.
    :raises StoreError: if a store failed.
    """
    rebuild = Rebuild(index, target, pool, progress, seeds, manner, report)
    with ExitStack() as stack:
        stack.callback(rebuild.close)
        out: Replacement | InPlace
        if manner.in_place:
            out = stack.enter_context(InPlace(target, index.size, sync))
        else:
            out = stack.enter_context(
                replacing(target, sync=sync, regular=True, resume=manner.resume)
            )
            rebuild.resize(out)
        await rebuild.prepare(
            out.working_path if out.has_content else None,
            # What is on this machine is fetched as fast as it is found elsewhere and moved.
            may_move=not isinstance(source, tuple),
        )
        return await rebuild.carry_out(out, source)


async def rehearse(
    index: Index,
    target: str,
    pool: Runner,
    progress: Progress,
    seeds: Sequence[Seed] = (),
    manner: Manner = DEFAULT,
    report: Callable[[str], object] = lambda text: None,
    may_move: bool = False,
) -> tuple[Plan, list[str]]:
    """
    Find out what :func:`extract` would do, without writing anything.

    :param may_move: whether it would fetch chunks from stores that aren't local.
    :returns: the plan, and the paths of its seeds.
    """
    rebuild = Rebuild(index, target, pool, progress, seeds, manner, report)
    try:
        there = target if manner.in_place and os.path.exists(target) else None
        await rebuild.prepare(there, may_move)
        return rebuild.plan, [seed.path for seed in rebuild.seeds]
    finally:
        rebuild.close()


class Rebuild:
    """
    A rebuild under way.

    :ivar plan: what comes from where, as far as it isn't there yet.
    :ivar seeds: those that the plan is made with.
    """

    plan: Plan

    def __init__(
        self,
        index: Index,
        target: str,
        pool: Runner,
        progress: Progress,
        seeds: Sequence[Seed],
        manner: Manner,
        report: Callable[[str], object],
    ) -> None:
        self._index = index
        self._target = target
        self._pool = pool
        self._progress = progress
        self._manner = manner
        self._report = report
        self._all_seeds = list(seeds)
        self.seeds = list(seeds)
        self._attempt = 1
        self._shares = False
        self._kept: bytearray | None = None
        self._content: OwnContent | None = None
        #: The target's own content, if there is something in it to be moved.
        self._own: Seed | None = None
        # The null chunk's id costs hashing as many zeros as a chunk can have, which for an unusual
        # index is much.
        largest = index.sizes.max
        self._null_id = index.digest.null_id(largest) if index.size >= largest else None

    def close(self) -> None:
        """Close the seeds."""
        for seed in self._all_seeds:
            seed.close()

    def resize(self, out: Replacement) -> None:
        """Give the new file its size."""
        try:
            os.ftruncate(out.fileno(), self._index.size)
        except OSError as error:
            raise self._file_error(error) from None

    def _file_error(self, error: OSError | EOFError) -> FileError:
        if isinstance(error, OSError):
            return FileError(self._target, error.strerror or describe_os_error(error))
        return FileError(self._target, str(error))

    async def prepare(self, there: str | None, may_move: bool = False) -> None:
        """
        Make the plan.

        :param there: where the target's content is, if there is any to be kept.
        :param may_move: what isn't in its place may be moved there from where it is.
        """
        position = content = None
        if there is not None:
            content = OwnContent(self._index, there, self._target, self._pool, self._progress)
            self._content, self._kept = content, content.kept
            give_up = own_content.HOPELESS if may_move else None
            position = await content.examine(self._title("Validating"), give_up)
            if may_move and position is None:
                position = content.find_much_missing()
        for number, seed in enumerate(list(self.seeds), 1):
            if seed.index is None:
                await self._cut(seed, number)
        self._make_plan()
        if content is not None and position is not None:
            await self._look_behind(content, position)
        if self.plan.totals.fetched_chunks and self._manner.seed_output and self._has_old_content():
            old = Seed(self._target, named=False)
            self._all_seeds.append(old)
            self.seeds.append(old)
            if await self._cut(old, len(self.seeds)):
                self._make_plan()

    def _has_old_content(self) -> bool:
        if self._manner.in_place:
            return False
        try:
            found = os.stat(self._target)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size > 0

    async def _look_behind(self, content: OwnContent, position: int) -> None:
        """
        Find what of the target's content is in another place than it should be, as after an
        insertion everything is, and what after all is in its place.

        :param position: behind which nothing seems to be in its place.
        """
        own = Seed(content.path, named=False)
        self._all_seeds.append(own)
        # Of a large device most may be about something else.
        if own.open().size <= 4 * self._index.size:
            self.seeds.append(own)
            if await self._cut(own, len(self.seeds), self._index.start(position)):
                self._make_plan()
                assert own.index is not None
                content.take(self._runs_of(own), own.index)
                self._own = own
        fetched = bytes(map(self.plan.is_fetched, range(len(self._index))))
        await content.examine(self._title("Validating"), wanted=fetched)
        self._make_plan()

    def _runs_of(self, seed: Seed) -> list[SeedRun]:
        number = self.seeds.index(seed)
        return [run for run in self.plan.seed_runs if run.seed == number]

    async def _move(self) -> tuple[int, int]:
        """
        Move what the target has elsewhere, and plan anew.

        :returns: how many chunks were moved, and bytes of them.
        """
        own = self._own
        if self._content is None or own is None or own not in self.seeds:
            return 0, 0
        job = await self._content.move(self._title("Moving"), self._runs_of(own), own)
        self.seeds.remove(own)
        self._make_plan()
        return job.moved, job.moved_bytes

    def _title(self, what: str) -> str:
        return f"Attempt {self._attempt}: {what}"

    async def _cut(self, seed: Seed, number: int, begin: int = 0) -> bool:
        """Find out what is in a seed."""
        title = self._title(f"Chunking Seed {number}")
        try:
            await seed.cut(self._index, self._pool, self._progress, title, begin)
        except (FileError, UsageError) as error:
            self._drop(seed, str(error))
            return False
        return True

    def _drop(self, seed: Seed, why: str) -> None:
        """Do without a seed from now on."""
        if seed.named and self._manner.invalid_seeds == REFUSE:
            raise DesyncError(why)
        self.seeds.remove(seed)
        if seed.named:
            self._report(f"seed {seed.path} is not used: {why}")

    def _make_plan(self) -> None:
        """Make the plan, and open the seeds that it uses."""
        while True:
            indexes = [seed.index for seed in self.seeds if seed.index is not None]
            self.plan = Plan(self._index, self._null_id, indexes, self._kept)
            used = {run.seed for run in self.plan.seed_runs}
            if all(self._open(self.seeds[number]) for number in sorted(used, reverse=True)):
                return

    def _open(self, seed: Seed) -> bool:
        try:
            seed.open()
        except FileError as error:
            self._drop(seed, str(error))
            return False
        return True

    async def carry_out(
        self, out: Replacement | InPlace, source: tuple[LocalFiles, ...] | ChunkDownloads
    ) -> Extracted:
        """Write what the plan says, and what seeds didn't have after all from somewhere else."""
        try:
            block = os.fstat(out.fileno()).st_blksize
            self._shares = bool(self.plan.seed_runs) and not moves_all_bytes(out.fileno())
        except OSError as error:
            raise self._file_error(error) from None
        first = self.plan.totals
        from_store = cloned = 0
        seeds = 1 + len(self.seeds)
        from_seeds, copied = await self._move()
        while True:
            job = await self._attempt_it(out, source, block)
            totals = self.plan.totals
            from_store += totals.fetched_chunks
            from_seeds += job.seeded_chunks
            copied += totals.copied_bytes + job.copied_bytes
            cloned += job.cloned_bytes
            if not job.bad:
                break
            await self._try_again(job)
        return Extracted(
            chunks_total=len(self._index),
            bytes_total=self._index.size,
            chunks_from_store=from_store,
            chunks_from_seeds=first.null_chunks + from_seeds,
            chunks_in_place=first.kept_chunks,
            bytes_copied=copied,
            bytes_cloned=cloned,
            block_size=block if len(self._index) else 0,
            seeds=seeds if len(self._index) else 0,
        )

    async def _attempt_it(
        self,
        out: Replacement | InPlace,
        source: tuple[LocalFiles, ...] | ChunkDownloads,
        block: int,
    ) -> RebuildJob:
        totals = self.plan.totals
        title = self._title("Assembling")
        with self._progress.start(title, len(self._index), "chunks") as tracker:
            sizes = tracker.sizes
            sizes["reused"], sizes["fetched"] = totals.kept_bytes, 0

            def show(chunks: int) -> None:
                sizes["reused"] = totals.kept_bytes + job.copied_bytes + job.cloned_bytes
                if job.fetched_bytes:
                    sizes["fetched"] = job.fetched_bytes
                tracker.add(chunks)

            def show_fetched(chunks: int, size: int) -> None:
                sizes["fetched"] += size
                tracker.add(chunks)

            job = RebuildJob(
                self.plan,
                out.working_path,
                source if isinstance(source, tuple) else None,
                self._index.digest,
                show,
                shown=self._target,
                seeds=[seed.file for seed in self.seeds],
                block=block if self._shares else 0,
                blank=not out.has_content,
            )
            tracker.add(totals.null_chunks + totals.copied_chunks + totals.kept_chunks)
            try:
                if isinstance(source, tuple):
                    await self._pool.run(job)
                elif totals.seeded_chunks or (totals.null_chunks and out.has_content):
                    await source.fetch_beside(
                        self._pool.run(job), self.plan, out.fileno(), show_fetched
                    )
                else:
                    await source.fetch(self.plan, out.fileno(), show_fetched)
                    return job
            except (OSError, EOFError) as error:
                raise self._file_error(error) from None
            job.check_complete()
        return job

    async def _try_again(self, job: RebuildJob) -> None:
        """Plan for what seeds turned out not to have."""
        kept = bytearray([1]) * len(self._index)
        for position in job.bad:
            kept[position] = 0
        self._kept = kept
        self._attempt += 1
        bad = {
            run.seed
            for run in self.plan.seed_runs
            if kept.find(0, run.position, run.position + run.chunks) >= 0
        }
        for number in sorted(bad, reverse=True):
            seed = self.seeds[number]
            why = f"seed index for {seed.path} doesn't match its data"
            if self._manner.invalid_seeds == REGENERATE and not seed.regenerated:
                seed.regenerated = True
                await self._cut(seed, number + 1)
            else:
                self._drop(seed, why)
        self._make_plan()
