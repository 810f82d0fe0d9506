# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The members of a tar stream, one after the other, from a file or a pipe. Python's tarfile knows the
formats; here it is held to reading forward, to bounded headers, and to saying what is broken.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Any, Final, cast

from desync.errors import FileError, InvalidArchive, describe_os_error

#: The longest header: long names, PAX records with all xattrs that a node can have.
_HEADER_LIMIT: Final = 32 << 20

#: Bytes of content that are asked for at once.
_STEP: Final = 1 << 18

#: What comes behind the end, so that whoever writes to a pipe gets rid of all of it.
_DRAINED: Final = 1 << 20


#: What tarfile makes of headers that nobody wrote in earnest.
_BROKEN: Final = (ValueError, OverflowError, EOFError, LookupError, RecursionError)

_TROUBLE: Final = (OSError, tarfile.TarError, *_BROKEN)


class _Member(tarfile.TarInfo):
    """A member whose header is broken is an error, not the end; and so is no end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":
                raise
            what = str(error)
            if type(error).__name__ == "EmptyHeaderError":
                what = "it ends before its end was written"
            raise tarfile.ReadError(what) from None


class _Forward:
    """
    What tarfile reads from: a stream with a position, which only grows.

    :param file: the same as a file, if what isn't wanted can be passed over.
    :ivar head: the first block.
    """

    def __init__(self, read: Callable[[int], bytes], file: IO[bytes] | None = None) -> None:
        self._read = read
        self._file = file
        self._at = 0
        self.head = b""

    def read(self, size: int) -> bytes:
        if size > _HEADER_LIMIT:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = self._read(size)
        while data and len(data) < size:
            more = self._read(size - len(data))
            if not more:
                break
            data += more
        self._at += len(data)
        if not self.head:
            self.head = data
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence or offset < self._at:
            raise tarfile.ReadError("a header that points backwards")
        if self._file is not None and offset > self._at:
            self._file.seek(offset - self._at, os.SEEK_CUR)
            self._at = offset
        while self._at < offset and self.read(min(offset - self._at, _STEP)):
            pass
        return self._at


class TarMembers:
    """
    Reads a tar stream.

    :param name: the stream, as errors name it.
    :param read: gives up to as many bytes, none at the end.
    :param file: the same as a file where that can be read a second time, for :meth:`again`.
    :ivar is_posix: whether it begins as a stream of the format ustar or PAX does; known with the
        first member.
    """

    def __init__(
        self, name: str, read: Callable[[int], bytes], file: IO[bytes] | None = None
    ) -> None:
        self.name = name
        self.file = file
        self.is_posix = False
        self._read = read

    def __iter__(self) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
        """
        Give each member with its content, which has to be taken before the next member is.

        :raises InvalidArchive: if it is no tar stream, or is broken.
        :raises FileError: if it can't be read.
        """
        stream = _Forward(self._read)
        archive = self._guarded(lambda: _open(stream))
        self.is_posix = stream.head[257:263] == b"ustar\0"
        while True:
            member = self._guarded(archive.next)
            if member is None:
                break
            # tarfile keeps all of them otherwise.
            archive.members.clear()
            yield member, self._content(archive, member)
        self._guarded(self._drain)

    def headers(self) -> Iterator[tarfile.TarInfo]:
        """Give the members of a file without their content, up to what can't be read."""
        file = self.file
        assert file is not None
        try:
            file.seek(0)
            archive: Any = _open(_Forward(file.read, file))
            while (member := archive.next()) is not None:
                archive.members.clear()
                yield member
        except _TROUBLE:
            return  # Whoever reads it in earnest finds out.

    def again(self, offset: int) -> tuple[tarfile.TarInfo, Iterator[bytes]]:
        """
        Give a member once more.

        :param offset: where its header begins.
        """
        file = self.file
        assert file is not None

        def reopen() -> tuple[tarfile.TarFile, tarfile.TarInfo]:
            file.seek(offset)
            archive = _open(_Forward(file.read))
            member = archive.next()
            if member is None:
                raise tarfile.ReadError("it changed meanwhile")
            return archive, member

        archive, member = self._guarded(reopen)
        return member, self._content(archive, member)

    def _content(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
        if not member.isreg():
            return
        content = self._guarded(lambda: archive.extractfile(member))
        left = member.size
        while left:
            data = self._guarded(partial(content.read, min(left, _STEP)))
            if not data:
                raise self.invalid("it is truncated")
            left -= len(data)
            yield data

    def _drain(self) -> None:
        left = _DRAINED
        while self.file is None and left > 0:
            data = self._read(min(left, _STEP))
            if not data:
                return
            left -= len(data)

    def _guarded(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except OSError as error:
            if isinstance(error, tarfile.TarError):
                raise self.invalid(str(error)) from None
            raise FileError(self.name, error.strerror or describe_os_error(error)) from None
        except tarfile.TarError as error:
            raise self.invalid(str(error)) from None
        except _BROKEN as error:
            raise self.invalid(f"it is broken ({type(error).__name__}: {error})") from None

    def invalid(self, why: str) -> InvalidArchive:
        """Make the error that says what is wrong with the stream."""
        return InvalidArchive(self.name, f"not a good tar stream: {why}")


def _open(stream: _Forward) -> tarfile.TarFile:
    return tarfile.TarFile(
        fileobj=cast(IO[bytes], stream),
        mode="r",
        tarinfo=_Member,
        encoding="utf-8",
        errors="surrogateescape",
    )
