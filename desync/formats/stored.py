# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The forms a chunk can be stored in, and the names it has there.

A chunk store is a tree ``<first 4 hex digits of the id>/<64 hex digits of the id><extension>``. The
extension names the form: ``.cacnk`` for one compressed frame, nothing for the plain bytes. Writers
make zstd; readers tell the compression from the first bytes, as casync does, so that a store made
with casync's ``--compression=xz`` or ``gzip`` can be read too.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview

#: The largest chunk that casync and desync agree on, in bytes.
MAX_CHUNK_SIZE: Final = 128 * 1024 * 1024

#: zstd's level where none is asked for: the one that casync writes.
DEFAULT_LEVEL: Final = 3

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_XZ_MAGIC: Final = b"\xfd7zXZ\x00"
_GZIP_MAGIC: Final = b"\x1f\x8b"

# Chunks up to this size are compressed with one fixed set of parameters: the compressor then
# needn't derive them anew for each size, which is 5 % faster and costs 0.2 % of the ratio at level
# 3. A window of 2^18 bytes covers them whole.
_FIXED_UP_TO: Final = 1 << 18


class Malformed(ValueError):
    """
    Stored bytes that can't be decoded. The message says why, without naming a chunk or a store.
    """


class StoredForm:
    """
    One way of storing a chunk. Two forms are the same if their extensions are.

    :ivar extension: what follows the id in the name of a stored chunk.
    :ivar title: how the form is called in messages and statistics.
    """

    extension: str
    title: str

    def encode(self, plain: Buffer) -> bytes:
        """Turn a chunk's plain bytes into its stored form."""
        raise NotImplementedError

    def decode(self, stored: Buffer, limit: int, size: int | None = None) -> bytes:
        """
        Turn a chunk's stored form into its plain bytes.

        :param limit: the most bytes that may come of it; nothing larger is ever allocated.
        :param size: how many bytes must come of it, where known.
        :raises Malformed: if the stored form can't be decoded, or what comes of it is larger than
            `limit`, empty, or not `size`.
        """
        raise NotImplementedError

    def stored_limit(self, limit: int) -> int:
        """
        Give the most bytes that the stored form of a chunk of `limit` bytes can sensibly have.
        """
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredForm) and other.extension == self.extension

    def __hash__(self) -> int:
        return hash(self.extension)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.extension!r}>"


class Plain(StoredForm):
    """The chunk's bytes as they are."""

    extension = ""
    title = "uncompressed"

    def encode(self, plain: Buffer) -> bytes:
        return bytes(plain)

    def decode(self, stored: Buffer, limit: int, size: int | None = None) -> bytes:
        return _checked(bytes(stored), limit, size)

    def stored_limit(self, limit: int) -> int:
        return limit


class Compressed(StoredForm):
    """
    One zstd frame with its content size. Not safe to share between threads: the contexts are
    reused.

    :param level: zstd's level, 1 (fast) to 22 (small); any reader reads any.
    """

    extension = ".cacnk"
    title = "compressed"

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        self.level = level
        self._small: Callable[[Buffer], bytes] | None = None
        self._large: Callable[[Buffer], bytes] | None = None
        self._decompress: Callable[..., bytes] | None = None
        self._decompress_many: Callable[..., Any] | None = None

    # zstandard takes 15 ms to import, which work on indexes alone needn't wait for.

    def encode(self, plain: Buffer) -> bytes:
        if len(plain) <= _FIXED_UP_TO:
            if self._small is None:
                import zstandard

                parameters = zstandard.ZstdCompressionParameters.from_level(
                    self.level, source_size=1 << 16, window_log=18, write_content_size=True
                )
                self._small = zstandard.ZstdCompressor(compression_params=parameters).compress
            return self._small(plain)
        if self._large is None:
            import zstandard

            self._large = zstandard.ZstdCompressor(level=self.level).compress
        return self._large(plain)

    def decode(self, stored: Buffer, limit: int, size: int | None = None) -> bytes:
        magic = bytes(stored[:6])
        if magic[:4] == ZSTD_MAGIC:
            return _checked(self._decode_zstd(stored, limit, size), limit, size)
        if magic == _XZ_MAGIC:
            return _checked(_decode_xz(stored, limit), limit, size)
        if magic[:2] == _GZIP_MAGIC:
            return _checked(_decode_gzip(stored, limit), limit, size)
        if not magic:
            raise Malformed("it is empty")
        raise Malformed("it is not a compressed chunk")

    def _decode_zstd(self, stored: Buffer, limit: int, size: int | None) -> bytes:
        import zstandard

        if self._decompress is None:
            self._decompress = zstandard.ZstdDecompressor().decompress
        try:
            declared = zstandard.frame_content_size(stored)
            if declared > limit:
                raise Malformed(f"it holds {declared} bytes, more than {limit}")
            if declared >= 0:
                return self._decompress(stored, allow_extra_data=False)
            # casync streams its frames, so they don't say their size and the bound is what is
            # allocated: begin with what nearly every chunk fits in.
            bound = min(limit, size or max(_FIXED_UP_TO, 8 * len(stored)))
            while True:
                try:
                    plain = self._decompress(stored, max_output_size=bound, allow_extra_data=False)
                except zstandard.ZstdError:
                    if size is not None or bound >= limit:
                        raise
                    bound = min(limit, 8 * bound)
                    continue
                # zstandard looks at what follows the frame only if the bound was exactly met.
                if len(plain) < bound and _frame_length(stored) != len(stored):
                    raise Malformed("something follows its frame")
                return plain
        except zstandard.ZstdError as error:
            raise Malformed(_first_line(error)) from None

    def decode_many(self, frames: Sequence[bytes], limit: int) -> list[memoryview] | None:
        """
        Decode many frames by one call, during which other threads run undisturbed.

        :param limit: the most bytes that may come of all together.
        :returns: what comes of each, in memory that they share; None if one of them isn't as
            writers make them (zstd, its size declared, nothing behind it), or is bad, or they are
            too large: :meth:`decode` says about each what is wrong.
        """
        import zstandard

        if self._decompress_many is None:
            decompressor = zstandard.ZstdDecompressor()
            # Without its C backend, as with PyPy, it has none.
            self._decompress_many = getattr(decompressor, "multi_decompress_to_buffer", None)
        if self._decompress_many is None:
            return None
        try:
            sizes = [zstandard.frame_content_size(frame) for frame in frames]
            if min(sizes) <= 0 or sum(sizes) > limit:
                return None
            packed = struct.pack(f"={len(sizes)}Q", *sizes)
            found = self._decompress_many(frames, decompressed_sizes=packed, threads=1)
        except (zstandard.ZstdError, ValueError, TypeError):
            return None
        # It doesn't look at what follows a frame.
        if any(_frame_length(frame) != len(frame) for frame in frames):
            return None
        return [memoryview(found[at]) for at in range(len(frames))]

    def stored_limit(self, limit: int) -> int:
        # zstd's worst case is 1/256 more than the input plus a little; xz and gzip stay below that.
        return limit + limit // 128 + 1024


#: The form that stores have unless they are configured otherwise; the extension is all that is used
#: of it here.
PLAIN: Final = Plain()


def form_named(extension: str, level: int = DEFAULT_LEVEL) -> StoredForm:
    """
    Make the form that has this extension.

    :raises ValueError: if no form has.
    """
    if extension == Compressed.extension:
        return Compressed(level)
    if extension == Plain.extension:
        return Plain()
    raise ValueError(f"no stored form has the extension {extension!r}")


def other_form(form: StoredForm) -> StoredForm:
    """Make the form to fall back to when reading finds nothing in this one."""
    return Plain() if form.extension else Compressed()


def chunk_name(chunk_id: bytes, extension: str) -> str:
    """Name a stored chunk, relative to its store: ``abcd/abcd...ef.cacnk``."""
    text = chunk_id.hex()
    return f"{text[:4]}/{text}{extension}"


def chunk_id_of_name(name: str, extension: str) -> bytes | None:
    """
    Read the id out of the last part of a stored chunk's name.

    :returns: None if it isn't the name of a chunk in the form with this extension. Only lower-case
        digits count.
    """
    if len(name) != 64 + len(extension) or not name.endswith(extension):
        return None
    text = name[:64]
    if not _HEX_DIGITS.issuperset(text):
        return None
    return bytes.fromhex(text)


_HEX_DIGITS: Final = frozenset("0123456789abcdef")


def _checked(plain: bytes, limit: int, size: int | None) -> bytes:
    if not plain:
        raise Malformed("it holds no data")
    if size is not None and len(plain) != size:
        raise Malformed(f"unexpected size: {len(plain)} instead of {size} bytes")
    if len(plain) > limit:
        raise Malformed(f"it holds {len(plain)} bytes, more than {limit}")
    return plain


def _frame_length(stored: Buffer) -> int:
    """
    Say where a zstd frame ends, which is known to be well-formed.

    A frame is its header, blocks of 3 bytes of header and their content, and 4 bytes of checksum if
    the header says so (RFC 8878, section 3.1.1).
    """
    import zstandard

    position: int = zstandard.frame_header_size(stored)
    is_last = False
    while not is_last:
        header = int.from_bytes(stored[position : position + 3], "little")
        is_last = bool(header & 1)
        is_repeated_byte = header >> 1 & 3 == 1
        position += 3 + (1 if is_repeated_byte else header >> 3)
    return position + (4 if zstandard.get_frame_parameters(stored).has_checksum else 0)


def _decode_xz(stored: Buffer, limit: int) -> bytes:
    import lzma

    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=256 * 1024 * 1024)
    try:
        plain = decompressor.decompress(bytes(stored), max_length=limit + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise Malformed(_first_line(error)) from None
    _check_end(decompressor.eof, decompressor.unused_data, len(plain), limit)
    return plain


def _decode_gzip(stored: Buffer, limit: int) -> bytes:
    import zlib

    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(bytes(stored), limit + 1)
    except zlib.error as error:
        raise Malformed(_first_line(error)) from None
    _check_end(decompressor.eof, decompressor.unused_data, len(plain), limit)
    return plain


def _check_end(at_end: bool, rest: bytes, length: int, limit: int) -> None:
    if length > limit:
        raise Malformed(f"it holds more than {limit} bytes")
    if not at_end:
        raise Malformed("it is truncated")
    if rest:
        raise Malformed("something follows its frame")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
