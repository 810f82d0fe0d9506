# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Saying how far an operation has got.

An operation is given a :class:`Progress`, starts a :class:`Tracker` for each phase of its work, and
adds to it::

    with progress.start("Chunking", size, "bytes") as tracker:
        ...
        tracker.add(len(block))

What becomes of that is decided where the progress was made: nothing, a bar on a terminal, lines in
Go desync's form, or lines of JSON for programs. All of it goes to stderr, because stdout belongs to
results. Nothing here starts a thread or a timer: a tracker looks at the clock when it's told
something, so that work which says nothing shows nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, TextIO

Clock = Callable[[], float]
Unit = Literal["bytes", "chunks"]
REFRESH = 0.5
"""Seconds between two lines."""


class Tracker:
    """
    How far one phase of the work has got. This one shows nothing.

    As a context manager it finishes when the block does, and is left as it is when the block fails.

    :ivar done: units done.
    :ivar total: units there are; 0 when that isn't known.
    :ivar sizes: what else there is to say: words and numbers of bytes.
    """

    __slots__ = ("done", "sizes", "total")

    def __init__(self, total: int) -> None:
        self.done = 0
        self.total = total
        self.sizes: dict[str, int] = {}

    def add(self, count: int) -> None:
        """Count some more units as done."""
        self.done += count
        self.changed()

    def set(self, done: int) -> None:
        """Say how many units are done in all."""
        self.done = done
        self.changed()

    def finish(self) -> None:
        """Say that the phase is complete."""

    def abandon(self) -> None:
        """Say that the phase ended without being complete."""

    def changed(self) -> None:
        """Show the new state, if it's time to."""

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()


class Progress:
    """Where an operation's phases are shown. This one shows nothing."""

    def start(self, title: str, total: int, unit: Unit = "chunks") -> Tracker:
        """
        Begin a phase.

        :param title: what is being done, as in ``Chunking``; empty where the command says it all.
        :param total: how many units there are; 0 when that isn't known.
        :param unit: what is counted.
        """
        return Tracker(total)

    def message(self, text: str) -> None:
        """
        Write a line to the user, above the bar if there is one.

        :param text: with its newline.
        """
        sys.stderr.write(text)


class _Silent(Progress):
    """Shows nothing but messages."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = _Unbreakable(stream)

    def message(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


class _Unbreakable:
    """A stream that ignores that nobody reads it any more: the work goes on all the same."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class Lines(_Silent):
    """
    One line every half second: title, percentage, and the time that's left.

    The form is Go desync's with DESYNC_ENABLE_PARSABLE_PROGRESS: ``Chunking   12.34% 01m02s``, and
    at the end ``Chunking  100.00% 1m3s`` with the time it took. Without a total there's only the
    title.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(stream)
        self.clock = clock

    def start(self, title: str, total: int, unit: Unit = "chunks") -> Tracker:
        return _LineTracker(self, f"{title} " if title else "", total)


class _TimedTracker(Tracker):
    """A tracker that shows its state now and then."""

    __slots__ = ("clock", "due", "ended", "started")

    def __init__(self, total: int, clock: Clock) -> None:
        super().__init__(total)
        self.clock = clock
        self.started = clock()
        self.due = self.started + REFRESH
        self.ended = False
        self.show(self.started)

    def changed(self) -> None:
        now = self.clock()
        if now >= self.due:
            self.due = now + REFRESH
            self.show(now)

    def finish(self) -> None:
        if not self.ended:
            self.ended = True
            self.done = max(self.done, self.total)
            self.show(self.clock())

    def show(self, now: float) -> None:
        raise NotImplementedError


class _LineTracker(_TimedTracker):
    __slots__ = ("lines", "prefix")

    def __init__(self, lines: Lines, prefix: str, total: int) -> None:
        self.lines = lines
        self.prefix = prefix
        super().__init__(total, lines.clock)

    def show(self, now: float) -> None:
        elapsed = now - self.started
        line = self.prefix
        if self.total > 0:
            line += f" {100 * min(self.done, self.total) / self.total:6.02f}%"
            if self.ended:
                line += " " + _whole_seconds(elapsed)
            elif self.done > 0:
                line += _time_left(elapsed * (self.total - self.done) / self.done)
        elif self.ended:
            line += " " + _whole_seconds(elapsed)
        self.lines.message(line + "\n")


class JsonLines(_Silent):
    """
    One JSON object a line, every half second, for programs.

    Its keys are ``title``, ``done``, ``total`` (0 when not known), ``unit`` and ``elapsed``
    (seconds); where a file is rebuilt also ``bytes-reused`` and ``bytes-fetched``. The last one of
    a phase has ``"finished": true`` if the phase was completed and ``false`` if not.
    """

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(stream)
        self.clock = clock

    def start(self, title: str, total: int, unit: Unit = "chunks") -> Tracker:
        return _JsonTracker(self, title, total, unit)


class _JsonTracker(_TimedTracker):
    __slots__ = ("finished", "lines", "title", "unit")

    def __init__(self, lines: JsonLines, title: str, total: int, unit: Unit) -> None:
        self.lines = lines
        self.title = title
        self.unit = unit
        self.finished: bool | None = None
        super().__init__(total, lines.clock)

    def finish(self) -> None:
        if not self.ended:
            self.finished = True
            super().finish()

    def abandon(self) -> None:
        if not self.ended:
            self.ended = True
            self.finished = False
            self.show(self.clock())

    def show(self, now: float) -> None:
        import json

        state: dict[str, Any] = {
            "title": self.title,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "elapsed": round(now - self.started, 3),
            **{f"bytes-{what}": size for what, size in self.sizes.items()},
        }
        if self.finished is not None:
            state["finished"] = self.finished
        self.lines.message(json.dumps(state) + "\n")


class Bars(_Silent):
    """A bar for each phase, drawn by tqdm, which is imported when the first one starts."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.bar: Any = None

    def start(self, title: str, total: int, unit: Unit = "chunks") -> Tracker:
        import threading

        from tqdm import tqdm

        # Neither the lock between processes nor the thread that redraws slow bars is for us.
        tqdm.set_lock(threading.RLock())
        tqdm.monitor_interval = 0
        self.bar = tqdm(
            desc=title or None,
            total=total or None,
            unit="B" if unit == "bytes" else f" {unit}",
            unit_scale=unit == "bytes",
            unit_divisor=1024 if unit == "bytes" else 1000,
            file=self.stream,
            dynamic_ncols=True,
            mininterval=0.2,
        )
        return _BarTracker(self, self.bar, total)

    def message(self, text: str) -> None:
        if self.bar is not None:
            self.bar.clear()
        super().message(text)
        if self.bar is not None:
            self.bar.refresh()


class _BarTracker(Tracker):
    __slots__ = ("bar", "bars")

    def __init__(self, bars: Bars, bar: Any, total: int) -> None:
        super().__init__(total)
        self.bars = bars
        self.bar = bar

    def changed(self) -> None:
        if self.sizes:
            words = (
                f"{self.bar.format_sizeof(size, 'B', 1024)} {what}"
                for what, size in self.sizes.items()
            )
            self.bar.set_postfix_str(", ".join(words), refresh=False)
        self.bar.update(self.done - self.bar.n)

    def finish(self) -> None:
        self.done = max(self.done, self.total)
        self.changed()
        self.abandon()

    def abandon(self) -> None:
        self.bar.close()
        if self.bars.bar is self.bar:
            self.bars.bar = None


MODES = ("auto", "none", "bar", "lines", "json")


def choose(
    mode: str, stream: TextIO, environ: Mapping[str, str], *, quiet: bool = False
) -> Progress:
    """
    Make the progress that the user asked for.

    ``auto`` is lines if DESYNC_ENABLE_PARSABLE_PROGRESS is set to anything, a bar if the stream is
    a terminal or DESYNC_PROGRESSBAR_ENABLED is set to anything, and else nothing.

    :param mode: one of :data:`MODES`.
    :param stream: where it's shown, the command's stderr.
    :param quiet: whether ``auto`` shows nothing at all.
    """
    if mode == "auto":
        if quiet:
            mode = "none"
        elif environ.get("DESYNC_ENABLE_PARSABLE_PROGRESS"):
            mode = "lines"
        elif environ.get("DESYNC_PROGRESSBAR_ENABLED") or stream.isatty():
            mode = "bar"
    if mode == "lines":
        return Lines(stream)
    if mode == "json":
        return JsonLines(stream)
    if mode == "bar":
        return Bars(stream)
    return _Silent(stream)


def _whole_seconds(seconds: float) -> str:
    from .durations import format_duration

    return format_duration(int(seconds) * 1_000_000_000)


def _time_left(seconds: float) -> str:
    left = int(seconds)
    if left <= 0:
        return ""
    minutes, left = divmod(left, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{minutes:02d}m{left:02d}s"
    if days or hours:
        text = f"{hours}h{text}"
    if days:
        text = f"{days}d{text}"
    return " " + text
