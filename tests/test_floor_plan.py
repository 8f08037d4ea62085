"""What import-linter cannot see: that nothing in the core waits, and that every source file is tested somewhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from documents import ROOT, table

SOURCE: Final = ROOT / "src" / "qiyu"
TESTS: Final = ROOT / "tests"
CORE: Final = (
    "protocol",
    "routing",
    "services",
    "handlers",
    "living/directory.py",
    "living/events.py",
    "living/restrictions.py",
    "living/streams.py",
)
WAITING: Final = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)


def sources(*places: str) -> Iterator[Path]:
    for place in places:
        path = SOURCE / place
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def mirrored() -> dict[str, Path]:
    """Each source file that says more than one line, and where its tests would stand."""
    return {
        path.relative_to(SOURCE).as_posix(): TESTS / path.relative_to(SOURCE).parent / f"test_{path.name}"
        for path in sources("")
        if len(path.read_text(encoding="utf-8").splitlines()) > 1
    }


def listed() -> dict[str, list[str]]:
    """The table in docs/architecture.md: to each source file the tests that it has elsewhere."""
    rows = table("architecture.md", "## Where the tests are")
    return {
        source.strip(" `"): [test.strip(" `") for test in tests.split(",")]
        for names, tests in rows
        for source in names.split(",")
    }


@pytest.mark.parametrize("path", list(sources(*CORE)), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_in_the_core_waits(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [f"line {node.lineno}" for node in ast.walk(tree) if isinstance(node, WAITING)] == []


def test_every_source_file_has_tests_of_its_name_or_says_where_they_are() -> None:
    elsewhere = listed()
    assert [name for name, test in mirrored().items() if not test.exists() and name not in elsewhere] == []


def test_no_more_is_said_to_be_tested_elsewhere_than_is() -> None:
    tests = mirrored()
    elsewhere = listed()
    assert [name for name in elsewhere if name not in tests] == [], "there is no such source file"
    assert [name for name in elsewhere if tests[name].exists()] == [], "it has tests of its own name"
    assert [test for named in elsewhere.values() for test in named if not (TESTS / test).is_file()] == []
