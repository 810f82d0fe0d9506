# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a file that is changed in place has already: in its place, or elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from desync.assembly.runs import runs_of
from desync.jobs.examine import ExamineJob
from desync.jobs.move import MoveJob
from desync.jobs.source import SourceFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desync.assembly.matching import SeedRun
    from desync.formats.index import Index
    from desync.operations.seeds import Seed
    from desync.progress import Progress
    from desync.workers.pool import Runner

#: So many bytes on end without anything in its place, or so many in all, and it is looked for in
#: other places.
HOPELESS: Final = 32 << 20
MUCH: Final = 1 << 20


class OwnContent:
    """
    The content of a target.

    :param index: what it is to be.
    :param path: where it is.
    :param shown: how messages name it.
    :ivar kept: by position in the index: 1 for chunks that are in their places, 0 for the others.
    """

    def __init__(
        self, index: Index, path: str, shown: str, pool: Runner, progress: Progress
    ) -> None:
        self.path = path
        self.kept = bytearray(len(index))
        self._index = index
        self._shown = shown
        self._pool = pool
        self._progress = progress

    async def examine(
        self, title: str, give_up: int | None = None, wanted: bytes | None = None
    ) -> int | None:
        """
        Find out which chunks are in their places.

        :param give_up: so many bytes without any are enough to look no further.
        :param wanted: by position: 1 for chunks to look for; all, if None.
        :returns: the position behind which it wasn't looked; None if it was.
        """
        file = SourceFile(self.path, self._shown)
        try:
            with self._progress.start(title, len(self._index), "chunks") as tracker:
                job = ExamineJob(file, self._index, tracker.add, wanted, give_up)
                await self._pool.run(job)
                job.check_complete()
        finally:
            file.close()
        self._add(job.kept)
        return job.given_up_at

    def find_much_missing(self) -> int | None:
        """Give the position of the first chunk that isn't in its place, if those are many bytes."""
        index = self._index
        missing = self.kept.translate(bytes([1, 0]) + bytes(254))
        size = sum(
            index.end(end - 1) - index.start(begin) for begin, end in runs_of(index, missing)
        )
        return missing.find(1) if size > MUCH else None

    def take(self, runs: Sequence[SeedRun], there: Index) -> None:
        """
        Note what another look has found in its place.

        :param runs: what of the index was found where.
        :param there: the index of what was found.
        """
        for run in runs:
            if self._index.start(run.position) == there.start(run.seed_position):
                self.kept[run.position : run.position + run.chunks] = bytes([1]) * run.chunks

    async def move(self, title: str, runs: Sequence[SeedRun], seed: Seed) -> MoveJob:
        """
        Move chunks to their places.

        :param runs: what of the index is where.
        :param seed: this content, as a seed.
        :returns: what was done.
        """
        assert seed.index is not None
        with self._progress.start(title, sum(run.chunks for run in runs), "chunks") as tracker:
            job = MoveJob(self._index, seed.index, runs, seed.open(), tracker.add)
            await self._pool.run(job)
            job.check_complete()
        self._add(job.kept)
        return job

    def _add(self, more: bytearray) -> None:
        position = more.find(1)
        while position >= 0:
            self.kept[position] = 1
            position = more.find(1, position + 1)
