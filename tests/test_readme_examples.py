# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The command lines of the README that the project started from are run, in its order.

An example that needs a feature which isn't there yet is skipped, with the feature's name. A new
feature is switched on in :data:`tests.seed_examples.FEATURES`.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests import readme_sandbox
from tests.command_line import desync
from tests.mounts import need_fuse
from tests.readme_sandbox import (
    HOSTS,
    PROVIDERS,
    URL,
    Sandbox,
    WrongOutcome,
    has_bad_chunk,
    has_store,
    holds,
    holds_nothing_but,
    is_rebuilt,
)
from tests.seed_examples import COMMANDS, EXAMPLES, FEATURES, Example

BLOCKS = 37
"""Blocks of command lines in the section "Examples"."""

LINES = 43
"""Times that desync is run in them."""

ELSEWHERE = 11
"""Command lines, and parts of some, in the other sections."""


class SeedReadmeTests(SynchronousTestCase):
    """Each example runs in a sandbox of its own."""


class SubcommandTests(SynchronousTestCase):
    """Each command that the README lists is there."""


def _example_test(example: Example) -> Callable[[SeedReadmeTests], None]:
    def test(self: SeedReadmeTests) -> None:
        if "mount" in example.needs:
            need_fuse()
        sandbox = Sandbox(self.mktemp())
        self.addCleanup(sandbox.cleanup.close)
        for make in example.given:
            make(sandbox)
        commands = example.run or example.text
        if example.meanwhile:
            running = sandbox.start(commands)
            try:
                for look in example.meanwhile:
                    look(sandbox, running)
            finally:
                result = running.end()
        else:
            result = sandbox.run(commands, example.stdin)
        self.assertEqual(result.code, example.code, result)
        for check in example.then:
            check(sandbox, result)

    test.__doc__ = example.about
    return test


def _command_test(name: str) -> Callable[[SubcommandTests], None]:
    def test(self: SubcommandTests) -> None:
        outcome = desync(name, "--help")
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        self.assertIn(f"desync {name}", outcome.text)

    test.__doc__ = f"There is a command {name}, which has a help."
    return test


def _add(case: type, name: str, test: Callable[..., None], needs: tuple[str, ...]) -> None:
    missing = [feature for feature in needs if not FEATURES[feature]]
    if missing:
        test.skip = f"not there yet: {', '.join(missing)}"  # type: ignore[attr-defined]
    test.__name__ = name
    test.__qualname__ = f"{case.__name__}.{name}"
    setattr(case, name, test)


for _number, _example in enumerate(EXAMPLES, 1):
    _name = f"test_{_number:02}_{_example.name}"
    _add(SeedReadmeTests, _name, _example_test(_example), _example.needs)
for _name, _feature in COMMANDS.items():
    _add(
        SubcommandTests,
        f"test_{_name.replace('-', '_')}",
        _command_test(_name),
        (_feature,),
    )


class CompletenessTests(SynchronousTestCase):
    """No example is lost, and none is run that would show nothing."""

    def test_count(self) -> None:
        """There are as many examples as in the README, and as many commands in them."""
        blocks = [each.text for each in EXAMPLES if each.section == "Examples" and not each.part_of]
        self.assertEqual(len(blocks), BLOCKS)
        runs = re.findall(r"^(?:.*[#|=\w\"] )??desync [a-z-]", "\n".join(blocks), re.MULTILINE)
        pipes = sum(text.count("| desync ") for text in blocks if text.startswith("desync "))
        self.assertEqual(len(runs) + pipes, LINES)
        others = [each for each in EXAMPLES if each.section != "Examples" and not each.part_of]
        self.assertEqual(len(others), ELSEWHERE)
        self.assertEqual(len(COMMANDS), 16)

    def test_each_has_a_test(self) -> None:
        """Each example, and each command, has a test of its own."""
        names = [each.name for each in EXAMPLES]
        self.assertEqual(len(set(names)), len(names))
        for case, count in ((SeedReadmeTests, len(EXAMPLES)), (SubcommandTests, len(COMMANDS))):
            tests = [name for name in vars(case) if name.startswith("test_")]
            self.assertEqual(len(tests), count)

    def test_features_are_known(self) -> None:
        """Each feature that is named is one, and each one is named."""
        named = {feature for each in EXAMPLES for feature in each.needs}
        self.assertEqual(named | set(COMMANDS.values()) | set(HOSTS.values()), set(FEATURES))

    def test_hosts_are_known(self) -> None:
        """Each host has a feature, which the examples that name it need."""
        for each in EXAMPLES:
            if each.name == "config_example":
                continue  # it only shows them
            for url in URL.findall(each.run or each.text):
                self.assertIn(HOSTS[url], each.needs, f"{each.name}: {url}")

    def test_features_have_hosts(self) -> None:
        """A feature that is switched on brings what stands for its hosts."""
        for feature in set(HOSTS.values()):
            if FEATURES[feature]:
                self.assertIn(feature, PROVIDERS)

    def test_parts(self) -> None:
        """A part of an example follows the example, and needs less."""
        whole = EXAMPLES[0]
        for each in EXAMPLES:
            if not each.part_of:
                whole = each
                continue
            self.assertEqual(each.part_of, whole.name)
            self.assertTrue(each.needs == whole.needs or not set(whole.needs) <= set(each.needs))

    def test_nothing_unchecked(self) -> None:
        """Each example that is switched on checks something besides the exit code."""
        for each in EXAMPLES:
            if all(FEATURES[feature] for feature in each.needs):
                self.assertTrue(each.then, each.name)


class SandboxTests(SynchronousTestCase):
    """The sandbox stands for what the examples name, and its checks can fail."""

    def setUp(self) -> None:
        self.sandbox = Sandbox(self.mktemp())

    def test_places(self) -> None:
        """Paths from the root are moved into the sandbox, others and those in URLs stay."""
        root = self.sandbox.root
        text = "a -s {}/path/to/x '{}/some/y' path/to --k={}/tmp/z \"{}/mnt|{}/mirror1\""
        self.assertEqual(self.sandbox.localize(text.replace("{}", "")), text.format(*[root] * 5))
        for text in ("https://10.0.0.1/path/to", "a/path/to", "/usr/path", "https://x.y/*/tmp"):
            self.assertEqual(self.sandbox.localize(text), text)

    def test_missing_host(self) -> None:
        """A host that nothing stands for isn't asked for."""
        self.patch(readme_sandbox, "PROVIDERS", {})
        for host in HOSTS:
            self.assertRaises(KeyError, self.sandbox.localize, f"desync cat -s {host}store x")
            self.assertRaises(KeyError, self.sandbox.path, f"{host}store")

    def test_contents(self) -> None:
        """Versions of a file have chunks in common, and chunks of their own, in both directions."""
        one, two, other = (
            {chunk_id for _, _, chunk_id in self.sandbox.index_of(name)}
            for name in ("image-v1.iso", "image-v2.iso", "somefile.tar")
        )
        self.assertTrue(one & two)
        self.assertTrue(one - two)
        self.assertTrue(two - one)
        self.assertTrue(one - other)

    def test_checks_fail(self) -> None:
        """A chunk that is bad, missing or too many, and a file that isn't right, are noticed."""
        has_store("store", "image-v1")(self.sandbox)
        result = self.sandbox.run("true")
        holds("store", "image-v1")(self.sandbox, result)
        holds_nothing_but("store", "image-v1")(self.sandbox, result)
        for check in (holds("store", "image-v2"), holds_nothing_but("store", "image-v2")):
            self.assertRaises(WrongOutcome, check, self.sandbox, result)
        has_store("both", "image-v1", "image-v2")(self.sandbox)
        self.assertRaises(WrongOutcome, holds_nothing_but("both", "image-v1"), self.sandbox, result)
        has_bad_chunk("store", "image-v1")(self.sandbox)
        self.assertRaises(WrongOutcome, holds("store", "image-v1"), self.sandbox, result)
        self.assertRaises(WrongOutcome, is_rebuilt("image-v1"), self.sandbox, result)
        os.symlink("/dev/null", self.sandbox.path("image-v1"))
        self.assertRaises(WrongOutcome, is_rebuilt("image-v1"), self.sandbox, result)

    def test_running(self) -> None:
        """What runs until it is ended is waited for, and told from what ends by itself."""
        running = self.sandbox.start("sleep 60")
        self.assertEqual(running.end().code, -signal.SIGTERM)
        running = self.sandbox.start("echo done")
        error = self.assertRaises(WrongOutcome, running.wait_until, lambda: False)
        self.assertIn("done", str(error))

    def test_shell_stops(self) -> None:
        """The first line that fails ends an example."""
        self.assertEqual(self.sandbox.run("false\necho on").out, "")
