# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.progress."""

from __future__ import annotations

import io
import json

from twisted.trial.unittest import SynchronousTestCase

from desync.progress import Bars, JsonLines, Lines, Progress, choose


class Clock:
    """A clock that stands still until it's told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it's a terminal."""

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader is gone at some point."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise BrokenPipeError
        return super().write(text)


class LinesTests(SynchronousTestCase):
    """Go desync's parsable progress."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.stream = io.StringIO()
        self.progress = Lines(self.stream, self.clock)

    def lines(self) -> list[str]:
        """Give what was written so far."""
        return self.stream.getvalue().splitlines()

    def test_shape(self) -> None:
        """There's a line at the start, one each half second at most, and one at the end."""
        with self.progress.start("Chunking", 2000, "bytes") as tracker:
            self.assertEqual(self.lines(), ["Chunking    0.00%"])
            self.clock.now += 0.4
            tracker.add(1)
            self.assertEqual(len(self.lines()), 1)
            self.clock.now += 0.1
            tracker.add(246)
            tracker.add(1)
            self.assertEqual(self.lines()[1:], ["Chunking   12.35% 00m03s"])
            self.clock.now += 62.6
            tracker.set(1999)
            self.assertEqual(self.lines()[2:], ["Chunking   99.95%"])
        self.assertEqual(self.lines()[3:], ["Chunking  100.00% 1m3s"])

    def test_without_a_total(self) -> None:
        """Without a total there's no percentage, and the time it took at the end."""
        with self.progress.start("Attempt 1: Validating", 0) as tracker:
            self.clock.now += 0.5
            tracker.add(1)
        self.assertEqual(
            self.lines(), ["Attempt 1: Validating "] * 2 + ["Attempt 1: Validating  0s"]
        )

    def test_without_a_title(self) -> None:
        """Without a title a line begins with the percentage, as Go's for chop and cache do."""
        with self.progress.start("", 3) as tracker:
            tracker.add(3)
        self.assertEqual(self.lines(), ["   0.00%", " 100.00% 0s"])

    def test_time_left(self) -> None:
        """Time that's left has hours and days when there are any."""
        for left, text in (
            (0, ""),
            (1, " 00m01s"),
            (61, " 01m01s"),
            (3_661, " 1h01m01s"),
            (90_061, " 1d1h01m01s"),
            (86_400, " 1d0h00m00s"),
        ):
            tracker = self.progress.start("x", 1 + left)
            self.clock.now += 1
            tracker.add(1)
            self.assertEqual(self.lines()[-1].partition("%")[2], text)

    def test_failure(self) -> None:
        """A phase that fails is never said to be complete."""
        tracker = self.progress.start("x", 10)
        with self.assertRaises(KeyError), tracker:
            tracker.add(5)
            raise KeyError
        self.assertEqual(self.lines(), ["x    0.00%"])

    def test_too_much(self) -> None:
        """More than the total is never more than all."""
        tracker = self.progress.start("x", 10)
        self.clock.now += 1
        tracker.add(20)
        self.assertEqual(self.lines()[-1], "x  100.00%")

    def test_finishing_twice(self) -> None:
        """A phase ends once."""
        tracker = self.progress.start("x", 10)
        tracker.finish()
        tracker.finish()
        self.assertEqual(len(self.lines()), 2)


class JsonLinesTests(SynchronousTestCase):
    """Progress for programs."""

    def test_lines(self) -> None:
        """Each line is an object with the whole state, the last one says that it's the last."""
        clock, stream = Clock(), io.StringIO()
        progress = JsonLines(stream, clock)
        with progress.start('Chunk"ing', 10, "bytes") as tracker:
            clock.now += 0.5
            tracker.add(4)
            tracker.add(1)
            clock.now += 0.25
        states = [json.loads(line) for line in stream.getvalue().splitlines()]
        first = {"title": 'Chunk"ing', "done": 0, "total": 10, "unit": "bytes", "elapsed": 0.0}
        self.assertEqual(
            states,
            [
                first,
                {**first, "done": 4, "elapsed": 0.5},
                {**first, "done": 10, "elapsed": 0.75, "finished": True},
            ],
        )

    def test_failure(self) -> None:
        """A phase that fails ends with a line that says so, and how far it got."""
        stream = io.StringIO()
        tracker = JsonLines(stream, Clock()).start("x", 10)
        with self.assertRaises(KeyError), tracker:
            tracker.add(5)
            raise KeyError
        last = json.loads(stream.getvalue().splitlines()[-1])
        self.assertEqual((last["done"], last["finished"]), (5, False))


class BarsTests(SynchronousTestCase):
    """Bars on a terminal."""

    def test_bar(self) -> None:
        """A bar has the title, and is full and left standing when the phase is complete."""
        stream = Terminal()
        with Bars(stream).start("Storing", 4) as tracker:
            tracker.add(2)
        text = stream.getvalue()
        self.assertIn("Storing", text)
        self.assertIn("4/4", text)
        self.assertTrue(text.endswith("\n"))

    def test_failure(self) -> None:
        """A bar of a phase that fails stays where it was."""
        stream = Terminal()
        tracker = Bars(stream).start("Storing", 4)
        with self.assertRaises(KeyError), tracker:
            tracker.add(3)
            raise KeyError
        self.assertNotIn("4/4", stream.getvalue())
        self.assertTrue(stream.getvalue().endswith("\n"))

    def test_message(self) -> None:
        """A message is written on a line of its own, while a bar is shown and afterwards."""
        stream = Terminal()
        bars = Bars(stream)
        with bars.start("Storing", 4):
            bars.message("hello\n")
        bars.message("world\n")
        lines = stream.getvalue().replace("\r", "\n").splitlines()
        self.assertIn("hello", lines)
        self.assertIn("world", lines)


class SizesTests(SynchronousTestCase):
    """What a rebuild says beside how far it has got: bytes that were reused and fetched."""

    def test_json(self) -> None:
        """Lines of JSON have them as numbers, those of other phases don't."""
        stream = io.StringIO()
        progress = JsonLines(stream, Clock())
        with progress.start("Assembling", 4) as tracker:
            tracker.sizes.update(reused=5000, fetched=70)
        with progress.start("Storing", 4):
            pass
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        self.assertEqual((lines[1]["bytes-reused"], lines[1]["bytes-fetched"]), (5000, 70))
        self.assertNotIn("bytes-reused", lines[-1])

    def test_bar(self) -> None:
        """A bar has them in its line."""
        stream = Terminal()
        with Bars(stream).start("Assembling", 4) as tracker:
            tracker.sizes.update(reused=5 << 20, fetched=7 << 10)
            tracker.add(4)
        self.assertIn("5.00MB reused, 7.00kB fetched", stream.getvalue())

    def test_lines(self) -> None:
        """Lines for scripts of Go desync stay as those scripts know them."""
        stream = io.StringIO()
        with Lines(stream, Clock()).start("Assembling", 4) as tracker:
            tracker.sizes.update(reused=5000)
        self.assertEqual(stream.getvalue().splitlines()[-1], "Assembling  100.00% 0s")


class ChooseTests(SynchronousTestCase):
    """Which progress there is."""

    def test_auto(self) -> None:
        """Lines or a bar when the environment asks for it, a bar on a terminal, else nothing."""
        for stream, environ, quiet, expected in (
            (io.StringIO(), {}, False, None),
            (io.StringIO(), {"DESYNC_PROGRESSBAR_ENABLED": ""}, False, None),
            (io.StringIO(), {"DESYNC_PROGRESSBAR_ENABLED": "1"}, False, Bars),
            (io.StringIO(), {"DESYNC_ENABLE_PARSABLE_PROGRESS": "1"}, False, Lines),
            (Terminal(), {}, False, Bars),
            (Terminal(), {"DESYNC_ENABLE_PARSABLE_PROGRESS": "1"}, False, Lines),
            (Terminal(), {"DESYNC_ENABLE_PARSABLE_PROGRESS": "1"}, True, None),
        ):
            chosen = choose("auto", stream, environ, quiet=quiet)
            with chosen.start("x", 1) as tracker:
                tracker.add(1)
            if expected is None:
                self.assertEqual(stream.getvalue(), "")
            else:
                self.assertIsInstance(chosen, expected)
                self.assertNotEqual(stream.getvalue(), "")

    def test_asked_for(self) -> None:
        """What the user asks for is what there is, whatever the environment and the stream."""
        environ = {"DESYNC_ENABLE_PARSABLE_PROGRESS": "1"}
        for mode, expected in (("bar", Bars), ("json", JsonLines), ("lines", Lines)):
            chosen = choose(mode, io.StringIO(), environ, quiet=True)
            self.assertIsInstance(chosen, expected)
        stream = Terminal()
        choose("none", stream, environ).start("x", 1).finish()
        self.assertEqual(stream.getvalue(), "")

    def test_silent_base(self) -> None:
        """The plain Progress counts and shows nothing, for operations that nobody watches."""
        with Progress().start("x", 3) as tracker:
            tracker.add(1)
            tracker.set(2)
        self.assertEqual((tracker.done, tracker.total), (2, 3))

    def test_nobody_reads(self) -> None:
        """A stream that can't be written to any more doesn't stop the work."""
        for mode in ("none", "lines", "json", "bar"):
            stream = Gone()
            progress = choose(mode, stream, {})
            stream.gone = True
            with progress.start("x", 3) as tracker:
                tracker.add(3)
                progress.message("hello\n")
            self.assertEqual(tracker.done, 3)

    def test_messages(self) -> None:
        """Messages reach the stream, whichever progress there is."""
        for mode in ("none", "lines", "json", "bar"):
            stream = io.StringIO()
            choose(mode, stream, {}).message("hello\n")
            self.assertEqual(stream.getvalue(), "hello\n")
