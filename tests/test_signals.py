from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from qiyu.signals import keep_early_signals, stopped_early
keep_early_signals({arguments!r})
assert not stopped_early()
os.kill(os.getpid(), signal.SIGHUP)
assert not stopped_early()
os.kill(os.getpid(), signal.SIGTERM)
assert stopped_early()
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["serve"], 0), (["serve", "--config", "x"], 0), (["--version", "serve"], 0), (["token", "serve"], -1), ([], -1)],
)
def test_only_a_server_keeps_them(arguments: list[str], status: int) -> None:
    """A server goes on, and knows of SIGTERM; any other command ends by the first signal."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(arguments=arguments)], check=False, timeout=60)
    assert done.returncode == status
