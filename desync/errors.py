# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Every error that the package raises on purpose.

``str()`` of each is one line, fit to be shown to a user as it is: it names the chunk, the store or
the file, and the cause. Store locations arrive here with their secrets already masked
(:mod:`desync.masking`).
"""

from __future__ import annotations


class DesyncError(Exception):
    """Anything that the package reports about its input, its stores or its own state."""


class UsageError(DesyncError):
    """
    The caller asked for something that makes no sense: a bad flag, a bad combination, a number out
    of range.
    """


class ConfigError(UsageError):
    """The configuration file, or the environment, says something that can't be used."""


class Interrupted(DesyncError):
    """The work was stopped by a signal or by its caller before it was complete."""

    def __init__(self, why: str = "interrupted") -> None:
        super().__init__(why)


class InvalidIndex(DesyncError):
    """
    An index file that can't be what it claims to be.

    :param where: the file or location it was read from.
    :param why: what is wrong with it.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class WrongDigest(InvalidIndex):
    """An index whose chunk ids were made with another digest algorithm than the one in use."""


class InvalidArchive(DesyncError):
    """
    An archive that can't be what it claims to be.

    :param where: the file or location it was read from.
    :param why: what is wrong with it.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.where, self.why))


class NotArchivable(DesyncError):
    """
    A node has something that an archive can't record: an owner's number, a name, a depth.

    The text doesn't name the node; whoever knows its path says it.
    """


class ChunkError(DesyncError):
    """
    Something about one chunk.

    :param chunk_id: the chunk's id, 32 bytes.
    :param store: where, as shown to a user; empty if unknown.
    """

    def __init__(self, message: str, chunk_id: bytes, store: str = "") -> None:
        super().__init__(f"{store}: {message}" if store else message)
        self.message = message
        self.chunk_id = chunk_id
        self.store = store


class ChunkMissing(ChunkError):
    """
    A store doesn't have the chunk. The only error that lets a route or a cache ask the next store.
    """

    def __init__(self, chunk_id: bytes, store: str = "") -> None:
        super().__init__(f"chunk {chunk_id.hex()} missing from store", chunk_id, store)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.chunk_id, self.store))


class ChunkInvalid(ChunkError):
    """
    What a store gave for a chunk isn't that chunk: it can't be decoded, has the wrong length or
    another digest.

    :param why: what is wrong.
    """

    def __init__(self, chunk_id: bytes, why: str, store: str = "") -> None:
        super().__init__(f"chunk {chunk_id.hex()} is invalid: {why}", chunk_id, store)
        self.why = why

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.chunk_id, self.why, self.store))


class StoreError(DesyncError):
    """
    A store can't be used, or failed at something other than not having a chunk.

    :param store: which, as shown to a user.
    :param why: the cause.
    """

    def __init__(self, store: str, why: str) -> None:
        super().__init__(f"{store}: {why}")
        self.store = store
        self.why = why

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.store, self.why))


class StoreRefused(StoreError):
    """
    A store said no in a way that stays the same however often it is asked: what it needs is other
    credentials, another location, or somebody's work on it.
    """


class IndexMissing(StoreError):
    """An index store doesn't have the index."""


class FileError(DesyncError):
    """
    A local file can't be used, or isn't what it was a moment ago.

    :param path: which, as shown to a user.
    :param why: the cause.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.path, self.why))


class InputChanged(FileError):
    """
    The file shrank or changed while it was being read, so what was made of it describes no state it
    ever had.
    """


class WorkerDied(DesyncError):
    """A worker process ended, or never started, before it had said that its work was done."""


def not_the_chunk(path: str, start: int, end: int, chunk_id: bytes) -> FileError:
    """Make the error for a file that isn't what its index says: where, and which chunk was due."""
    return FileError(
        path, f"its bytes {start} to {end} are not chunk {chunk_id.hex()} of the index"
    )


def describe_os_error(error: OSError, path: str | None = None) -> str:
    """
    Say in one line what the operating system refused, naming the file.

    :param path: the file, where the error itself doesn't carry it.
    """
    name = path
    if name is None and error.filename is not None:
        filename = error.filename
        name = (
            filename.decode("utf-8", "backslashreplace")
            if isinstance(filename, bytes)
            else str(filename)
        )
    why = error.strerror or str(error) or type(error).__name__
    return f"{name}: {why}" if name else why
