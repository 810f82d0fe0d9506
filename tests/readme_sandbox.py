# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Where the examples of the seed README run: a folder that stands for the file system and the hosts
that they name, what has to be there before, and what has to be there afterwards.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import zstandard

from desync.formats.index import Index
from tests.command_line import NO_HOME, ROOT, desync
from tests.loop_devices import loop_device
from tests.peers import peer
from tests.readme_hosts import DOWN, TRUSTED, web_address, web_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = re.compile(r"(?<![\w./:*-])/(?=(?:dev|local|mirror[12]|mnt|path|some|tmp)\b)")
"""Where an absolute path of an example begins; a path within a URL isn't one."""

HOSTS = {
    "http://127.0.0.1:8080/": "http",
    "http://192.168.1.1/": "http",
    "http://192.168.1.1:8080/": "index-server",
    "http://192.168.1.2/": "http",
    "http://192.168.1.101/": "http",
    "http://192.168.1.102/": "http",
    "http://chunk.store/": "http",
    "http://index.store/": "http",
    "http://server1/": "http",
    "http://server2/": "http",
    "http://store.host:8080/": "http",
    "https://192.168.1.3/": "https",
    "https://hostname:8443/": "https",
    "s3+http://127.0.0.1:9000/": "s3",
    "s3+https://example.com/": "s3",
    "s3+https://s3-eu-west-3.amazonaws.com/": "s3",
    "s3+https://s3.internal.company/": "s3",
    "sftp://192.168.1.1/": "sftp",
    "sftp://192.168.1.3/": "sftp",
    "sftp://remote.host/": "sftp",
    "ssh://192.168.1.1/": "ssh",
    "ssh://192.168.1.2/": "ssh",
}
"""The hosts of the examples, as their URLs begin, and the feature that brings something there."""

URL = re.compile(r"(?:[a-z0-9]+\+)?[a-z0-9]+://[^/\s\"'|]+/")


class Provider(NamedTuple):
    """
    What stands in for the hosts of a feature.

    :ivar address: starts it, if that hasn't been done, and gives what a host's URL becomes.
    :ivar folder: gives the folder where what the host serves under that URL is.
    """

    address: Callable[[Sandbox, str], str]
    folder: Callable[[Sandbox, str], Path]


_WEB = Provider(web_address, web_folder)
PROVIDERS: dict[str, Provider] = {"http": _WEB, "https": _WEB, "index-server": _WEB}
"""By feature. Whoever switches on a feature with hosts adds it here."""


_SSH = """\
#!/bin/sh
while [ "$1" != -- ]; do
    if [ "$1" = -s ]; then subsystem=1; fi
    shift
done
shift 2
if [ -n "$subsystem" ]; then
    for place in /usr/lib/openssh /usr/lib/ssh /usr/libexec/openssh /usr/libexec; do
        if [ -x $place/sftp-server ]; then exec $place/sftp-server; fi
    done
    exit 1
fi
exec sh -c "$*"
"""


def _ssh_address(sandbox: Sandbox, url: str) -> str:
    """Have an ssh that runs here what it is to run there, where casync is our command."""
    for name, text in (("ssh", _SSH), ("casync", '#!/bin/sh\nexec desync "$@"\n')):
        program = sandbox.root / "bin" / name
        program.write_text(text)
        program.chmod(0o755)
    return f"{url.rstrip('/')}{_ssh_folder(sandbox, url)}/"


def _ssh_folder(sandbox: Sandbox, url: str) -> Path:
    return sandbox.root / "far" / url.split("/")[2]


def _sftp_address(sandbox: Sandbox, url: str) -> str:
    peer("sshd")  # whose sftp-server it is
    return _ssh_address(sandbox, url)


PROVIDERS["ssh"] = Provider(_ssh_address, _ssh_folder)
PROVIDERS["sftp"] = Provider(_sftp_address, _ssh_folder)


class Result(NamedTuple):
    """What an example came to: exit code, and what it wrote."""

    code: int
    out: str
    err: str


class WrongOutcome(AssertionError):
    """An example hasn't done what it should."""


class Running:
    """
    An example that runs until it is ended.

    :ivar process: its shell, or what that has become.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to become true while it runs."""
        until = time.monotonic() + 60
        while not condition():
            if self.process.poll() is not None:
                raise WrongOutcome(f"it has ended: {self.end()}")
            if time.monotonic() > until:
                raise WrongOutcome(f"waited in vain: {self.end()}")
            time.sleep(0.02)

    def end(self) -> Result:
        """End it, and what it has started, as a service manager does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            out, err = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            out, err = self.process.communicate()
        return Result(self.process.returncode, out.decode(), err.decode())


class Sandbox:
    """
    The folder that one example runs in.

    :param folder: an empty one.
    """

    def __init__(self, folder: str) -> None:
        self.root = Path(folder).absolute()
        self.cleanup = ExitStack()
        self.work = self.root / "work"
        self._originals = self.root / "originals"
        for path in (self.work, self._originals, self.root / "home", self.root / "bin"):
            path.mkdir(parents=True)
        program = self.root / "bin" / "desync"
        program.write_text('#!/bin/sh\nexec "$DESYNC_PYTHON" -m desync "$@"\n')
        program.chmod(0o755)

    def localize(self, text: str) -> str:
        """
        Replace the places and the hosts of an example by those that stand for them.

        :raises KeyError: if nothing stands for a host.
        """
        text = PLACES.sub(f"{self.root}/", text)
        for host in sorted(HOSTS, key=len, reverse=True):
            if host in text:
                text = text.replace(host, PROVIDERS[HOSTS[host]].address(self, host))
        return text

    def path(self, name: str) -> Path:
        """Give the path of a file or a folder that an example names, its parent made."""
        url = URL.match(name)
        if url is not None:
            path = PROVIDERS[HOSTS[url[0]]].folder(self, url[0]) / name[url.end() :]
        else:
            path = self.work / self.localize(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _environ(self) -> dict[str, str]:
        trusted = self.root / TRUSTED
        return {
            **os.environ,
            **NO_HOME,
            "HOME": str(self.root / "home"),
            "PATH": f"{self.root / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT),
            "DESYNC_PYTHON": sys.executable,
            **({"SSL_CERT_FILE": str(trusted)} if trusted.exists() else {}),
        }

    def start(self, commands: str) -> Running:
        """
        Start an example that runs until it is ended: what its shell becomes, or waits for.

        :param commands: one command, or lines of which the last begins with ``exec``.
        """
        if "\n" not in commands.strip() and "|" not in commands:
            commands = f"exec {commands}"
        return Running(
            subprocess.Popen(
                ["/bin/sh", "-e", "-c", self.localize(commands)],
                cwd=self.work,
                env=self._environ(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        )

    def run(self, commands: str, stdin: str = "") -> Result:
        """Run the lines of an example in a shell that stops at the first that fails."""
        done = subprocess.run(
            ["/bin/sh", "-e", "-c", self.localize(commands)],
            cwd=self.work,
            env=self._environ(),
            input=stdin.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def original(self, name: str) -> bytes:
        """Give the content that a file of an example has: the same for the same name."""
        name = os.path.basename(name)
        family = random.Random(re.sub(r"-?v?\d", "", name))
        common = [family.randbytes(150_000) for _ in range(2)]
        own = random.Random(name).randbytes(150_000)
        return common[0] + own + bytes(600_000) + common[1]

    def index_of(self, name: str) -> Index:
        """Give the index of the content of a file, made by the command."""
        file, made = (self._originals / f"{os.path.basename(name)}{end}" for end in ("", ".index"))
        if not made.exists():
            file.write_bytes(self.original(name))
            _succeed("make", str(made), str(file))
        return Index.parse(made.read_bytes(), str(made))

    def fill_store(self, store: str, name: str) -> None:
        """Put the chunks of a file's content into a store."""
        self.index_of(name)
        file = self._originals / os.path.basename(name)
        _succeed("chop", "-s", str(self.path(store)), f"{file}.index", str(file))


def _succeed(*args: str) -> None:
    outcome = desync(*args)
    if outcome.code:
        raise WrongOutcome(f"desync {' '.join(args)}: {outcome.err}")


Given = Callable[[Sandbox], None]
"""Makes something that has to be there before an example runs."""

Then = Callable[[Sandbox, Result], None]
"""
Checks something that has to be so after it has run.

It raises :class:`WrongOutcome` if that isn't so.
"""


While = Callable[[Sandbox, Running], None]
"""Waits for something that has to be so while it runs, and checks it."""


def has_file(name: str) -> Given:
    """There is a file."""
    return lambda sandbox: _write(sandbox.path(name), sandbox.original(name))


def has_text(name: str, text: str) -> Given:
    """There is a file with this text, in which the places and hosts are those of the sandbox."""
    return lambda sandbox: _write(sandbox.path(name), sandbox.localize(text).encode())


def has_index(name: str, of: str) -> Given:
    """There is an index of a file, which itself needn't be there."""
    return lambda sandbox: _write(
        sandbox.path(name), b"".join(bytes(piece) for piece in sandbox.index_of(of).pieces())
    )


def has_index_of_index(name: str, store: str, of: str) -> Given:
    """There is an index of the index of a file, whose chunks are in a store."""

    def make(sandbox: Sandbox) -> None:
        sandbox.index_of(of)
        index = f"{sandbox._originals / os.path.basename(of)}.index"
        _succeed("make", "-s", str(sandbox.path(store)), str(sandbox.path(name)), index)

    return make


def has_store(store: str, *of: str) -> Given:
    """There is a store with the chunks of some files."""

    def make(sandbox: Sandbox) -> None:
        sandbox.path(store).mkdir(exist_ok=True)
        for name in of:
            sandbox.fill_store(store, name)

    return make


def all_is_old(store: str) -> Given:
    """The chunks of a store were written so long ago that prune doesn't spare them."""

    def make(sandbox: Sandbox) -> None:
        for path in _chunk_files(sandbox.path(store)):
            os.utime(path, (1_000_000_000, 1_000_000_000))

    return make


def has_bad_chunk(store: str, of: str) -> Given:
    """A chunk in a store isn't what its name says: the first one of a file."""
    return lambda sandbox: _write(_first_chunk(sandbox, store, of), b"spoiled")


def has_block_device(name: str, size: int) -> Given:
    """There is a block device of so many bytes."""

    def make(sandbox: Sandbox) -> None:
        device = sandbox.cleanup.enter_context(loop_device(size))
        sandbox.path(name).symlink_to(device)

    return make


def begins_with(name: str, of: str) -> Then:
    """A device begins with the content of a file."""

    def check(sandbox: Sandbox, result: Result) -> None:
        wanted = sandbox.original(of)
        with open(sandbox.path(name), "rb") as file:
            if file.read(len(wanted)) != wanted:
                raise WrongOutcome(f"{name} doesn't begin with {of}")

    return check


def is_down(host: str) -> Given:
    """A host's server fails, whatever it is asked for."""

    def make(sandbox: Sandbox) -> None:
        (sandbox.path(host) / DOWN).touch()

    return make


def is_rebuilt(name: str, of: str | None = None) -> Then:
    """There is a file with the content that it should have, its own or another's."""

    def check(sandbox: Sandbox, result: Result) -> None:
        path = sandbox.path(name)
        if not path.exists() or path.read_bytes() != sandbox.original(of or name):
            raise WrongOutcome(f"{name} isn't what it was made of")

    return check


def mounts(place: str, of: str, name: str | None = None) -> While:
    """
    A file appears where something is mounted, with the content that it should have.

    :param name: the file's, if it isn't that of what it has the content of.
    """

    def check(sandbox: Sandbox, running: Running) -> None:
        path = sandbox.path(place) / (name or of)
        running.wait_until(path.exists)
        if path.read_bytes() != sandbox.original(of):
            raise WrongOutcome(f"{path} isn't what it was made of")

    return check


def cannot_be_read(place: str, name: str) -> While:
    """A file appears where something is mounted, and reading it fails."""

    def check(sandbox: Sandbox, running: Running) -> None:
        path = sandbox.path(place) / name
        running.wait_until(path.exists)
        try:
            path.read_bytes()
        except OSError:
            return
        raise WrongOutcome(f"{path} can be read")

    return check


def has_changed(name: str, text: str) -> While:
    """A file is changed, and the program told so with SIGHUP, which it says something about."""

    def change(sandbox: Sandbox, running: Running) -> None:
        has_text(name, text)(sandbox)
        # Not with killall, which would tell all programs of that name on this machine.
        running.process.send_signal(signal.SIGHUP)
        assert running.process.stderr is not None
        for line in running.process.stderr:
            if line.startswith(b"reloaded"):
                return
        raise WrongOutcome(f"it has ended: {running.end()}")

    return change


def is_unmounted(place: str) -> Then:
    """Nothing is mounted any more."""

    def check(sandbox: Sandbox, result: Result) -> None:
        if os.path.ismount(sandbox.path(place)):
            raise WrongOutcome(f"{place} is still mounted")

    return check


def describes(index: str, file: str) -> Then:
    """An index is one of a file's content."""

    def check(sandbox: Sandbox, result: Result) -> None:
        made = Index.parse(sandbox.path(index).read_bytes(), index)
        if list(made) != list(sandbox.index_of(file)):
            raise WrongOutcome(f"{index} isn't the index of {file}")

    return check


def holds(store: str, *of: str, extension: str = ".cacnk", fetched: bool = False) -> Then:
    """
    A store holds the chunks of some files, and each is what it should be.

    :param fetched: only those that an extract fetches, which the null chunk isn't.
    """

    def check(sandbox: Sandbox, result: Result) -> None:
        for name in of:
            content = sandbox.original(name)
            for start, size, chunk_id in sandbox.index_of(name):
                if fetched and not any(content[start : start + size]):
                    continue
                path = _chunk_path(sandbox.path(store), chunk_id, extension)
                if not path.exists():
                    raise WrongOutcome(f"{store} lacks {chunk_id.hex()} of {name}")
                stored = path.read_bytes()
                plain = _decompress(stored, size) if extension else stored
                if plain != content[start : start + size]:
                    raise WrongOutcome(f"{store}: {chunk_id.hex()} isn't what it should be")

    return check


def holds_nothing_but(
    store: str, *of: str, without: str | None = None, fetched: bool = False
) -> Then:
    """
    A store holds the chunks of some files, without those of another, and no other chunk.

    :param fetched: only those that an extract fetches, which the null chunk isn't.
    """

    def check(sandbox: Sandbox, result: Result) -> None:
        wanted = {
            chunk_id
            for name in of
            for start, size, chunk_id in sandbox.index_of(name)
            if not fetched or any(sandbox.original(name)[start : start + size])
        }
        if without is not None:
            wanted -= {chunk_id for _, _, chunk_id in sandbox.index_of(without)}
        found = {path.name.partition(".")[0] for path in _chunk_files(sandbox.path(store))}
        if not wanted or found != {chunk_id.hex() for chunk_id in wanted}:
            raise WrongOutcome(f"{store} holds {len(found)} chunks, not the {len(wanted)} wanted")

    return check


def prints_ids(of: str) -> Then:
    """The ids of a file's chunks are printed, in order."""

    def check(sandbox: Sandbox, result: Result) -> None:
        ids = [chunk_id.hex() for _, _, chunk_id in sandbox.index_of(of)]
        if result.out != "".join(f"{each}\n" for each in ids):
            raise WrongOutcome(f"printed: {result.out}")

    return check


def prints_nothing(sandbox: Sandbox, result: Result) -> None:
    """Nothing is printed on stdout."""
    if result.out:
        raise WrongOutcome(f"printed: {result.out}")


def prints(*texts: str) -> Then:
    """These texts are printed on stdout."""

    def check(sandbox: Sandbox, result: Result) -> None:
        for text in texts:
            if text not in result.out:
                raise WrongOutcome(f"{text!r} isn't in: {result.out}")

    return check


def names_bad_chunk(store: str, of: str, stays: bool) -> Then:
    """The bad chunk of :func:`has_bad_chunk` is named on stdout; it stays in the store, or not."""

    def check(sandbox: Sandbox, result: Result) -> None:
        path = _first_chunk(sandbox, store, of)
        lines = result.out.splitlines()
        if len(lines) != 1 or path.name.partition(".")[0] not in lines[0]:
            raise WrongOutcome(f"printed: {result.out}")
        if path.exists() != stays:
            raise WrongOutcome(f"{path} {'is gone' if stays else 'is still there'}")

    return check


def prints_figures(of: str, in_store: bool) -> Then:
    """The figures about the index of a file are printed as JSON."""

    def check(sandbox: Sandbox, result: Result) -> None:
        figures, index = json.loads(result.out), sandbox.index_of(of)
        unique = len({chunk_id for _, _, chunk_id in index})
        expected = {"total": len(index), "unique": unique, "size": index.size}
        expected["in-store"] = unique if in_store else 0
        if {name: figures.get(name) for name in expected} != expected:
            raise WrongOutcome(f"printed: {result.out}")

    return check


def writes_json(name: str, content: object) -> Then:
    """There is a JSON file with this content."""

    def check(sandbox: Sandbox, result: Result) -> None:
        text = sandbox.path(name).read_text()
        if json.loads(text) != content:
            raise WrongOutcome(f"{name}: {text}")

    return check


def prints_json(content: object) -> Then:
    """JSON is printed that has this in it, with the places of the sandbox; it may have more."""

    def check(sandbox: Sandbox, result: Result) -> None:
        if not _includes(json.loads(result.out), json.loads(sandbox.localize(json.dumps(content)))):
            raise WrongOutcome(f"printed: {result.out}")

    return check


def has_tree(name: str, hard_links: bool = False) -> Given:
    """There is a directory tree, with a file of two names if that is asked for."""

    def make(sandbox: Sandbox) -> None:
        root = sandbox.path(name)
        (root / "sub").mkdir(parents=True)
        for path in ("big", "sub/small"):
            _write(root / path, sandbox.original(f"{name}/{path}"))
        (root / "sub/small").chmod(0o640)
        (root / "sub/link").symlink_to("small")
        if hard_links:
            os.link(root / "big", root / "sub/again")
        for node in (root / "big", root / "sub/small", root / "sub", root):
            os.utime(node, (1_000_000_000, 1_000_000_000))

    return make


def has_archive(name: str, tree: str, store: str | None = None) -> Given:
    """There is an archive of a tree, in chunks if a store is named; the tree is there too."""

    def make(sandbox: Sandbox) -> None:
        has_tree(tree)(sandbox)
        stored = [] if store is None else ["-i", "-s", str(sandbox.path(store))]
        _succeed("tar", *stored, str(sandbox.path(name)), str(sandbox.path(tree)))

    return make


def has_folder_for(name: str) -> Given:
    """There is the folder that a file is to be in."""
    return lambda sandbox: sandbox.path(name).parent.mkdir(parents=True, exist_ok=True)


def has_tar(name: str, tree: str) -> Given:
    """There is a tar file of a tree that is there."""

    def make(sandbox: Sandbox) -> None:
        with tarfile.open(sandbox.path(name), "w") as made:
            made.add(sandbox.path(tree), ".")

    return make


def packs(archive: str, tree: str, store: str | None = None) -> Then:
    """There is an archive of a tree: unpacked, it gives the same."""

    def check(sandbox: Sandbox, result: Result) -> None:
        stored = [] if store is None else ["-i", "-s", str(sandbox.path(store))]
        _succeed("untar", *stored, str(sandbox.path(archive)), str(sandbox.path("unpacked")))
        unpacks("unpacked", tree)(sandbox, result)

    return check


def unpacks(target: str, tree: str) -> Then:
    """A folder has what a tree has: names, types, modes, times and contents."""

    def check(sandbox: Sandbox, result: Result) -> None:
        expected, found = (_nodes(sandbox.path(name)) for name in (tree, target))
        if expected != found:
            raise WrongOutcome(f"{target} has {found}, and {tree} {expected}")

    return check


def becomes_tar(name: str, tree: str) -> Then:
    """There is a tar file of a tree."""

    def check(sandbox: Sandbox, result: Result) -> None:
        unpacked = sandbox.path("unpacked")
        with tarfile.open(sandbox.path(name)) as made:
            # Older versions have no such argument, newer ones ask for it.
            made.extraction_filter = lambda member, path: member
            made.extractall(unpacked)
        unpacks("unpacked", tree)(sandbox, result)

    return check


def _nodes(root: Path) -> dict[str, tuple[int, int, bytes]]:
    nodes = {}
    for path in [root, *root.rglob("*")]:
        found = path.lstat()
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        else:
            content = path.read_bytes() if path.is_file() else b""
        time = 0 if path.is_symlink() else int(found.st_mtime)
        nodes[str(path.relative_to(root))] = found.st_mode, time, content
    return nodes


def _includes(whole: object, part: object) -> bool:
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(name in whole and _includes(whole[name], part[name]) for name in part)
    return whole == part


def _decompress(stored: bytes, size: int) -> bytes | None:
    try:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError:
        return None


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _chunk_path(store: Path, chunk_id: bytes, extension: str = ".cacnk") -> Path:
    name = chunk_id.hex()
    return store / name[:4] / f"{name}{extension}"


def _first_chunk(sandbox: Sandbox, store: str, of: str) -> Path:
    _, _, chunk_id = next(iter(sandbox.index_of(of)))
    return _chunk_path(sandbox.path(store), chunk_id)


def _chunk_files(store: Path) -> Iterator[Path]:
    return (path for path in store.rglob("*") if path.is_file())
