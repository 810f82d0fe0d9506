# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The package's rooms, as ``docs/architecture.rst`` lists them: who imports whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .command_line import ROOT

PACKAGE = ROOT / "desync"

# What points up all the same, and why. This only shrinks.
EXCEPTIONS: set[tuple[str, str]] = set()


def rooms() -> list[str]:
    """Read the list of rooms, the highest first."""
    text = (ROOT / "docs" / "architecture.rst").read_text()
    house = text.partition("\nThe house\n")[2].partition("\nA chunk's way\n")[0]
    return re.findall(r"^``(\w+)/``$", house, re.MULTILINE)


def imports(path: Path) -> Iterator[str]:
    """List the modules of ours that a module imports, but for annotations."""
    here = ["desync", *path.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for each in node.orelse:
                yield from visit(each)
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    for name in visit(ast.parse(path.read_text())):
        if name.startswith("desync."):
            yield name.removeprefix("desync.")


def room_of(name: str) -> str:
    """Give the room of a module's dotted name, less ``desync.``; a loose module's is its name."""
    return name.split(".")[0]


class HouseTests(SynchronousTestCase):
    """Which room imports which."""

    def test_list(self) -> None:
        """Every package is a room on the list, but for ``testing``, and the other way round."""
        packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"testing"}
        self.assertEqual(packages, set(rooms()))
        self.assertEqual(len(packages), len(rooms()))

    def test_arrows(self) -> None:
        """A room imports only itself, lower rooms and loose modules; those import no room."""
        order = rooms()
        found = set()
        for path in sorted(PACKAGE.rglob("*.py")):
            file = path.relative_to(PACKAGE).as_posix()
            mine = file.split("/")[0].removesuffix(".py")
            if mine in ("testing", "__init__", "__main__"):
                continue
            lowest = order.index(mine) if mine in order else len(order)
            for name in imports(path):
                other = room_of(name)
                if other in order and order.index(other) < lowest:
                    found.add((file, other))
                self.assertNotEqual("testing", other, f"{file} imports {name}")
        self.assertEqual(EXCEPTIONS, found)

    def test_imports_are_seen(self) -> None:
        """What the test above looks at are imports of all forms, inside functions too."""
        seen = set(imports(PACKAGE / "cli" / "make.py"))
        self.assertIn("cli.command.argument", seen)
        self.assertIn("operations.make.make", seen)
        self.assertNotIn("operations.make.Made", seen)
