# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of checking every chunk of a local store. Workers list the subdirectories themselves: a unit
is a few of them.
"""

from __future__ import annotations

import marshal
import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from desync.errors import ChunkInvalid, StoreError, describe_os_error
from desync.formats.stored import MAX_CHUNK_SIZE, Malformed
from desync.stores.local_files import LocalFiles, StoredFile

if TYPE_CHECKING:
    from collections.abc import Callable

#: Subdirectories in a unit. A store of a gibibyte has about one chunk in each.
_DIRECTORIES: Final = 64

#: Chunks, and bytes of them, that are hashed together.
_BATCH_CHUNKS: Final = 64
_BATCH_BYTES: Final = 4 << 20


class BadChunk(NamedTuple):
    """
    A chunk file that isn't what its name says.

    :ivar chunk_id: what its name says.
    :ivar message: what is wrong, in one line, the chunk and the store included.
    :ivar removed: whether it was removed.
    """

    chunk_id: bytes
    message: str
    removed: bool


class CheckJob:
    """
    The parent's half.

    :param store: the store, in whose form chunks are looked for.
    :param repair: remove what is bad.
    :param report: told of each bad chunk.
    :param progress: told of chunks as they are done.
    :ivar checked: how many chunks were looked at.
    :ivar checked_bytes: their size, decoded.
    """

    worker_half = "desync.jobs.check:CheckWorker"
    leases = 2

    def __init__(
        self,
        store: LocalFiles,
        repair: bool,
        report: Callable[[BadChunk], object],
        progress: Callable[[int], object],
    ) -> None:
        self._store = store
        self._repair = repair
        self._report = report
        self._progress = progress
        self._directories = store.subdirectories()
        self._position = 0
        self._awaited = 0
        self.checked = 0
        self.checked_bytes = 0
        self.small = len(self._directories) <= 16

    def settings(self) -> dict[str, Any]:
        return {"store": self._store.settings(), "repair": self._repair}

    @property
    def exhausted(self) -> bool:
        return self._position >= len(self._directories)

    def next_unit(self) -> bytes | None:
        if self.exhausted:
            return None
        batch = self._directories[self._position : self._position + _DIRECTORIES]
        self._position += _DIRECTORIES
        self._awaited += 1
        return marshal.dumps([os.fsencode(directory) for directory in batch])

    def note(self, payload: bytes) -> None:
        raise RuntimeError("a check has nothing to note")

    def result(self, payload: bytes) -> None:
        checked, size, bad = marshal.loads(payload)
        self._awaited -= 1
        self.checked += checked
        self.checked_bytes += size
        for fields in bad:
            self._report(BadChunk(*fields))
        self._progress(checked)

    def check_complete(self) -> None:
        """Make sure that every subdirectory was looked at."""
        if self._awaited or not self.exhausted:
            raise RuntimeError(f"{self._awaited} units of a check got no result")


class CheckWorker:
    """The worker's half."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._store = LocalFiles.from_settings(settings["store"])
        self._repair = settings["repair"]

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        bad: list[BadChunk] = []
        checked = total = 0
        batch: list[tuple[StoredFile, bytes]] = []
        size = 0
        for directory in marshal.loads(unit):
            for file in self._store.files(os.fsdecode(directory)):
                checked += 1
                try:
                    plain = self._read(file)
                except FileNotFoundError:
                    continue  # removed since it was listed
                except ChunkInvalid as error:
                    bad += self._bad(file, str(error))
                    continue
                batch.append((file, plain))
                size += len(plain)
                if len(batch) >= _BATCH_CHUNKS or size >= _BATCH_BYTES:
                    total += size
                    bad += self._compare(batch)
                    batch, size = [], 0
        total += size
        bad += self._compare(batch)
        return marshal.dumps((checked, total, [tuple(one) for one in bad]))

    def _read(self, file: StoredFile) -> bytes:
        store = self._store
        if file.path != store.path_of(file.chunk_id):
            raise ChunkInvalid(
                file.chunk_id, f"its file lies in the wrong place, {file.path}", store.location
            )
        try:
            stored = store.read_file(file.path, file.chunk_id)
            return store.form.decode(stored, MAX_CHUNK_SIZE)
        except Malformed as error:
            raise ChunkInvalid(file.chunk_id, str(error), store.location) from None
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(store.location, describe_os_error(error, file.path)) from None

    def _compare(self, batch: list[tuple[StoredFile, bytes]]) -> list[BadChunk]:
        if not batch:
            return []
        digest = self._store.digest
        found = digest.ids_of_buffers([plain for _, plain in batch])
        bad = []
        for position, (file, _) in enumerate(batch):
            actual = found[32 * position : 32 * position + 32]
            if actual != file.chunk_id:
                why = f"its {digest.name} is {actual.hex()}"
                error = ChunkInvalid(file.chunk_id, why, self._store.location)
                bad += self._bad(file, str(error))
        return bad

    def _bad(self, file: StoredFile, message: str) -> list[BadChunk]:
        if not self._repair:
            return [BadChunk(file.chunk_id, message, False)]
        # Others of the batch were read since: a writer may have put the right one there.
        if self._is_good(file):
            return []
        try:
            os.unlink(file.path)
        except OSError as error:
            return [BadChunk(file.chunk_id, f"{message}: {describe_os_error(error)}", False)]
        return [BadChunk(file.chunk_id, message, True)]

    def _is_good(self, file: StoredFile) -> bool:
        try:
            return self._store.digest.id_of(self._read(file)) == file.chunk_id
        except (FileNotFoundError, ChunkInvalid):
            return False

    def close(self) -> None:
        pass
