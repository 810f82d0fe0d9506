# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The C extension, which setup.cfg has no words for. Everything else is said there."""

from __future__ import annotations

import os
import sysconfig
from glob import glob

from setuptools import Extension, setup

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    # Before setuptools 70.1. Such a one can build in place; for a wheel pyproject.toml asks for
    # more.
    bdist_wheel = None

NATIVE = "desync/chunking/native"

# The stable ABI of Python 3.11, where it began to have buffers. Free-threaded Python has none yet.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")

EXTENSION = Extension(
    "desync.chunking._native",
    sources=sorted(glob(f"{NATIVE}/*.c")),
    depends=sorted(glob(f"{NATIVE}/*.h")),
    define_macros=[("Py_LIMITED_API", "0x030b0000")] if STABLE else [],
    py_limited_api=STABLE,
    # Without a compiler or headers the package installs all the same, and its portable code runs.
    optional=True,
    extra_compile_args=[] if os.name == "nt" else ["-std=c11", "-O3", "-fvisibility=hidden"],
)

commands = {}
if bdist_wheel is not None:

    class WheelOfWhatWasBuilt(bdist_wheel):
        """A wheel for this platform only if it holds the extension; otherwise one for any."""

        def run(self) -> None:
            self.run_command("build")
            build_ext = self.get_finalized_command("build_ext")
            if not os.path.exists(build_ext.get_ext_fullpath(EXTENSION.name)):
                self.root_is_pure = True
            elif STABLE:
                self.py_limited_api = "cp311"
            super().run()

    commands["bdist_wheel"] = WheelOfWhatWasBuilt

setup(ext_modules=[EXTENSION], cmdclass=commands)
