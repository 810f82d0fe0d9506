# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The names that the package offers to those who import it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

import desync
from desync import errors, interfaces

from .command_line import ROOT, process_environ


def type_checkers_imports() -> dict[str, str]:
    """Read what ``desync/__init__.py`` imports for type checkers: name -> module."""
    tree = ast.parse(Path(inspect.getfile(desync)).read_text())
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("desync."):
            for alias in node.names:
                found[alias.name] = str(node.module)
    return found


def documented() -> dict[str, str | None]:
    """Read the names that ``docs/library.rst`` explains, with what is in parentheses after them."""
    text = (ROOT / "docs" / "library.rst").read_text()
    names = text.partition("\n.. NAMES\n")[2].partition("\nInterfaces and errors\n")[0]
    found = {}
    for name, _, parameters in re.findall(r"^``(\w+)(\((.*)\))?``$", names, re.MULTILINE):
        found[name] = parameters if _ else None
    return found


class FacadeTests(SynchronousTestCase):
    """The names of ``desync`` itself."""

    def test_all(self) -> None:
        """Each name in ``__all__`` can be had, and is what its own module calls so."""
        for name in desync.__all__:
            value = getattr(desync, name)
            module = import_module(type_checkers_imports()[name])
            self.assertIs(value, getattr(module, name), name)

    def test_three_lists(self) -> None:
        """``__all__``, the imports for type checkers and the table of the lazy ones agree."""
        lazy = {
            name: f"desync.{module}"
            for module, names in desync._HOMES.items()
            for name in names.split()
        }
        self.assertEqual(type_checkers_imports(), lazy)
        self.assertEqual(sorted(lazy), sorted(desync.__all__))

    def test_documented(self) -> None:
        """``docs/library.rst`` explains each name in ``__all__``, and no other."""
        self.assertEqual(sorted(desync.__all__), sorted(documented()))

    def test_documented_parameters(self) -> None:
        """It names the parameters that each function and class takes."""
        for name, parameters in documented().items():
            if parameters is None or parameters == "...":
                continue
            actual = inspect.signature(getattr(desync, name)).parameters
            self.assertEqual(list(actual), list(filter(None, parameters.split(", "))), name)

    def test_star(self) -> None:
        """``from desync import *`` brings in exactly these."""
        names: dict[str, object] = {}
        exec("from desync import *", names)
        del names["__builtins__"]
        self.assertEqual(sorted(desync.__all__), sorted(names))

    def test_dir(self) -> None:
        """``dir()`` lists them before they were looked up."""
        self.assertLessEqual(set(desync.__all__), set(dir(desync)))

    def test_unknown(self) -> None:
        """Any other name is an AttributeError that names it."""
        error = self.assertRaises(AttributeError, getattr, desync, "nonsense")
        self.assertEqual("module 'desync' has no attribute 'nonsense'", str(error))

    def test_cheap(self) -> None:
        """``import desync`` imports no other module of ours, no Twisted and no zope."""
        program = (
            "import sys, desync\n"
            "print(*sorted(m for m in sys.modules if m.split('.')[0] in"
            " ('desync', 'twisted', 'zope', 'click', 'zstandard')))"
        )
        found = subprocess.run(
            [sys.executable, "-S", "-c", program],
            capture_output=True,
            text=True,
            env=process_environ(),
            check=True,
            timeout=60,
        )
        self.assertEqual("desync\n", found.stdout)

    def test_local_work_without_twisted(self) -> None:
        """What works on local files comes without Twisted."""
        names = "run make extract cat chop verify verify_index prune needed_by Pool Config Index"
        names += " local_source local_target read_index write_index LocalFiles Progress"
        program = (
            "import sys, desync\n"
            f"for name in {names!r}.split(): getattr(desync, name)\n"
            "print(*sorted(m for m in sys.modules if m.split('.')[0] in ('twisted', 'zope')))"
        )
        found = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=process_environ(),
            check=True,
            timeout=60,
        )
        modules = set(found.stdout.split())
        # An installed package may put its namespace in place when the interpreter starts.
        self.assertLessEqual(modules, {"zope"})


class ModuleTests(SynchronousTestCase):
    """The public modules beside it."""

    def test_errors(self) -> None:
        """Every class in ``desync.errors`` is a DesyncError."""
        classes = [value for value in vars(errors).values() if inspect.isclass(value)]
        self.assertGreater(len(classes), 10)
        for each in classes:
            self.assertTrue(issubclass(each, errors.DesyncError), each)

    def test_interfaces(self) -> None:
        """Every interface in ``desync.interfaces`` says what each of its methods is for."""
        found = [value for value in vars(interfaces).values() if isinstance(value, InterfaceClass)]
        ours = [each for each in found if each.__module__ == interfaces.__name__]
        self.assertGreaterEqual(len(ours), 10)
        for each in ours:
            for name, element in each.namesAndDescriptions():
                self.assertTrue(element.getDoc(), f"{each.__name__}.{name}")

    def test_typed(self) -> None:
        """The marker that tells type checkers of our annotations is in the package."""
        self.assertTrue((Path(inspect.getfile(desync)).parent / "py.typed").is_file())
