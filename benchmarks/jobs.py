# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The jobs: what each program is told to do with which data, and what ours has to reach."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from desync.chunking.digests import SHA512_256
from desync.errors import DesyncError
from desync.formats.index import Index
from desync.stores.index_files import read_index

from .commands import OURS, Party, nginx
from .place import Place


class WrongResult(Exception):
    """A program said that it had done the job, and hadn't."""


class Task(NamedTuple):
    """
    One run, ready to start.

    :ivar argv: the command line.
    :ivar folder: the run's own folder; what is in it is no longer needed after the check.
    :ivar check: raises :class:`WrongResult` unless the job is done.
    :ivar wall: gives the seconds that count, where they aren't those of the whole command.
    """

    argv: list[str]
    folder: str
    check: Callable[[], None]
    wall: Callable[[], float] | None = None


class Job(NamedTuple):
    """
    Something that programs are measured at.

    :ivar prepare: makes one run ready; None if the program can't do the job.
    :ivar times_at_least: how many times as fast as Go desync ours has to be.
    :ivar seconds_at_most: how long ours may take.
    :ivar without_avx512: ``times_at_least`` where our kernels don't use AVX-512, if it differs.
    :ivar repeated: it is so short that each run is this many runs.
    :ivar optional: only done when it is asked for.
    :ivar sampled: whether its memory is worth looking at.
    :ivar room: disk space that it needs, as a multiple of the image: the data, once, ...
    :ivar room_left: ... and what stays of each run, where that can't be deleted at once.
    """

    name: str
    about: str
    prepare: Callable[[Place, Party], Task | None]
    times_at_least: float | None = None
    seconds_at_most: float | None = None
    without_avx512: float | None = None
    repeated: int = 1
    optional: bool = False
    sampled: bool = True
    room: float = 1.0
    room_left: float = 0.0


def _nothing_to_check() -> None:
    pass


def _index(path: str, file: str) -> Index:
    """Read an index that a program made, and check that it is about a file of this size."""
    try:
        index = read_index(path, SHA512_256)
    except DesyncError as error:
        raise WrongResult(str(error)) from error
    if index.size != os.path.getsize(file):
        raise WrongResult(f"the index is about {index.size} bytes")
    return index


def _task(argv: list[str] | None, folder: str, check: Callable[[], None]) -> Task | None:
    return None if argv is None else Task(argv, folder, check)


def _make(file: str, store: str | None, folder: str, party: Party) -> Task | None:
    index = os.path.join(folder, "made.caibx")

    def check() -> None:
        made = _index(index, file)
        if store is None:
            return
        stored = sum(len(names) for _, _, names in os.walk(store))
        needed = len(made.ids.sorted_unique())
        if stored < needed:
            raise WrongResult(f"the store holds {stored} chunks of {needed}")

    return _task(party.make(index, file, store), folder, check)


def _make_index(file: str, place: Place, party: Party) -> Task | None:
    return _make(file, None, place.fresh(), party)


def _make_new(file: str, place: Place, party: Party) -> Task | None:
    store = place.fresh_store()
    return _make(file, store, os.path.dirname(store), party)


def _make_present(place: Place, party: Party) -> Task | None:
    store, _ = place.store(place.image())
    return _make(place.image(), store, place.fresh(), party)


def _make_next(place: Place, party: Party) -> Task | None:
    content, _ = place.store(place.image())
    file = place.next_version()
    store = place.fresh_store(content)
    return _make(file, store, os.path.dirname(store), party)


def _extract(file: str, place: Place, party: Party) -> Task | None:
    store, index = place.store(file)
    folder = place.fresh()
    output = os.path.join(folder, "extracted")

    return _task(party.extract(index, store, output), folder, lambda: _compare(file, output))


def _extract_seed(place: Place, party: Party) -> Task | None:
    place.store(place.image())
    file = place.next_version()
    store, index = place.store(file)
    folder = place.fresh()
    output = os.path.join(folder, "extracted")
    argv = party.extract_from(index, store, place.image(), output)
    return _task(argv, folder, lambda: _compare(file, output))


def _extract_in_place(changed: Callable[[Place], str], place: Place, party: Party) -> Task | None:
    file = changed(place)
    store, index = place.store(file)
    folder = place.fresh()
    output = os.path.join(folder, "extracted")
    argv = party.extract_in_place(index, store, output)
    if argv is not None:
        shutil.copyfile(place.image(), output)
    return _task(argv, folder, lambda: _compare(file, output))


def _compare(file: str, output: str) -> None:
    if not filecmp.cmp(file, output, shallow=False):
        raise WrongResult("the file isn't what it was made of")


def _verify(place: Place, party: Party) -> Task | None:
    store, _ = place.store(place.image())
    return _task(party.verify(store), place.fresh(), _nothing_to_check)


def _verify_index(place: Place, party: Party) -> Task | None:
    _, index = place.store(place.image())
    return _task(party.verify_index(index, place.image()), place.fresh(), _nothing_to_check)


def _chop(place: Place, party: Party) -> Task | None:
    store, index = place.store(place.image())
    return _task(party.chop(index, place.image(), store), place.fresh(), _nothing_to_check)


def _cat(place: Place, party: Party) -> Task | None:
    store, index = place.store(place.image())
    return _task(party.cat(index, store), place.fresh(), _nothing_to_check)


def _tar(store: str, folder: str, place: Place, party: Party) -> Task | None:
    index = os.path.join(folder, "made.caidx")

    def check() -> None:
        try:
            made = read_index(index, SHA512_256)
        except DesyncError as error:
            raise WrongResult(str(error)) from error
        count, size = _contents(place.tree())
        # Each file has records of more than 120 bytes.
        if made.size < size + 120 * count:
            raise WrongResult(f"the index is about {made.size} bytes")

    return _task(party.tar(index, place.tree(), store), folder, check)


def _contents(tree: str) -> tuple[int, int]:
    """Say how many files a tree has, and how many bytes."""
    count = size = 0
    for where, _, names in os.walk(tree):
        count += len(names)
        size += sum(os.path.getsize(os.path.join(where, name)) for name in names)
    return count, size


def _tar_new(place: Place, party: Party) -> Task | None:
    store = place.fresh_store()
    return _tar(store, os.path.dirname(store), place, party)


def _tar_present(place: Place, party: Party) -> Task | None:
    store, _ = place.archive()
    return _tar(store, place.fresh(), place, party)


def _untar(place: Place, party: Party) -> Task | None:
    store, index = place.archive()
    folder = place.fresh()
    output = os.path.join(folder, "tree")

    def check() -> None:
        if _contents(output) != _contents(place.tree()):
            raise WrongResult("the tree isn't what was packed")

    return _task(party.untar(index, store, output), folder, check)


def _mount(how: str, place: Place, party: Party) -> Task | None:
    if not os.path.exists("/dev/fuse"):
        return None
    store, index = place.store(place.image())
    folder = place.fresh()
    mountpoint = os.path.join(folder, "mnt")
    os.mkdir(mountpoint)
    argv = party.mount(index, store, mountpoint)
    if argv is None:
        return None
    name = os.path.basename(index).removesuffix(".caibx")
    program = str(Path(__file__).with_name("mounted.py"))
    took = os.path.join(folder, "took")
    whole = [sys.executable, program, how, took, os.path.join(mountpoint, name), *argv]

    def wall() -> float:
        with open(took, encoding="ascii") as file:
            return float(file.read())

    return Task(whole, folder, _nothing_to_check, wall)


def _over_http(how: str, place: Place, party: Party) -> Task | None:
    store, index = place.store(place.image())
    folder = place.fresh()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = nginx(folder, store, port) if how == "nginx" else party.serve(store, port)
    config = None
    if how == "single" and party.name == OURS:
        config = os.path.join(folder, "config.json")
        with open(config, "w", encoding="ascii") as file:
            options = {f"http://127.0.0.1:{port}/": {"single-requests": True}}
            json.dump({"store-options": options}, file)
    output = os.path.join(folder, "extracted")
    client = party.extract_over(index, f"http://127.0.0.1:{port}/", output, config)
    if server is None or client is None:
        return None
    program = str(Path(__file__).with_name("served.py"))
    took = os.path.join(folder, "took")

    def wall() -> float:
        with open(took, encoding="ascii") as file:
            return float(file.read())

    argv = [sys.executable, program, took, str(port), *server, "--", *client]
    return Task(argv, folder, lambda: _compare(place.image(), output), wall)


def _help(place: Place, party: Party) -> Task | None:
    return _task(party.help(), place.fresh(), _nothing_to_check)


def _list_chunks(place: Place, party: Party) -> Task | None:
    # An index of some 50 chunks.
    small = os.path.join(place.root, "small")
    if not os.path.exists(small):
        with open(place.image(), "rb") as image, open(small, "wb") as output:
            output.write(image.read(4 << 20))
    _, index = place.store(small)
    return _task(party.list_chunks(index), place.fresh(), _nothing_to_check)


_ALL = (
    Job(
        "index",
        "make without a store",
        lambda place, party: _make_index(place.image(), place, party),
        times_at_least=1.8,
        without_avx512=1.0,
    ),
    Job(
        "index-4x",
        "make without a store, of an image four times as large",
        lambda place, party: _make_index(place.image(4), place, party),
        times_at_least=2.5,
        without_avx512=1.0,
        optional=True,
        room=5,
    ),
    Job(
        "make",
        "make into a new store",
        lambda place, party: _make_new(place.image(), place, party),
        times_at_least=2.3,
        room=2,
        room_left=0.6,
    ),
    Job(
        "make-present",
        "make into a store that has all chunks",
        _make_present,
        times_at_least=2.5,
        room=2,
    ),
    Job(
        "make-next",
        "make of the next version, 5 % of it changed, into the store of the first one",
        _make_next,
        room=3,
        room_left=0.1,
    ),
    Job(
        "extract",
        "extract from a local store",
        lambda place, party: _extract(place.image(), place, party),
        times_at_least=2.2,
        room=3,
    ),
    Job(
        "extract-seed",
        "extract of the next version, 5 % of it changed, with the first one as a seed",
        _extract_seed,
        times_at_least=2.5,
        room=4,
    ),
    Job(
        "in-place",
        "extract in place, of the next version, over the first one",
        lambda place, party: _extract_in_place(Place.next_version, place, party),
        times_at_least=2.5,
        room=4,
    ),
    Job(
        "in-place-same",
        "the same, of a version in which nothing has moved",
        lambda place, party: _extract_in_place(Place.patched, place, party),
        times_at_least=2.5,
        room=4,
    ),
    Job(
        "extract-zeros",
        "extract of a file of zeros as large as the image",
        lambda place, party: _extract(place.zeros(), place, party),
        times_at_least=1.0,
        room=3,
    ),
    Job("verify", "verify of a store", _verify, times_at_least=3, room=2),
    Job("verify-index", "verify-index of the image", _verify_index, times_at_least=1.5, room=2),
    Job(
        "chop",
        "chop into a store that has all chunks",
        _chop,
        times_at_least=1.5,
        room=2,
    ),
    Job("cat", "cat to /dev/null", _cat, times_at_least=1.5, room=2),
    Job(
        "mount",
        "dd of the whole file from a mount; the time is dd's",
        lambda place, party: _mount("whole", place, party),
        times_at_least=3,
        room=2,
    ),
    Job(
        "mount-random",
        "5,000 reads of 4 KiB at random from a mount; the time is theirs",
        lambda place, party: _mount("random", place, party),
        room=2,
    ),
    Job(
        "extract-http",
        "extract from a chunk server of the same program on this machine",
        lambda place, party: _over_http("own", place, party),
        times_at_least=2.0,
        without_avx512=1.5,
        room=3,
    ),
    Job(
        "http-single",
        "the same, where ours asks for each chunk alone",
        lambda place, party: _over_http("single", place, party),
        times_at_least=1.0,
        room=3,
    ),
    Job(
        "extract-nginx",
        "extract from nginx on this machine",
        lambda place, party: _over_http("nginx", place, party),
        times_at_least=1.0,
        room=3,
    ),
    Job(
        "zeros",
        "make without a store, of a file of zeros as large as the image",
        lambda place, party: _make_index(place.zeros(), place, party),
        times_at_least=2.5,
        room=2,
    ),
    Job(
        "tar",
        "tar -i of a tree of small files, 50,000 for an image of 1 GiB, into a new store",
        _tar_new,
        times_at_least=1.3,
        room=2,
        room_left=0.4,
    ),
    Job(
        "tar-present",
        "tar -i of the tree into a store that has all chunks",
        _tar_present,
        times_at_least=1.3,
        room=2,
    ),
    Job(
        "untar",
        "untar -i of the tree",
        _untar,
        times_at_least=1.0,
        room=2,
        room_left=0.5,
    ),
    Job(
        "help",
        "desync --help (start-up)",
        _help,
        seconds_at_most=0.2,
        repeated=7,
        sampled=False,
        room=0,
    ),
    Job(
        "list-chunks",
        "list-chunks of an index of some 50 chunks (start-up)",
        _list_chunks,
        seconds_at_most=0.2,
        repeated=7,
        sampled=False,
    ),
    Job(
        "make-16x",
        "make into a new store, of a file 16 times as large, most of it holes (memory)",
        lambda place, party: _make_new(place.sparse(16), place, party),
        optional=True,
        room=2,
        room_left=0.6,
    ),
    Job(
        "extract-16x",
        "extract of a file 16 times as large, most of it holes (memory)",
        lambda place, party: _extract(place.sparse(16), place, party),
        optional=True,
        room=3,
    ),
)

JOBS = {job.name: job for job in _ALL}
"""All jobs by name, in the order in which they are done."""
