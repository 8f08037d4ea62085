from __future__ import annotations

import pytest

from qiyu.routing import room_log
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.room_log import RoomLog


def message(number: int) -> Publication:
    return Publication(app_id=10_001, biz_code=5555, data=b"{}", kind=Kind.DROPPABLE, msg_id=str(number))


def filled(count: int) -> tuple[RoomLog, list[Publication]]:
    log = RoomLog()
    messages = [message(number) for number in range(count)]
    for each in messages:
        log.add(each)
    return log, messages


def test_messages_are_numbered_in_their_order() -> None:
    log, messages = filled(3)
    assert [each.number for each in messages] == [0, 1, 2]
    assert all(each.log is log for each in messages)
    assert log.ids == ["0", "1", "2"]
    assert log.items == messages
    assert repr(log) == "<RoomLog 0..0..3>"


def test_what_is_settled_is_no_longer_in_it() -> None:
    log, messages = filled(4)
    log.settle(1)
    assert [each.log is log for each in messages] == [False, False, True, True]
    log.settle(0)  # once more is nothing
    assert (log.due, log.end) == (2, 4)


def test_settled_ones_are_removed_by_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_log, "_TRIMMED", 3)
    log, messages = filled(5)
    log.settle(1)
    assert log.base == 0
    log.settle(2)
    assert (log.base, log.ids) == (3, ["3", "4"])
    log.add(more := message(5))
    assert (more.number, log.end) == (5, 6)
    assert messages[3].log is log
    log.settle(5)
    assert repr(log) == "<RoomLog 6..6..6>"
