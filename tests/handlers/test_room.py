from __future__ import annotations

from typing import Any

import pytest

from harness import ROOM, Harness, Received, error_of


def test_enter_change_and_leave() -> None:
    harness = Harness()
    harness.log_in(10_001, room=7)
    peer = harness.log_in(10_000)
    assert peer.answer(ROOM, data={"roomId": 7}) == Received(
        ROOM, {"appId": 10_001, "userId": 10_000, "data": '{"roomId":7,"online":2,"lastMsgId":""}'}
    )
    assert peer.answer(ROOM, data={"roomId": 8}).data == {"roomId": 8, "online": 1, "lastMsgId": ""}
    left = harness.node.hub.find_room(10_001, 7)
    assert left is not None
    assert len(left.members) == 1
    assert peer.answer(ROOM, data={"roomId": None}).data == {"roomId": None, "online": 0}
    assert harness.node.hub.find_room(10_001, 8) is None
    assert peer.session.room is None


def test_entering_the_room_one_is_in() -> None:
    peer = Harness().log_in(10_000, room=7)
    assert peer.answer(ROOM, data={"roomId": 7}).data == {"roomId": 7, "online": 1, "lastMsgId": ""}


def test_leaving_when_in_no_room() -> None:
    assert Harness().log_in(10_000).answer(ROOM, data={"roomId": None}).data == {"roomId": None, "online": 0}


@pytest.mark.parametrize(("after", "answered"), [("1", {"recovered": True}), ("", {}), (None, {})])
def test_recovered_only_when_asked(after: str | None, answered: dict[str, bool]) -> None:
    answer = Harness().log_in(10_000).answer(ROOM, data={"roomId": 7, "afterMsgId": after})
    assert answer.data == {"roomId": 7, "online": 1, "lastMsgId": ""} | answered


@pytest.mark.parametrize("room_id", [1, 2**53 - 1])
def test_the_ends_of_the_numbers(room_id: int) -> None:
    assert Harness().log_in(10_000).answer(ROOM, data={"roomId": room_id}).data["roomId"] == room_id


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"data": None},
        {"data": ""},
        {"data": "{}"},
        {"data": "no JSON"},
        {"data": "[]"},
        {"data": {"roomId": 0}},
        {"data": {"roomId": -1}},
        {"data": {"roomId": 2**53}},
        {"data": {"roomId": "8x"}},
        {"data": {"roomId": True}},
        {"data": {"roomId": 8, "afterMsgId": 5}},
        {"data": {"roomId": 8, "afterMsgId": "x"}},
        {"data": {"roomId": 8, "afterMsgId": "-1"}},
        {"data": {"roomId": 8, "afterMsgId": "１"}},
        {"data": {"roomId": 8, "afterMsgId": "1" * 20}},
    ],
)
def test_malformed_and_still_in_the_old_room(fields: dict[str, Any]) -> None:
    peer = Harness().log_in(10_000, room=7)
    refused = peer.answer(ROOM, clientMsgId="c-1", **fields)
    assert error_of(refused) == 400
    assert refused.body["clientMsgId"] == "c-1"
    assert peer.session.room is not None
    assert peer.session.room.id == 7
