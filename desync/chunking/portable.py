# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The kernels in plain Python and hashlib: what runs where the native ones weren't built, and what
those are tested against.

What each function does, takes and raises is said once, in :mod:`.kernels`.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .buzhash import hash_window
from .long_integers import find_match_in_blocks
from .sizes import WINDOW

if TYPE_CHECKING:
    from .buzhash import CutRule
    from .kernels import ReadableBuffer, WritableBuffer

DESCRIPTION = "portable Python"

_ID_SIZE = 32
_ITEM_SIZE = 40
_ITEM_END = struct.Struct("<Q32x")
_SIP_KEY = struct.Struct("<2Q")
_SIP_WORD = struct.Struct("<Q")
_WORD = (1 << 64) - 1
_ZEROS = bytes(1 << 16)
_LARGEST_OFFSET = 0xFFFFFFFF
_HASH_OF_ZEROS = hash_window(bytes(WINDOW))


def find_cuts(
    buffer: ReadableBuffer,
    start: int,
    stop: int,
    end: int,
    final: bool,
    sizes: CutRule,
    ends: WritableBuffer,
) -> int:
    view = _bytes_of(buffer)
    room = _words_of(ends)
    check_cut_arguments(len(view), start, stop, end, final, sizes, len(room))
    maximum = sizes.max
    fixed = sizes.fixed
    first = max(WINDOW, sizes.min)
    discriminator = 1 if fixed else sizes.discriminator
    zeros_match = _HASH_OF_ZEROS % discriminator == discriminator - 1
    stop = min(stop, end)
    count = 0
    while start < stop:
        limit = min(maximum, end - start)
        if fixed or (not zeros_match and is_zero(view[start : start + limit])):
            start += limit
        else:
            start += find_match_in_blocks(view[start : start + limit], first, limit, discriminator)
        room[count] = start
        count += 1
    return count


def check_cut_arguments(
    size: int, start: int, stop: int, end: int, final: bool, sizes: CutRule, room: int
) -> None:
    """
    Refuse arguments of :func:`find_cuts` that could give a wrong cut or have no room for it,
    whatever the data is.

    :param size: the bytes of the buffer.
    :param room: the numbers that fit into ``ends``.
    """
    if not 0 <= start <= end <= size:
        raise ValueError(f"from {start} to {end} is not a part of {size} bytes")
    if end > _LARGEST_OFFSET:
        raise ValueError(f"{end} bytes are more than offsets of 32 bits can tell apart")
    if start >= stop:
        return
    if not final and end - (stop - 1) < sizes.max:
        raise ValueError(
            f"a chunk of {sizes.max} bytes from {stop - 1} on would not end before {end}"
        )
    shortest = sizes.max if sizes.fixed else max(WINDOW, sizes.min)
    most = -(-(min(stop, end) - start) // shortest)
    if room < most:
        raise ValueError(f"room for {room} cuts where there can be {most}")


def hash_ranges(
    buffer: ReadableBuffer,
    start: int,
    ends: ReadableBuffer,
    count: int,
    null: tuple[int, bytes] | None = None,
    id_of: Callable[[ReadableBuffer], bytes] | None = None,
) -> bytes:
    """
    See :func:`.kernels.hash_ranges`.

    :param id_of: another digest than SHA-512/256.
    """
    view = _bytes_of(buffer)
    bounds = _words_of(ends)
    if count < 0 or count > len(bounds):
        raise ValueError(f"{count} chunks from {len(bounds)} ends")
    if start < 0:
        raise ValueError(f"chunks from {start} on")
    null_length, null_id = null if null is not None else (-1, b"")
    digest = id_of or _sha512_256
    ids = bytearray()
    for stop in bounds[:count]:
        if not start <= stop <= len(view):
            raise ValueError(f"a chunk from {start} to {stop} of {len(view)} bytes")
        chunk = view[start:stop]
        start = stop
        ids += null_id if len(chunk) == null_length and is_zero(chunk) else digest(chunk)
    return bytes(ids)


def hash_buffers(buffers: Sequence[ReadableBuffer]) -> bytes:
    return b"".join(map(_sha512_256, buffers))


def is_zero(buffer: ReadableBuffer) -> bool:
    view = _bytes_of(buffer)
    step = len(_ZEROS)
    # A first look at little makes the answer for data that isn't zero, nearly all there is, cheap.
    if view[:WINDOW] != _ZEROS[: min(WINDOW, len(view))]:
        return False
    return all(
        view[at : at + step] == _ZEROS[: min(step, len(view) - at)]
        for at in range(0, len(view), step)
    )


def siphash(data: ReadableBuffer, key: ReadableBuffer) -> int:
    view = _bytes_of(data)
    if len(_bytes_of(key)) != _SIP_KEY.size:
        raise ValueError(f"a key of {len(_bytes_of(key))} bytes")
    k0, k1 = _SIP_KEY.unpack(key)
    state = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )
    whole = len(view) & ~7
    words = [word for (word,) in _SIP_WORD.iter_unpack(view[:whole])]
    words.append((len(view) & 0xFF) << 56 | int.from_bytes(view[whole:], "little"))
    for word in words:
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = _sip_round(*_sip_round(v0, v1, v2, v3 ^ word))
        state = (v0 ^ word, v1, v2, v3)
    v0, v1, v2, v3 = state
    state = (v0, v1, v2 ^ 0xFF, v3)
    for _ in range(4):
        state = _sip_round(*state)
    v0, v1, v2, v3 = state
    return v0 ^ v1 ^ v2 ^ v3


def _sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = (v0 + v1) & _WORD
    v2 = (v2 + v3) & _WORD
    v1 = ((v1 << 13 | v1 >> 51) & _WORD) ^ v0
    v3 = ((v3 << 16 | v3 >> 48) & _WORD) ^ v2
    v0 = (v0 << 32 | v0 >> 32) & _WORD
    v2 = (v2 + v1) & _WORD
    v0 = (v0 + v3) & _WORD
    v1 = ((v1 << 17 | v1 >> 47) & _WORD) ^ v2
    v3 = ((v3 << 21 | v3 >> 43) & _WORD) ^ v0
    v2 = (v2 << 32 | v2 >> 32) & _WORD
    return v0, v1, v2, v3


def check_table(table: ReadableBuffer, max_size: int) -> int:
    view = _bytes_of(table)
    if len(view) % _ITEM_SIZE:
        raise ValueError(f"{len(view)} bytes are no whole number of items of {_ITEM_SIZE}")
    previous = 0
    for number, (end,) in enumerate(_ITEM_END.iter_unpack(view)):
        if not 0 < end - previous <= max_size:
            return number
        previous = end
    return -1


def sort_ids(table: ReadableBuffer, offset: int, stride: int, count: int) -> bytes:
    view = _bytes_of(table)
    check_ids(len(view), offset, stride, count)
    starts = range(offset, offset + count * stride, stride)
    order = array("I", range(count))
    keys = [bytes(view[at : at + _ID_SIZE]) for at in starts]
    return array("I", sorted(order, key=keys.__getitem__)).tobytes()


def unique_ids(
    table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
) -> bytes:
    view = _bytes_of(table)
    check_ids(len(view), offset, stride, count)
    numbers = _order_of(order, count)
    ids = bytearray()
    previous = None
    for number in numbers:
        if number >= count:
            raise ValueError(f"the order names id {number} of {count}")
        at = offset + number * stride
        current = view[at : at + _ID_SIZE]
        if current != previous:
            ids += current
            previous = current
    return bytes(ids)


def first_positions(
    table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
) -> bytes:
    view = _bytes_of(table)
    check_ids(len(view), offset, stride, count)
    numbers = _order_of(order, count)
    first = array("I", bytes(4 * count))
    previous = None
    origin = 0
    for number in numbers:
        if number >= count:
            raise ValueError(f"the order names id {number} of {count}")
        at = offset + number * stride
        current = view[at : at + _ID_SIZE]
        if current != previous:
            previous, origin = current, number
        first[number] = origin
    return first.tobytes()


def check_ids(size: int, offset: int, stride: int, count: int) -> None:
    """
    Refuse a place of ids that isn't within ``size`` bytes, or more ids than 32-bit numbers can
    count.
    """
    if offset < 0 or stride < _ID_SIZE or count < 0 or count > _LARGEST_OFFSET:
        raise ValueError(f"{count} ids every {stride} bytes from {offset} on")
    if count and offset + (count - 1) * stride + _ID_SIZE > size:
        raise ValueError(
            f"{count} ids every {stride} bytes from {offset} on are more than {size} bytes"
        )


def _order_of(order: ReadableBuffer, count: int) -> memoryview:
    numbers = _words_of(order)
    if len(numbers) != count:
        raise ValueError(f"an order of {len(numbers)} for {count} ids")
    return numbers


def read_files(paths: Sequence[bytes], limit: int) -> list[bytes | None]:
    return [_read_file(path, limit) for path in paths]


def _read_file(path: bytes, limit: int) -> bytes | None:
    try:
        # Not blocking, for it may be a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not 0 < found.st_size <= limit:
            return None
        data = os.read(descriptor, found.st_size)
        while data and len(data) < found.st_size:
            more = os.read(descriptor, found.st_size - len(data))
            if not more:
                return None
            data += more
        return data or None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def write_buffers(descriptor: int, buffers: Sequence[ReadableBuffer], offsets: array[int]) -> None:
    if len(offsets) != len(buffers):
        raise ValueError("there has to be an offset for each buffer")
    for buffer, offset in zip(buffers, offsets, strict=True):
        view = _bytes_of(buffer)
        while view:
            written = os.pwrite(descriptor, view, offset)
            offset += written
            view = view[written:]


def keep_memory() -> None:
    """Python has no way to tell malloc anything."""


def _sha512_256(data: ReadableBuffer) -> bytes:
    return hashlib.new("sha512_256", data).digest()


def _bytes_of(buffer: ReadableBuffer) -> memoryview:
    view = memoryview(buffer)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _words_of(buffer: ReadableBuffer) -> memoryview:
    return memoryview(buffer).cast("B").cast("I")
