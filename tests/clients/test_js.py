"""The JavaScript client's own tests, run by Node."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from documents import ROOT


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
