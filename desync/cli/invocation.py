# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the function of a command is given: configuration, global flags, and ways to speak."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO

from desync.config import Config, StoreFlags, StoreOptions
from desync.masking import mask_location, mask_secrets
from desync.progress import Progress

from .streams import Streams, printable

if TYPE_CHECKING:
    from desync.chunking.digests import Digest


class Session:
    """
    What one run of the program has, whichever command it turns out to be.

    :param streams: what it reads and writes.
    :param environ: its environment.
    :ivar verbose: whether ``--verbose`` was given.
    :ivar show_secrets: whether ``--show-secrets`` was given.
    :ivar config: the configuration, once loaded; its secrets are masked in messages.
    """

    def __init__(self, streams: Streams, environ: Mapping[str, str]) -> None:
        self.streams = streams
        self.environ = environ
        self.verbose = False
        self.show_secrets = False
        self.config: Config | None = None

    def shown(self, text: str) -> str:
        """Make a line fit to be shown: secrets masked, control characters escaped."""
        if not self.show_secrets:
            text = mask_secrets(text, () if self.config is None else self.config.secrets())
        return printable(text)

    def say(self, text: str) -> None:
        """Write a line to stderr, made fit to be shown."""
        self.say_as_is(self.shown(text))

    def say_as_is(self, text: str) -> None:
        """Write text to stderr that is fit to be shown already; it may have several lines."""
        try:
            self.streams.stderr.write(text + "\n")
            self.streams.stderr.flush()
        except (OSError, ValueError):
            # Nobody listens; the exit code says whether the command worked.
            pass


class Invocation:
    """
    One run of one command.

    :ivar name: the command's name.
    :ivar config: the configuration.
    :ivar digest_name: name of the digest algorithm, ``sha512-256`` or ``sha256``.
    :ivar progress: where an operation shows how far it has got.
    :ivar verbose: whether the user wants to know more.
    :ivar quiet: whether the user wants to know nothing but results and errors.
    :ivar show_secrets: whether secrets are to be shown.
    :ivar store_flags: what the command line says about all stores.
    :ivar environ: the environment.
    :ivar stdin: binary.
    :ivar out: stdout, for results: binary and buffered; it's flushed when the command is done.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        config: Config,
        *,
        digest_name: str = "sha512-256",
        progress: Progress | None = None,
        quiet: bool = False,
        store_flags: StoreFlags | None = None,
    ) -> None:
        self.name = name
        self.session = session
        self.config = config
        self.digest_name = digest_name
        self.progress = Progress() if progress is None else progress
        self.quiet = quiet
        self.store_flags = StoreFlags() if store_flags is None else store_flags
        self.verbose = session.verbose
        self.show_secrets = session.show_secrets
        self.environ = session.environ
        self.stdin: BinaryIO = session.streams.stdin
        self.out: BinaryIO = session.streams.stdout

    @property
    def digest(self) -> Digest:
        """The digest algorithm of chunk ids."""
        from desync.chunking.digests import Digest

        return Digest.named(self.digest_name)

    @property
    def concurrency(self) -> int:
        """What ``-n`` says."""
        return self.store_flags.concurrency

    def store_options(self, location: str) -> StoreOptions:
        """
        Say how to use a chunk store: the configuration, and the flags that were given on top.

        :param location: one store; a failover group is asked for member by member.
        :raise ConfigError: if several entries of the configuration match.
        """
        return self.config.options_for(location, self.store_flags)

    def index_options(self, location: str) -> StoreOptions:
        """
        Say how to use the store that an index is in.

        :param location: the index's.
        :raise ConfigError: if several entries match, or the one that does asks for encryption.
        """
        return self.config.index_options_for(location, self.store_flags)

    def print(self, text: str = "") -> None:
        """Write a line of results to stdout, as UTF-8; bytes of file names stay what they are."""
        self.out.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def note(self, text: str) -> None:
        """Tell the user something on stderr, unless ``--quiet``."""
        if not self.quiet:
            self.progress.message(self.session.shown(text) + "\n")

    def debug(self, text: str) -> None:
        """Tell the user something on stderr that is wanted only with ``--verbose``."""
        if self.verbose:
            self.progress.message(self.session.shown(text) + "\n")

    def shown_location(self, location: str) -> str:
        """Give a location as it may be shown: without its secrets, unless ``--show-secrets``."""
        return location if self.show_secrets else mask_location(location)
