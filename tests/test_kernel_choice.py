# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Tests for which kernels run (:mod:`desync.chunking.kernels`), and runs of the C code by itself.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking import kernels, portable
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import UsageError

from .test_kernels import native_kernels

NATIVE = Path(__file__).parent / "native"


def run_python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    values = {name: value for name, value in os.environ.items() if name != "DESYNC_KERNELS"}
    values["PYTHONPATH"] = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=values | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


class ChoiceTests(SynchronousTestCase):
    """Which implementation runs."""

    DESCRIBE = """
from desync.chunking import kernels
from desync.errors import UsageError
try:
    print(kernels.describe(), kernels.is_zero(b"00"))
except UsageError as error:
    print("refused:", error)
"""

    def test_named(self) -> None:
        """The fastest is taken by itself; a name that there isn't is refused, listing those."""
        self.assertEqual(kernels.available()[0], "portable")
        self.assertIs(kernels.named("portable"), portable)
        self.assertIsNot(kernels.named(kernels.available()[-1]), None)
        with self.assertRaisesRegex(UsageError, "^DESYNC_KERNELS=fast: .* auto, portable, scalar"):
            kernels.named("fast")
        for name in set(kernels.NAMES) - {"auto", *kernels.available()}:
            with self.assertRaisesRegex(UsageError, f"={name}: not on this machine"):
                kernels.named(name)

    def test_environment(self) -> None:
        """The environment variable chooses, and is checked when a kernel is first needed."""
        self.assertEqual(
            run_python(self.DESCRIBE, DESYNC_KERNELS="portable"),
            "kernels: portable Python (as DESYNC_KERNELS says) False\n"
            if len(kernels.available()) > 1
            else run_python(self.DESCRIBE),
        )
        self.assertEqual(run_python(self.DESCRIBE, DESYNC_KERNELS=""), run_python(self.DESCRIBE))
        self.assertTrue(
            run_python(self.DESCRIBE, DESYNC_KERNELS="none").startswith(
                "refused: DESYNC_KERNELS=none: "
            )
        )
        native_kernels()
        self.assertEqual(
            run_python(self.DESCRIBE, DESYNC_KERNELS="scalar"),
            "kernels: native (cuts portable C, sha512-256 OpenSSL) False\n",
        )

    def test_without_the_extension(self) -> None:
        """Where the extension wasn't built, Python does it and says so; C can't be asked for."""
        hide = "import sys; sys.modules['desync.chunking._native'] = None\n"
        self.assertEqual(
            run_python(hide + self.DESCRIBE),
            "kernels: portable Python (not built: a C compiler or Python's headers were missing"
            " when this was installed) False\n",
        )
        self.assertEqual(
            run_python(hide + self.DESCRIBE, DESYNC_KERNELS="scalar"),
            "refused: DESYNC_KERNELS=scalar: not on this machine; it has auto, portable\n",
        )

    def test_public_functions(self) -> None:
        """The module's functions are those of the implementation that was chosen."""
        data = random.Random(10).randbytes(5000)
        sizes = ChunkSizes(48, 64, 256)
        ends, expected = array("I", bytes(4 * 105)), array("I", bytes(4 * 105))
        count = kernels.find_cuts(data, 0, 5000, 5000, True, sizes, ends)
        self.assertEqual(count, portable.find_cuts(data, 0, 5000, 5000, True, sizes, expected))
        self.assertEqual(ends, expected)
        ids = kernels.hash_ranges(data, 0, ends, count)
        self.assertEqual(ids, portable.hash_ranges(data, 0, ends, count))
        self.assertEqual(kernels.hash_buffers([data]), SHA512_256.id_of(data))
        self.assertTrue(kernels.is_zero(bytes(9)))
        self.assertEqual(kernels.check_table(bytes(40), 1), 0)
        order = kernels.sort_ids(ids, 0, 32, count)
        self.assertEqual(
            kernels.unique_ids(ids, 0, 32, count, order),
            b"".join(sorted({ids[i : i + 32] for i in range(0, len(ids), 32)})),
        )
        self.assertEqual(len(kernels.first_positions(ids, 0, 32, count, order)), 4 * count)
        kernels.keep_memory()
        self.assertTrue(kernels.describe().startswith("kernels: "))

    def test_cheap_to_import(self) -> None:
        """Workers and commands import the kernels first of all: no slow module comes with them."""
        code = """
import sys
import desync.chunking.digests, desync.chunking.kernels, desync.chunking.portable
desync.chunking.kernels.is_zero(b"")
slow = {"twisted", "zope", "attr", "dataclasses", "json", "ctypes", "numpy", "asyncio"}
print(sorted(slow & set(sys.modules)))
"""
        self.assertEqual(run_python(code), "[]\n")


class NativeCodeTests(SynchronousTestCase):
    """The C code by itself."""

    def run_script(self, *arguments: str) -> str:
        """Run the fuzz program, compiled with sanitizers, or skip where that can't be."""
        compiler = os.environ.get("CC", "gcc")
        if shutil.which(compiler) is None:
            raise SkipTest(f"no {compiler}")
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text("int main(void) { return 0; }\n")
            sanitized = [compiler, "-fsanitize=address,undefined", str(probe), "-o", f"{folder}/p"]
            if subprocess.run(sanitized, capture_output=True).returncode:
                raise SkipTest(f"{compiler} has no sanitizers here")
        done = subprocess.run(
            [str(NATIVE / "sanitize"), *arguments], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_sanitized(self) -> None:
        """No access beyond a buffer, no undefined behavior, no difference from plain code."""
        self.assertIn("no difference", self.run_script("150"))

    def test_emulated(self) -> None:
        """The AVX-512 kernels give the same, even where the processor hasn't got AVX-512."""
        if not Path("/usr/include/simde").exists():
            raise SkipTest("no SIMDe (libsimde-dev)")
        self.assertIn("emulated avx512; no difference", self.run_script("--emulate", "60"))
