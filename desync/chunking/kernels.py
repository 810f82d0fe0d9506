# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The few loops over bytes that everything waits for: finding cuts, hashing chunks and
names, checking and sorting tables of ids.

Each exists in C (:mod:`.compiled`), for several instruction sets, and in plain Python
(:mod:`.portable`); which of them runs is decided once, when the first is called. The environment
variable ``DESYNC_KERNELS`` overrules the choice: ``auto``, ``portable`` (Python and hashlib),
``scalar`` (C for any machine), ``avx2`` or ``avx512``. All give the same results.

The native ones release the interpreter lock. Buffers must not be changed while one of these
functions reads them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from desync.errors import UsageError

if TYPE_CHECKING:
    from array import array
    from mmap import mmap
    from typing import Protocol, TypeAlias

    from .buzhash import CutRule

    ReadableBuffer: TypeAlias = bytes | bytearray | memoryview | mmap | array[int]
    WritableBuffer: TypeAlias = bytearray | memoryview | array[int]

    class KernelSet(Protocol):
        """One implementation of everything here."""

        def find_cuts(
            self,
            buffer: ReadableBuffer,
            start: int,
            stop: int,
            end: int,
            final: bool,
            sizes: CutRule,
            ends: WritableBuffer,
        ) -> int: ...
        def hash_ranges(
            self,
            buffer: ReadableBuffer,
            start: int,
            ends: ReadableBuffer,
            count: int,
            null: tuple[int, bytes] | None = None,
        ) -> bytes: ...
        def hash_buffers(self, buffers: Sequence[ReadableBuffer]) -> bytes: ...
        def is_zero(self, buffer: ReadableBuffer) -> bool: ...
        def siphash(self, data: ReadableBuffer, key: ReadableBuffer) -> int: ...
        def check_table(self, table: ReadableBuffer, max_size: int) -> int: ...
        def sort_ids(
            self, table: ReadableBuffer, offset: int, stride: int, count: int
        ) -> bytes: ...
        def unique_ids(
            self, table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
        ) -> bytes: ...
        def first_positions(
            self, table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
        ) -> bytes: ...
        def read_files(self, paths: Sequence[bytes], limit: int) -> list[bytes | None]: ...
        def write_buffers(
            self, descriptor: int, buffers: Sequence[ReadableBuffer], offsets: array[int]
        ) -> None: ...
        def keep_memory(self) -> None: ...


ENVIRONMENT_VARIABLE = "DESYNC_KERNELS"

NAMES = ("auto", "portable", "scalar", "avx2", "avx512")
"""What the environment variable may say."""


def find_cuts(
    buffer: ReadableBuffer,
    start: int,
    stop: int,
    end: int,
    final: bool,
    sizes: CutRule,
    ends: WritableBuffer,
) -> int:
    """
    Cut ``buffer[start:end]`` into chunks until the first cut at or past ``stop``.

    :param buffer: holds a part of the file, up to 4 GiB.
    :param start: where in the buffer a chunk begins.
    :param stop: no chunk that would begin here or later is cut.
    :param end: where the data in the buffer ends.
    :param final: whether that is also the end of the file, so that the rest is the last chunk. If
        not, a chunk that begins just before ``stop`` must still have ``sizes.max`` bytes.
    :param sizes: the cut rule's parameters.
    :param ends: takes the ends of the chunks, as offsets in ``buffer``, 32-bit unsigned in native
        order: an ``array("I")`` or anything else writable. It must have room for as many as there
        can be: one for every ``max(48, sizes.min)`` bytes (fixed sizes: ``sizes.max``) from
        ``start`` to ``stop``, or part of that.
    :return: how many were written.
    :raises ValueError: the places are out of order or outside the buffer, the last chunk's end
        might not be in the buffer, or ``ends`` is too small. Nothing was written then.
    """
    return _kernels().find_cuts(buffer, start, stop, end, final, sizes, ends)


def hash_ranges(
    buffer: ReadableBuffer,
    start: int,
    ends: ReadableBuffer,
    count: int,
    null: tuple[int, bytes] | None = None,
) -> bytes:
    """
    The SHA-512/256 of each of ``count`` chunks that follow each other: up to ``ends[0]``, from
    there to ``ends[1]``, ...

    Many are hashed at once where the processor can do that: hand over 16 or more chunks a call, if
    there are as many.

    :param start: where in the buffer the first begins.
    :param ends: offsets in the buffer as :func:`find_cuts` writes them.
    :param null: (length, id): a chunk of just this length that is all zeros has this id, and
        needn't be hashed.
    :return: the ids, 32 bytes each, one after the other.
    :raises ValueError: the chunks are out of order or not within the buffer, or there are fewer
        ends than ``count``.
    """
    return _kernels().hash_ranges(buffer, start, ends, count, null)


def hash_buffers(buffers: Sequence[ReadableBuffer]) -> bytes:
    """
    The SHA-512/256 of each of some buffers.

    :return: the ids, 32 bytes each, one after the other.
    """
    return _kernels().hash_buffers(buffers)


def is_zero(buffer: ReadableBuffer) -> bool:
    """
    Whether there are only zero bytes, or none at all. Looks no further than the first other byte.
    """
    return _kernels().is_zero(buffer)


def siphash(data: ReadableBuffer, key: ReadableBuffer) -> int:
    """
    The SipHash-2-4 of a few bytes, such as a name, as a number of 64 bits.

    :param key: 16 bytes.
    :raises ValueError: the key has another length.
    """
    return _kernels().siphash(data, key)


def check_table(table: ReadableBuffer, max_size: int) -> int:
    """
    Find the first impossible item in the table of an index.

    :param table: items of 40 bytes: the end of the chunk in the file (64 bits, little-endian) and
        its id.
    :param max_size: the most bytes that a chunk may have.
    :return: the number of the first item whose chunk would have no byte, fewer than none, or more
        than ``max_size``; -1 if there is none.
    :raises ValueError: the table isn't a whole number of items.
    """
    return _kernels().check_table(table, max_size)


def sort_ids(table: ReadableBuffer, offset: int, stride: int, count: int) -> bytes:
    """
    Sort ids without moving them.

    :param table: holds 32-byte ids, the first at ``offset``, each next ``stride`` bytes on.
    :return: the numbers of the ids, 32 bits each in native order, so that the ids ascend bytewise;
        of equal ones the first comes first. Natively this takes this much memory twice; for 16
        million ids that is 128 MB.
    :raises ValueError: there aren't ``count`` ids in the table.
    """
    return _kernels().sort_ids(table, offset, stride, count)


def unique_ids(
    table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
) -> bytes:
    """
    Copy out sorted ids, each once.

    :param order: what :func:`sort_ids` said of the same ids.
    :return: the ids, 32 bytes each, ascending.
    :raises ValueError: there aren't ``count`` ids in the table, or the order isn't one of ``count``
        ids.
    """
    return _kernels().unique_ids(table, offset, stride, count, order)


def first_positions(
    table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
) -> bytes:
    """
    Find for each id the first one that is equal.

    :param order: what :func:`sort_ids` said of the same ids.
    :return: for each id the number of that one, which may be its own: 32 bits each in native order.
    :raises ValueError: there aren't ``count`` ids in the table, or the order isn't one of
        ``count`` ids.
    """
    return _kernels().first_positions(table, offset, stride, count, order)


def read_files(paths: Sequence[bytes], limit: int) -> list[bytes | None]:
    """
    Read some small files, and let other threads run meanwhile only once and not at each step.

    :param paths: without a NUL byte.
    :param limit: the most bytes that a file may have.
    :return: what is in each. None for one that can't be read, is empty or larger, or isn't a
        regular file.
    """
    return _kernels().read_files(paths, limit)


def write_buffers(descriptor: int, buffers: Sequence[ReadableBuffer], offsets: array[int]) -> None:
    """
    Write each buffer whole to its place in a file, and let other threads run meanwhile only once
    and not at each step.

    :param offsets: where each belongs, in bytes: an ``array("Q")``.
    :raises OSError: if the system refuses; some may have been written by then.
    :raises ValueError: there are more or fewer offsets than buffers.
    """
    _kernels().write_buffers(descriptor, buffers, offsets)


def keep_memory() -> None:
    """
    Tell malloc to keep what is freed instead of returning it to the system again and again.

    Buffers of a chunk's size are just large enough that glibc would map and unmap each; in a
    process that decodes thousands that is a third of its time. Does nothing where malloc isn't
    glibc's.
    """
    _kernels().keep_memory()


def describe() -> str:
    """
    Which implementations run here, in one line, for ``desync --version``.

    :raises UsageError: ``DESYNC_KERNELS`` names none of them.
    """
    chosen = _kernels()
    if chosen is not portable_kernels():
        from .compiled import CompiledKernels

        assert isinstance(chosen, CompiledKernels)
        return f"kernels: {chosen.describe()}"
    try:
        from . import _native as _native
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) or "_native" not in str(error.path or ""):
            why = "not built: a C compiler or Python's headers were missing when this was installed"
        else:
            why = f"the built ones can't be loaded: {error}"
    else:
        why = f"as {ENVIRONMENT_VARIABLE} says"
    return f"kernels: portable Python ({why})"


def available() -> tuple[str, ...]:
    """The names other than ``auto`` that :func:`named` takes here, the slowest first."""
    try:
        from .compiled import supported
    except ImportError:
        return ("portable",)
    return ("portable", *supported())


def named(name: str) -> KernelSet:
    """
    One implementation, by the name that the environment variable has for it.

    :raises UsageError: there is none of this name, or not on this machine.
    """
    choices = available()
    if name not in NAMES:
        raise UsageError(
            f"{ENVIRONMENT_VARIABLE}={name}: no such kernels; there are {', '.join(NAMES)}"
        )
    if name == "auto":
        name = choices[-1]
    if name not in choices:
        raise UsageError(
            f"{ENVIRONMENT_VARIABLE}={name}: not on this machine; it has auto, {', '.join(choices)}"
        )
    if name == "portable":
        return portable_kernels()
    from .compiled import CompiledKernels

    return CompiledKernels(name)


def portable_kernels() -> KernelSet:
    """The implementation in Python: a module, imported only where it is used."""
    from . import portable

    return portable


_chosen: KernelSet | None = None


def _kernels() -> KernelSet:
    global _chosen
    if _chosen is None:
        # An empty variable is as good as none, so that a script can switch the choice off.
        _chosen = named(os.environ.get(ENVIRONMENT_VARIABLE) or "auto")
    return _chosen
