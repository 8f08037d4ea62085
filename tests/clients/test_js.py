"""The JavaScript client's own tests, run by Node; its types, and those of the page, held by tsc."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from documents import ROOT

TSC = ROOT / "tests/browser/node_modules/.bin/tsc"  # .ci/run and `make test` install it where there is npm
CLIENT_TYPES = ROOT / "clients/js/tests/tsconfig.json"
PAGES = ROOT / "src/qiyu/web/pages"


def tsc(*options: str | Path) -> None:
    """Have the compiler of TypeScript look, and complain of nothing."""
    if not TSC.exists():
        assert "CI" not in os.environ, "tsc is to be installed, by npm, in tests/browser"
        pytest.skip("tsc is not installed: make test installs it where there is npm")
    done = subprocess.run(
        [TSC, "--noEmit", *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_of_the_javascript_client_are_those_of_its_code() -> None:
    tsc("-p", CLIENT_TYPES)


def test_the_types_in_the_comments_of_the_page_are_right() -> None:
    scripts = sorted(PAGES.glob("*.js"))
    assert scripts
    library = (
        "--target",
        "es2023",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "--lib",
        "es2024,dom,dom.iterable",
    )
    tsc("--allowJs", "--checkJs", "--strict", *library, *scripts)


def test_the_javascript_client() -> None:
    node = shutil.which("node")
    if node is None:
        assert "CI" not in os.environ, "Node is to be installed"
        pytest.skip("Node 20 or newer is not installed: apt-get install nodejs")
    done = subprocess.run(
        [node, "--test", "tests/qiyu-client.test.js"],
        cwd=ROOT / "clients" / "js",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout
