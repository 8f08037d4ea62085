from __future__ import annotations

from qiyu.routing.inflight import InFlight, evict_oldest
from qiyu.routing.outgoing import Outgoing


def message(msg_id: str, *, is_direct: bool = False) -> Outgoing:
    return Outgoing(app_id=10_001, biz_code=5555, data=b"{}", msg_id=msg_id, is_direct=is_direct)


def in_flight(*messages: Outgoing) -> InFlight:
    return {each.msg_id: each for each in messages}


def test_the_oldest_room_message_goes_first() -> None:
    table = in_flight(message("1", is_direct=True), message("2"), message("3"), message("4", is_direct=True))
    evict_oldest(table)
    assert list(table) == ["1", "3", "4"]
    evict_oldest(table)
    assert list(table) == ["1", "4"]


def test_a_direct_one_only_when_there_is_no_other() -> None:
    table = in_flight(message("1", is_direct=True), message("2", is_direct=True))
    evict_oldest(table)
    assert list(table) == ["2"]
