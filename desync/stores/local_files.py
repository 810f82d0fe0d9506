# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The files of one local chunk store, worked on directly: for pool workers and threads, which may
block.

Layout and names are casync's and desync's (:mod:`desync.formats.stored`). A chunk is written under
a temporary name in its own subdirectory and renamed, so that a reader finds it whole or not at all.
Single chunks are not synced to disk; :meth:`sync` does it for the whole file system before an index
that names them is put in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from desync import umask
from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, ChunkMissing, StoreError, describe_os_error
from desync.formats.chunk import Chunk
from desync.formats.stored import (
    DEFAULT_LEVEL,
    MAX_CHUNK_SIZE,
    Malformed,
    chunk_id_of_name,
    chunk_name,
    form_named,
    other_form,
)
from desync.stores.pruning import Pruned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from desync.chunking.digests import Digest
    from desync.formats.stored import StoredForm

#: What the name of a file begins with while a chunk is being written: desync's prefix, so that its
#: prune knows ours.
TEMPORARY_PREFIX: Final = ".tmp-cacnk"

_READ_STEP: Final = 1 << 19
_FILE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755


class StoredFile(NamedTuple):
    """
    One chunk file of a store.

    :ivar chunk_id: 32 bytes.
    :ivar path: where it really lies, which a misplaced file's id doesn't tell.
    """

    chunk_id: bytes
    path: str


class LocalFiles:
    """
    A local chunk store's files.

    Instances are cheap, hold no descriptors, and are not to be shared between threads (the codec is
    reused).

    :param path: the store's directory.
    :param location: how messages name the store; the path if not given.
    :param extension: the form that is written, and looked for first: ``".cacnk"`` or ``""``.
    :param level: zstd's level for what is written.
    :param skip_verify: hand out what is there without checking it.
    :param set_modes: give files their mode explicitly, because the umask of this process may not be
        the one it started with.
    :param sync_each: make each chunk last before the next is written, and not only with
        :meth:`sync`.
    """

    def __init__(
        self,
        path: str,
        *,
        location: str | None = None,
        extension: str = ".cacnk",
        level: int = DEFAULT_LEVEL,
        digest: Digest = SHA512_256,
        skip_verify: bool = False,
        set_modes: bool = True,
        sync_each: bool = False,
    ) -> None:
        self.path = path
        self.location = path if location is None else location
        self.form = form_named(extension, level)
        self.level = level
        self.digest = digest
        self.skip_verify = skip_verify
        self.sync_each = sync_each
        self._set_modes = set_modes
        self._other = other_form(self.form)
        self._base = path if path.endswith("/") else path + "/"
        self._temporary = (
            f"{TEMPORARY_PREFIX}.{int.from_bytes(os.urandom(4), 'little')}{os.getpid():07d}"
        )
        self._written = 0

    def settings(self) -> dict[str, object]:
        """Give what another process needs to open the same store: see :meth:`from_settings`."""
        return {
            "path": os.fsencode(self.path),
            "location": self.location,
            "extension": self.form.extension,
            "level": self.level,
            "digest": self.digest.name,
            "skip_verify": self.skip_verify,
            "sync_each": self.sync_each,
        }

    @classmethod
    def from_settings(cls, settings: dict[str, object], **more: bool) -> LocalFiles:
        """Open the store that :meth:`settings` describes."""
        from desync.chunking.digests import Digest

        values = dict(settings)
        path = values.pop("path")
        digest = values.pop("digest")
        assert isinstance(path, bytes) and isinstance(digest, str)
        rest: dict[str, Any] = {**values, **more}
        return cls(os.fsdecode(path), digest=Digest.named(digest), **rest)

    def twin(self) -> LocalFiles:
        """Open the same store once more, for another thread."""
        return self.from_settings(self.settings(), set_modes=self._set_modes)

    def local_files(self) -> tuple[LocalFiles, ...]:
        """See :class:`desync.interfaces.ILocalFiles`."""
        return (self,)

    def check(self, *, writing: bool = False) -> None:
        """
        Make sure that the store is a directory that can be used.

        :raises StoreError: if it isn't.
        """
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise StoreError(self.location, _reason(error)) from None
        if not stat.S_ISDIR(found.st_mode):
            raise StoreError(self.location, "not a directory")
        reading = os.R_OK | os.X_OK
        if not self._may(reading | (os.W_OK if writing else 0)):
            what = "written to" if writing and self._may(reading) else "read"
            raise StoreError(self.location, f"it can't be {what}: Permission denied")

    def _may(self, wanted: int) -> bool:
        # A service may have given up its rights: what counts is whom it acts as.
        effective = os.access in os.supports_effective_ids
        return os.access(self.path, wanted, effective_ids=effective)

    def path_of(self, chunk_id: bytes, form: StoredForm | None = None) -> str:
        """Give the path of a chunk, in the store's form if no other is named."""
        return self._base + chunk_name(chunk_id, (form or self.form).extension)

    # Reading

    def read(self, chunk_id: bytes, limit: int = MAX_CHUNK_SIZE) -> tuple[bytes, StoredForm]:
        """
        Read a chunk's stored bytes, from the other form if there is none in the store's own.

        :param limit: the most plain bytes that the chunk may have.
        :returns: the stored bytes and their form; nothing is verified.
        :raises ChunkMissing: if there is none.
        :raises ChunkInvalid: if the file is larger than any chunk within the limit.
        :raises StoreError: if the file can't be read.
        """
        for form in (self.form, self._other):
            try:
                return self.read_file(
                    self.path_of(chunk_id, form), chunk_id, form.stored_limit(limit)
                ), form
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(
                    self.location, f"chunk {chunk_id.hex()}: {_reason(error)}"
                ) from None
        self._check_there()
        raise ChunkMissing(chunk_id, self.location)

    def _check_there(self) -> None:
        # A store that was unmounted or removed hasn't lost its chunks: it can't tell.
        try:
            os.stat(self.path)
        except OSError as error:
            raise StoreError(self.location, _reason(error)) from None

    def read_plain(self, chunk_id: bytes, size: int) -> bytes:
        """
        Read a chunk's plain bytes. The length is checked, the digest is not: callers do that for
        many at once.

        :param size: how many bytes the chunk has.
        :raises: as :meth:`read`, and ChunkInvalid if it can't be decoded or has another size.
        """
        stored, form = self.read(chunk_id, size)
        try:
            return form.decode(stored, size, size)
        except Malformed as error:
            raise ChunkInvalid(chunk_id, str(error), self.location) from None

    def get(self, chunk_id: bytes, limit: int = MAX_CHUNK_SIZE) -> Chunk:
        """
        Read a chunk, verified unless this store skips that.

        :raises: as :meth:`read`, and ChunkInvalid if it isn't the chunk.
        """
        stored, form = self.read(chunk_id, limit)
        if self.skip_verify:
            # The chunk gets a form of its own: this store's codec must stay with this store's
            # thread.
            own = form_named(form.extension, self.level)
            return Chunk(chunk_id, stored=stored, form=own, limit=limit)
        try:
            plain = form.decode(stored, limit)
        except Malformed as error:
            raise ChunkInvalid(chunk_id, str(error), self.location) from None
        chunk = Chunk(chunk_id, plain, stored, form, limit=limit)
        try:
            chunk.verify(self.digest)
        except ChunkInvalid as error:
            raise ChunkInvalid(chunk_id, error.why, self.location) from None
        return chunk

    def read_file(self, path: str, chunk_id: bytes, limit: int | None = None) -> bytes:
        """
        Read a chunk's file, wherever it lies.

        :param limit: the most bytes it may have; as many as any chunk's file, if None.
        :raises ChunkInvalid: if it is larger.
        :raises OSError: if it can't be read.
        """
        if limit is None:
            limit = self.form.stored_limit(MAX_CHUNK_SIZE)
        # Not blocking, lest somebody's pipe under a chunk's name keep us waiting for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            data = os.read(descriptor, min(_READ_STEP, limit + 1))
            if len(data) < _READ_STEP and len(data) <= limit:
                return data
            pieces = [data]
            total = len(data)
            while data and total <= limit:
                data = os.read(descriptor, min(1 << 24, limit + 1 - total))
                pieces.append(data)
                total += len(data)
            if total > limit:
                raise ChunkInvalid(
                    chunk_id, f"its file is larger than {limit} bytes", self.location
                )
            return b"".join(pieces)
        finally:
            os.close(descriptor)

    def has(self, chunk_id: bytes) -> bool:
        """
        Tell whether a chunk is there in the store's form. An empty file isn't one, nor is anything
        that isn't a file.

        :raises StoreError: if the file system can't tell.
        """
        try:
            return _can_be_chunk(os.stat(self.path_of(chunk_id)))
        except FileNotFoundError:
            self._check_there()
            return False
        except OSError as error:
            raise StoreError(self.location, f"chunk {chunk_id.hex()}: {_reason(error)}") from None

    def stored_size(self, chunk_id: bytes) -> int | None:
        """
        Say how large a chunk's file is, in bytes.

        :returns: None if the chunk isn't there in the store's form.

        :raises StoreError: if the file system can't tell.
        """
        try:
            found = os.stat(self.path_of(chunk_id))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(self.location, f"chunk {chunk_id.hex()}: {_reason(error)}") from None
        return found.st_size if _can_be_chunk(found) else None

    # Writing

    def renew(self, chunk_id: bytes) -> bool:
        """
        Tell whether a chunk is there in the store's form, and make it young if so, for age-based
        clean-up and for prune.

        Where the age can't be set (a read-only file system, somebody else's file) the answer is all
        there is.

        :raises StoreError: if the file system can't tell.
        """
        path = self.path_of(chunk_id)
        try:
            if not _can_be_chunk(os.stat(path)):
                return False
            # This comes last, and fails if a prune has just removed what was there.
            os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:
            return self.has(chunk_id)
        return True

    def put(self, chunk_id: bytes, stored: bytes) -> None:
        """
        Write a chunk in the store's form, replacing it if it is there. Nothing is verified.

        :raises StoreError: if it can't be written; no part of it is left.
        """
        path = self.path_of(chunk_id)
        directory = path[: len(self._base) + 4]
        self._written += 1
        temporary = f"{directory}/{self._temporary}{self._written:06d}"
        try:
            # An interrupt may come between any two steps.
            try:
                descriptor = self._create(temporary, directory)
                try:
                    if self._set_modes:
                        umask.set_mode(descriptor, umask.file_mode(_FILE_MODE))
                    written = os.write(descriptor, stored)
                    while written < len(stored):
                        written += os.write(descriptor, memoryview(stored)[written:])
                    if self.sync_each:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.rename(temporary, path)
            except FileExistsError:
                raise  # it is somebody else's
            except BaseException:
                _remove_quietly(temporary)
                raise
            if self.sync_each:
                _sync_directory(directory)
        except OSError as error:
            raise StoreError(
                self.location, f"chunk {chunk_id.hex()} can't be stored: {_reason(error)}"
            ) from None

    def put_chunk(self, chunk: Chunk) -> None:
        """
        Write a chunk, verified first if it isn't yet.

        :raises: as :meth:`put`, and ChunkInvalid.
        """
        chunk.verify(self.digest)
        self.put(chunk.chunk_id, chunk.stored_as(self.form))

    def put_plain(self, chunk_id: bytes, plain: bytes | memoryview) -> int:
        """
        Encode and write a chunk whose id is known to be right.

        :returns: the size of its stored form, in bytes.
        :raises: as :meth:`put`.
        """
        stored = self.form.encode(plain)
        self.put(chunk_id, stored)
        return len(stored)

    def _create(self, temporary: str, directory: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(temporary, flags, _FILE_MODE)
        except FileNotFoundError:
            pass
        try:
            os.mkdir(directory, _DIRECTORY_MODE)
            if self._set_modes:
                # What it got from a store whose group is everybody's stays.
                group = os.stat(directory).st_mode & stat.S_ISGID
                umask.set_mode(directory, umask.file_mode(_DIRECTORY_MODE) | group)
            if self.sync_each:
                _sync_directory(self.path)
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path) from None
        return os.open(temporary, flags, _FILE_MODE)

    def sync(self) -> None:
        """
        Make everything that was written to the store's file system last.

        Does nothing where the system can't (anything but Linux).

        :raises StoreError: if the system failed to.
        """
        try:
            import ctypes

            syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        except (ImportError, OSError, AttributeError):
            return
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if syncfs(descriptor) != 0:
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(self.location, f"it can't be synced: {_reason(error)}") from None

    # Listing and removing

    def subdirectories(self) -> list[str]:
        """
        List the paths of the subdirectories that can hold chunks, sorted.

        :raises StoreError: if the store can't be listed.
        """
        try:
            with os.scandir(self.path) as entries:
                return sorted(
                    entry.path
                    for entry in entries
                    if not entry.name.startswith(".") and _is_directory(entry)
                )
        except OSError as error:
            raise StoreError(self.location, _reason(error)) from None

    def files(self, directory: str) -> Iterator[StoredFile]:
        """
        List the chunk files in the store's form below one subdirectory, however deep.

        :raises StoreError: if it can't be listed.
        """
        for entry in self._walk(directory):
            chunk_id = chunk_id_of_name(entry.name, self.form.extension)
            if chunk_id is not None:
                yield StoredFile(chunk_id, entry.path)

    def all_files(self) -> Iterator[StoredFile]:
        """List all chunk files in the store's form. See :meth:`files`."""
        for directory in self.subdirectories():
            yield from self.files(directory)

    def _walk(self, directory: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._walk(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield entry
        except FileNotFoundError:
            return  # removed since it was listed
        except OSError as error:
            if isinstance(error, PermissionError) and not _has_chunk_name(directory):
                return  # what is nobody else's business in a store, as a `lost+found` is
            raise StoreError(self.location, describe_os_error(error, directory)) from None

    def remove(self, chunk_id: bytes) -> None:
        """
        Remove a chunk in the store's form.

        :raises ChunkMissing: if it isn't there.
        :raises StoreError: if it can't be removed.
        """
        try:
            os.unlink(self.path_of(chunk_id))
        except FileNotFoundError:
            raise ChunkMissing(chunk_id, self.location) from None
        except OSError as error:
            raise StoreError(
                self.location, f"chunk {chunk_id.hex()} can't be removed: {_reason(error)}"
            ) from None

    def prune(
        self,
        keep: Callable[[bytes], bool],
        min_age: float,
        *,
        dry_run: bool = False,
        pause: Callable[[int], None] = lambda done: None,
        now: Callable[[], float] = time.time,
    ) -> Pruned:
        """
        Remove the chunks in the store's form that aren't kept, and temporary files. See
        :meth:`desync.interfaces.IChunkRemover`.

        :param pause: called for every subdirectory with the number of files seen so far; what it
            raises ends the prune.
        """
        kept = removed = removed_bytes = spared = spared_bytes = leftovers = seen = 0
        for directory in self.subdirectories():
            pause(seen)
            for entry in self._walk(directory):
                seen += 1
                temporary = entry.name.startswith(TEMPORARY_PREFIX)
                chunk_id = None if temporary else chunk_id_of_name(entry.name, self.form.extension)
                if not temporary and chunk_id is None:
                    continue
                if chunk_id is not None and keep(chunk_id):
                    kept += 1
                    continue
                # The age is read as late as can be: a writer that finds a chunk present renews it.
                try:
                    found = os.stat(entry.path, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if _is_young(found, min_age, now):
                    if not temporary:
                        spared += 1
                        spared_bytes += found.st_size
                    continue
                if not dry_run:
                    try:
                        if not self._remove_old(entry.path, min_age, now):
                            spared += not temporary
                            spared_bytes += 0 if temporary else found.st_size
                            continue
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        raise StoreError(
                            self.location, f"{entry.name} can't be removed: {_reason(error)}"
                        ) from None
                if temporary:
                    leftovers += 1
                else:
                    removed += 1
                    removed_bytes += found.st_size
        return Pruned(kept, removed, removed_bytes, spared, spared_bytes, leftovers)

    def _remove_old(self, path: str, min_age: float, now: Callable[[], float]) -> bool:
        """
        Remove a file unless it has become young since its age was read.

        A writer that finds the chunk present renews it and relies on it, which can happen at any
        moment up to the removal. So the file is first taken out of the way, where no writer finds
        it, and put back if it turns out to have been renewed.
        """
        directory, _, name = path.rpartition("/")
        self._written += 1
        aside = (
            path
            if name.startswith(TEMPORARY_PREFIX)
            else f"{directory}/{self._temporary}{self._written:06d}"
        )
        if aside == path:
            os.unlink(path)
            return True
        try:
            os.rename(path, aside)
            if _is_young(os.stat(aside, follow_symlinks=False), min_age, now):
                os.rename(aside, path)
                return False
            os.unlink(aside)
        except BaseException:
            # An interrupt, for one: nobody has looked yet whether the chunk was renewed.
            with contextlib.suppress(OSError):
                os.rename(aside, path)
            raise
        return True

    def __repr__(self) -> str:
        return f"<LocalFiles {self.location}>"


def _is_young(found: os.stat_result, min_age: float, now: Callable[[], float]) -> bool:
    # Without a minimum age nothing is spared, whatever a file's time says: it may lie in the
    # future.
    return min_age > 0 and now() - found.st_mtime < min_age


def _can_be_chunk(found: os.stat_result) -> bool:
    # No chunk is empty. A file is, whose writer's machine lost power before its data was on disk.
    return found.st_size > 0 and stat.S_ISREG(found.st_mode)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads to itself


def _has_chunk_name(directory: str) -> bool:
    """Tell whether chunks can be directly in a directory, by its name."""
    name = os.path.basename(directory)
    return len(name) == 4 and frozenset("0123456789abcdef").issuperset(name)


def _reason(error: OSError) -> str:
    return error.strerror or describe_os_error(error)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_quietly(path: str) -> None:
    try:
        with contextlib.suppress(OSError):
            os.unlink(path)
    except BaseException:
        # A signal, and there is no other chance to remove it.
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
