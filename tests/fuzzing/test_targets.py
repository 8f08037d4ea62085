"""What fuzzing begins with, and what it ever found, goes through the parsers at each run of the tests."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from fuzzing.targets import TARGETS
from qiyu.protocol import ack_runs, tcp

CORPUS = Path(__file__).parent.parent / "corpus"
INPUTS = sorted(path for path in CORPUS.rglob("*") if path.is_file())


def test_every_target_has_seeds() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_whatever_was_found_is_read_or_refused(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_is_something_too(name: str) -> None:
    for data in (b"", b"\0", b"\0\0", b"\xff" * 300):
        TARGETS[name](data)


def test_a_reader_that_is_wrong_is_noticed() -> None:
    def wrong(data: bytes, start: int, end: int) -> tuple[int, list[str]] | None:
        run = ack_runs.read_packets(data, start, end)
        return run and (run[0], run[1][1:] or ["1" * 19])

    with patch.object(tcp, "read_packets", wrong), pytest.raises(AssertionError):
        TARGETS["tcp_frames"]((CORPUS / "tcp_frames" / "acks").read_bytes())
