from __future__ import annotations

from qiyu.routing.inflight import InFlight, evict_oldest
from qiyu.routing.outgoing import Outgoing


def table(*msg_ids: str) -> InFlight:
    return {each: Outgoing(app_id=10_001, biz_code=5555, data=b"{}", msg_id=each) for each in msg_ids}


def test_the_oldest_room_message_goes_first() -> None:
    room, direct = table("2", "3"), table("1", "4")
    evict_oldest(room, direct)
    assert (list(room), list(direct)) == (["3"], ["1", "4"])
    evict_oldest(room, direct)
    assert (list(room), list(direct)) == ([], ["1", "4"])


def test_a_direct_one_only_when_there_is_no_other() -> None:
    direct = table("1", "2")
    evict_oldest({}, direct)
    assert list(direct) == ["2"]
    evict_oldest(None, direct)
    assert list(direct) == []
