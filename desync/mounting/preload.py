# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Reading in the background what an earlier mount had read, so that it is kept again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from desync.errors import DesyncError, Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .blob import Blob


class Preload:
    """
    Threads that load chunks.

    :param blob: must keep what it reads.
    :param positions: of the chunks.
    :param count: how many threads.
    :param say: told in a line, at the end, if some couldn't be had; called in any thread. They will
        be fetched when somebody reads them.
    """

    def __init__(
        self,
        blob: Blob,
        positions: Iterator[int],
        count: int,
        say: Callable[[str], object],
    ) -> None:
        self._blob = blob
        self._positions = positions
        self._say = say
        self._lock = threading.Lock()
        self._stopped = False
        self._failed = 0
        self._why = ""
        self._left = count
        self._threads = [
            threading.Thread(target=self._load, name=f"desync-preload-{number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Load no more."""
        self._stopped = True

    def _next(self) -> int | None:
        with self._lock:
            return None if self._stopped else next(self._positions, None)

    def _load(self) -> None:
        while (position := self._next()) is not None:
            try:
                self._blob.load(position)
            except Interrupted:
                break
            except (DesyncError, OSError, MemoryError) as error:
                with self._lock:
                    self._failed += 1
                    self._why = self._why or str(error)
        with self._lock:
            self._left -= 1
            if self._left or not self._failed or self._stopped:
                return
        self._say(f"chunks that could not be loaded ahead: {self._failed}; {self._why}")
