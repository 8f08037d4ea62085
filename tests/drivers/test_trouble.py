from __future__ import annotations

from structlog.testing import capture_logs

from qiyu.drivers.trouble import Trouble
from qiyu.errors import DatabaseUnavailable


def test_a_failure_is_told_once_and_its_end_once() -> None:
    trouble = Trouble("count fish")
    with capture_logs() as logs:
        trouble.succeeded()
        for _ in range(2):
            trouble.failed(DatabaseUnavailable("locked"))
        for _ in range(2):
            trouble.succeeded()
        trouble.failed(DatabaseUnavailable("full"))
    assert [
        (entry["log_level"], entry.get("so_cannot"), entry.get("so_can"), entry.get("reason")) for entry in logs
    ] == [
        ("warning", "count fish", None, "locked"),
        ("info", None, "count fish", None),
        ("warning", "count fish", None, "full"),
    ]


def test_a_bug_is_told_with_its_traceback() -> None:
    bug = ZeroDivisionError()
    with capture_logs() as logs:
        Trouble("count fish").failed(bug)
    (entry,) = logs
    assert (entry["log_level"], entry["exc_info"]) == ("error", bug)
