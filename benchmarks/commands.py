# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The programs that are compared, and how each is told to do the same thing.

Ours is what users run: the ``desync`` command that stands beside the Python that runs this, or
``python -m desync`` where the package isn't installed. ``casync`` is taken from the PATH, Go desync
from the environment variable GO_DESYNC.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

OURS = "ours"
GO = "Go"
CASYNC = "casync"

GO_VARIABLE = "GO_DESYNC"
REQUESTS = 10
"""What clients and servers are told with -n, where they speak HTTP."""
KERNELS_VARIABLE = "DESYNC_KERNELS"


#: What Go desync records of a tree, in casync's words.
_GO_FEATURES = (
    "32bit-uids",
    "nsec-time",
    "permissions",
    "symlinks",
    "device-nodes",
    "fifos",
    "sockets",
    "xattrs",
)


class Party:
    """
    A program that takes part. Each method gives a command line, or None for what it can't do.

    :param name: what the report calls it.
    :param program: how to start it.
    :param environ: the environment it runs in.
    """

    def __init__(self, name: str, program: list[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self.program = program
        self.environ = environ

    def help(self) -> list[str]:
        """Show the help."""
        return [*self.program, "--help"]

    def make(self, index: str, file: str, store: str | None) -> list[str] | None:
        """Cut a file, write its index, and put its chunks into a store, if there is one."""
        return None

    def extract(self, index: str, store: str, file: str) -> list[str] | None:
        """Rebuild a file."""
        return None

    def extract_from(self, index: str, store: str, seed: str, file: str) -> list[str] | None:
        """Rebuild a file with the help of another, whose index is beside it."""
        return None

    def extract_in_place(self, index: str, store: str, file: str) -> list[str] | None:
        """Make of a file the one that an index describes."""
        return None

    def verify(self, store: str) -> list[str] | None:
        """Check all chunks of a store."""
        return None

    def verify_index(self, index: str, file: str) -> list[str] | None:
        """Check that a file is what an index says."""
        return None

    def chop(self, index: str, file: str, store: str) -> list[str] | None:
        """Put a file's chunks into a store according to an index."""
        return None

    def cat(self, index: str, store: str) -> list[str] | None:
        """Write a file to stdout."""
        return None

    def list_chunks(self, index: str) -> list[str] | None:
        """Print the ids in an index."""
        return None

    def mount(self, index: str, store: str, folder: str) -> list[str] | None:
        """Mount a file, until a signal comes."""
        return None

    def serve(self, store: str, port: int) -> list[str] | None:
        """Serve a store over HTTP to this machine, until a signal comes."""
        return None

    def extract_over(
        self, index: str, url: str, file: str, config: str | None = None
    ) -> list[str] | None:
        """
        Rebuild a file from a server, with :data:`REQUESTS` requests at a time.

        :param config: a configuration file.
        """
        return None

    def tar(self, index: str, tree: str, store: str) -> list[str] | None:
        """Pack a directory into an index and a store."""
        return None

    def untar(self, index: str, store: str, tree: str) -> list[str] | None:
        """Unpack it."""
        return None

    def output(self, *args: str) -> str:
        """Run it, and give what it prints on stdout; empty if it fails."""
        done = subprocess.run(
            [*self.program, *args],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        return "" if done.returncode else done.stdout.decode("utf-8", "replace")


class Desync(Party):
    """
    A program with desync's command line: ours, or Go desync.

    :param workers: what ``-n`` says.
    """

    def __init__(
        self, name: str, program: list[str], environ: Mapping[str, str], workers: int
    ) -> None:
        super().__init__(name, program, environ)
        self._workers = workers
        self._syncs: dict[str, bool] = {}

    def _command(self, name: str, *args: str) -> list[str]:
        # Go desync doesn't sync at all, casync neither. Where ours does, it is told not to.
        if name not in self._syncs:
            self._syncs[name] = "--sync" in self.output(name, "--help").split()
        sync = ["--sync=none"] if self._syncs[name] else []
        return [*self.program, name, "-n", str(self._workers), *sync, *args]

    def make(self, index: str, file: str, store: str | None) -> list[str] | None:
        return self._command("make", *(["-s", store] if store else []), index, file)

    def extract(self, index: str, store: str, file: str) -> list[str] | None:
        return self._command("extract", "-s", store, index, file)

    def extract_from(self, index: str, store: str, seed: str, file: str) -> list[str] | None:
        return self._command("extract", "-s", store, "--seed", f"{seed}.caibx", index, file)

    def extract_in_place(self, index: str, store: str, file: str) -> list[str] | None:
        return self._command("extract", "-k", "-s", store, index, file)

    def verify(self, store: str) -> list[str] | None:
        return self._command("verify", "-s", store)

    def verify_index(self, index: str, file: str) -> list[str] | None:
        return self._command("verify-index", index, file)

    def chop(self, index: str, file: str, store: str) -> list[str] | None:
        return self._command("chop", "-s", store, index, file)

    def cat(self, index: str, store: str) -> list[str] | None:
        return self._command("cat", "-s", store, index)

    def tar(self, index: str, tree: str, store: str) -> list[str] | None:
        return self._command("tar", "-i", "-s", store, index, tree)

    def untar(self, index: str, store: str, tree: str) -> list[str] | None:
        return self._command("untar", "-i", "-s", store, index, tree)

    def mount(self, index: str, store: str, folder: str) -> list[str] | None:
        return self._command("mount-index", "-s", store, index, folder)

    def serve(self, store: str, port: int) -> list[str] | None:
        listen = f"127.0.0.1:{port}"
        return [*self.program, "chunk-server", "-n", str(REQUESTS), "-s", store, "-l", listen]

    def extract_over(
        self, index: str, url: str, file: str, config: str | None = None
    ) -> list[str] | None:
        more = ["--config", config] if config else []
        command = self._command("extract", "-n", str(REQUESTS), *more)
        return [*command, "-s", url, index, file]

    def list_chunks(self, index: str) -> list[str] | None:
        return [*self.program, "list-chunks", index]


class Casync(Party):
    """casync. It works in one thread, and makes no index without a store."""

    def make(self, index: str, file: str, store: str | None) -> list[str] | None:
        if store is None:
            return None
        return [*self.program, "make", f"--store={store}", index, file]

    def extract(self, index: str, store: str, file: str) -> list[str] | None:
        return [*self.program, "extract", f"--store={store}", index, file]

    def tar(self, index: str, tree: str, store: str) -> list[str] | None:
        features = [f"--with={name}" for name in _GO_FEATURES]
        return [*self.program, "make", f"--store={store}", *features, index, tree]

    def untar(self, index: str, store: str, tree: str) -> list[str] | None:
        return [*self.program, "extract", f"--store={store}", index, tree]


def nginx(folder: str, store: str, port: int) -> list[str] | None:
    """
    Write what nginx needs to serve a store, and give its command line.

    :param folder: for its files.
    :returns: None if it isn't installed.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return None
    user = "user root;" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    config = os.path.join(folder, "nginx.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error; {user}"
            "events { worker_connections 256; }"
            f"http {{ access_log off; {temporary} sendfile on; keepalive_requests 1000000;"
            f"server {{ listen 127.0.0.1:{port}; root {store}; }} }}"
        )
    return [program, "-c", config, "-p", folder, "-e", f"{folder}/error"]


def environment(home: str, **more: str) -> dict[str, str]:
    """
    Give the environment that all run in: this one's without configuration and progress bars.

    :param home: an empty folder.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DESYNC_", "PYTHON")) and name != GO_VARIABLE
    }
    return {**kept, "HOME": home, **more}


def others(home: str, workers: int) -> list[Party]:
    """
    List the programs to compare with that are there.

    :param home: an empty folder for their configuration.
    :param workers: how many things Go desync does at once.
    :raises FileNotFoundError: if GO_DESYNC names nothing that can be run.
    """
    found: list[Party] = []
    go = os.environ.get(GO_VARIABLE)
    if go:
        path = shutil.which(go)
        if path is None:
            raise FileNotFoundError(f"{GO_VARIABLE}={go}: no such program")
        found.append(Desync(GO, [os.path.abspath(path)], environment(home), workers))
    casync = shutil.which("casync")
    if casync is not None:
        found.append(Casync(CASYNC, [casync], environment(home)))
    return found


def ours(home: str, workers: int, kernels: str) -> Desync:
    """
    Find our own program.

    :param home: an empty folder for its configuration.
    :param workers: how many things it does at once.
    :param kernels: what DESYNC_KERNELS says to it.
    """
    settings = {KERNELS_VARIABLE: kernels}
    installed = Path(sys.executable).parent / "desync"
    program = [str(installed)]
    if not os.access(installed, os.X_OK):
        settings["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        program = [sys.executable, "-m", "desync"]
    return Desync(OURS, program, environment(home, **settings), workers)
