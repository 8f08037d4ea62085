"""Which service a BIZ packet goes to; what those do is for the tests of services/chat.py and living/events.py."""

from __future__ import annotations

from typing import Any

import pytest

from harness import APP, BIZ, Harness, error_of

LIKE = 5558


@pytest.fixture
def harness() -> Harness:
    return Harness()


def test_likes_are_counted_and_neither_stored_nor_answered(harness: Harness) -> None:
    one = harness.log_in(10_001, room=7)
    for count in (1, 50):
        one.send(BIZ, bizCode=LIKE, data={"roomId": 7, "count": count}, clientMsgId="c-1")
    assert one.receive() == []
    assert harness.node.room_events.likes(APP, 7) == 51
    assert (harness.metrics.messages_accepted, harness.metrics.messages_stored) == (0, 0)


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        ({"roomId": 8, "count": 1}, 403, "roomId 8: enter the room first"),
        ({"roomId": 7, "count": 0}, 400, "count 0: expected a whole number from 1 to 50"),
        ({"roomId": 7, "count": 51}, 400, "count 51: expected a whole number from 1 to 50"),
        ({"roomId": 7}, 400, "count is absent: expected a whole number from 1 to 50"),
        ({"roomId": 0, "count": 1}, 400, "roomId 0"),
        ("no JSON", 400, "data"),
        (None, 400, "roomId is absent"),
    ],
)
def test_likes_that_are_none(harness: Harness, data: Any, code: int, reason: str) -> None:
    one = harness.log_in(10_001, room=7)
    refused = one.answer(BIZ, bizCode=LIKE, data=data, clientMsgId="c-1")
    assert (error_of(refused), refused.body["clientMsgId"]) == (code, "c-1")
    assert refused.data["reason"].startswith(reason)
    assert harness.node.room_events.likes(APP, 7) == 0


def test_who_is_in_no_room_likes_none(harness: Harness) -> None:
    one = harness.log_in(10_001)
    assert error_of(one.answer(BIZ, bizCode=LIKE, data={"roomId": 7, "count": 1})) == 403
    refused = one.answer(BIZ, bizCode=LIKE)
    assert (error_of(refused), refused.data["reason"][:16]) == (400, "roomId is absent")


@pytest.mark.parametrize("biz_code", [0, -1, 5554, 5557, 5559, 2**31 - 1])
def test_a_kind_that_no_client_sends(harness: Harness, biz_code: int) -> None:
    one = harness.log_in(10_001, room=7)
    refused = one.answer(BIZ, bizCode=biz_code, data={"roomId": 7, "content": "x"})
    assert error_of(refused) == 400
    assert refused.data["reason"].startswith(f"bizCode {biz_code}: expected 5555")


@pytest.mark.parametrize("fields", [{}, {"bizCode": None}])
def test_no_kind_is_said_to_be_absent(harness: Harness, fields: dict[str, Any]) -> None:
    refused = harness.log_in(10_001, room=7).answer(BIZ, data={"roomId": 7, "content": "x"}, **fields)
    assert error_of(refused) == 400
    assert refused.data["reason"].startswith("bizCode is absent: expected 5555")


@pytest.mark.parametrize("ws", [False, True])
def test_numbers_may_be_strings_of_digits(harness: Harness, ws: bool) -> None:
    one, two = (harness.log_in_ws if ws else harness.log_in)(10_001, room=7), harness.log_in(10_002, room=7)
    one.send(BIZ, bizCode="5555", data={"roomId": "7", "type": "1", "content": "x"})
    (message,) = two.receive()
    assert (message.data["roomId"], message.data["type"], message.data["content"]) == (7, 1, "x")
    one.send(BIZ, bizCode="5556", data={"objectId": "10002", "content": "y"})
    assert two.contents() == ["y"]


def test_chat_goes_to_chat(harness: Harness) -> None:
    one, two = harness.log_in(10_001, room=7), harness.log_in(10_002, room=7)
    one.say("x")
    assert two.contents() == ["x"]
    assert harness.metrics.messages_accepted == 1
