from __future__ import annotations

from structlog.testing import capture_logs

from qiyu.services.refusals import LINES, Refusals

ADDRESS = bytes([127, 0, 0, 1])


def test_each_has_a_line_and_many_have_one() -> None:
    refusals = Refusals()
    with capture_logs() as logs:
        for _ in range(LINES + 5):
            refusals.upgrade(ADDRESS, 403, "Origin is not listed", "https://a.example/" + "x" * 500)
        refusals.sweep()
        refusals.sweep()
        refusals.upgrade(b"", 400, "a path")
    assert [each["event"] for each in logs] == ["websocket refused"] * LINES + [
        "more websockets were refused",
        "websocket refused",
    ]
    assert logs[0] == {
        "event": "websocket refused",
        "log_level": "info",
        "status": 403,
        "reason": "Origin is not listed",
        "address": "127.0.0.1",
        "origin": "https://a.example/" + "x" * 182,
    }
    assert logs[LINES]["refused"] == 5
    assert "origin" not in logs[-1]
