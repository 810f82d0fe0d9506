# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Where the measurements take place: the data, made when a job first needs it, and a new folder for
each run.

ext4 gets many times slower at creating files for minutes after many were deleted, which would be
measured in place of the programs. So on anything but tmpfs, stores stay until everything is done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable

from . import data
from .commands import Party
from .machine import file_system
from .measure import run

FILES_PER_GIB = 50_000
"""How many files the tree has; they have some 450 MB together."""


class NotPrepared(Exception):
    """What a job needs couldn't be made."""


class Place:
    """
    A folder with the data and the runs of one measurement.

    :param directory: where it is made. It is removed by :meth:`close`.
    :param size: of the image, in bytes.
    :param maker: the program that makes the store and the index that all programs read.
    :param source: the folder that the image is made of.
    """

    def __init__(self, directory: str, size: int, maker: Party, source: str = data.SOURCE) -> None:
        self.root = tempfile.mkdtemp(prefix="desync-bench.", dir=directory)
        self.size = size
        self.maker = maker
        self.file_system = file_system(self.root)
        self._source = source
        self._runs = 0

    @property
    def is_memory(self) -> bool:
        """Whether files are in memory, where deleting and syncing have no effects."""
        return self.file_system == "tmpfs"

    def _made(self, name: str, make: Callable[[str], None]) -> str:
        path = os.path.join(self.root, name)
        if not os.path.exists(path):
            make(path)
            self.settle()
        return path

    def image(self, times: int = 1) -> str:
        """Give the image, or one that is so many times as large."""
        return self._made(
            f"image{times}", lambda path: data.image(path, self.size * times, self._source)
        )

    def next_version(self) -> str:
        """Give the next version of the image."""
        return self._made("next", lambda path: data.next_version(self.image(), path))

    def patched(self) -> str:
        """Give a version of the image with parts replaced and nothing moved."""
        return self._made(
            "patched", lambda path: data.next_version(self.image(), path, inserted=False)
        )

    def zeros(self) -> str:
        """Give a file of zeros, as large as the image."""
        return self._made("zeros", lambda path: data.zeros(path, self.size))

    def sparse(self, times: int) -> str:
        """Give a file that is so many times as large as the image, and takes half its room."""
        size = self.size * times
        return self._made(
            f"sparse{times}", lambda path: data.sparse(path, size, self.image(), 2 * times)
        )

    def tree(self) -> str:
        """Give a tree of small files: 50,000 for an image of 1 GiB."""
        count = max(self.size * FILES_PER_GIB // data.GIB, 10)
        return self._made("tree", lambda path: data.tree(path, count, self.image()))

    def archive(self) -> tuple[str, str]:
        """
        Give the store and the index of the tree.

        :raises NotPrepared: if they couldn't be made.
        """
        tree = self.tree()
        return self._stored(tree, f"{tree}.caidx", self.maker.tar)

    def store(self, file: str) -> tuple[str, str]:
        """
        Give the store and the index of a file.

        :raises NotPrepared: if they couldn't be made.
        """
        return self._stored(file, f"{file}.caibx", self.maker.make)

    def _stored(
        self, path: str, index: str, command: Callable[[str, str, str], list[str] | None]
    ) -> tuple[str, str]:
        store = f"{path}.castr"
        if not os.path.exists(index):
            if os.path.exists(store):
                raise NotPrepared(f"no store of {os.path.basename(path)}")
            os.mkdir(store)
            argv = command(index, path, store)
            assert argv is not None
            done = run(argv, environ=self.maker.environ, directory=self.root)
            if done.code:
                raise NotPrepared(f"no store of {os.path.basename(path)}: {done.said}")
            self.settle()
        return store, index

    def fresh(self) -> str:
        """Make a new folder for one run."""
        self._runs += 1
        path = os.path.join(self.root, f"run{self._runs}")
        os.mkdir(path)
        return path

    def fresh_store(self, content: str | None = None) -> str:
        """Make a store in a new folder, empty or with what another store holds (hard links)."""
        store = os.path.join(self.fresh(), "store.castr")
        if content is None:
            os.mkdir(store)
        else:
            shutil.copytree(content, store, copy_function=os.link)
        return store

    def done(self, folder: str) -> None:
        """Remove what a run left that can be removed now: a few files, or in memory everything."""
        if self.is_memory:
            shutil.rmtree(folder)
            return
        for entry in os.scandir(folder):
            if entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)

    def settle(self) -> None:
        """Have everything written, so that the next run doesn't wait for it."""
        if not self.is_memory:
            os.sync()

    def close(self) -> None:
        """Remove everything."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.root)
