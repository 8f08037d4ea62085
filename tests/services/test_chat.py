from __future__ import annotations

from typing import Any

import pytest

from harness import (
    ACK,
    BIZ,
    DIRECT,
    ERROR,
    ROOM,
    ROOM_CHAT,
    Harness,
    assert_nothing_waits,
    error_of,
    receipts,
    refusal,
)

NICKNAME, AVATAR = "看客小鱼", "/img/1.png"


def test_a_room_message_reaches_every_other_member() -> None:
    harness = Harness()
    sender = harness.log_in(10_000, room=7, nickname=NICKNAME, avatar=AVATAR)
    member, browser = harness.log_in(123_456, room=7), harness.log_in_ws(2**53 - 1, room=7)
    elsewhere, nowhere = harness.log_in(10_003, room=8), harness.log_in(10_004)
    other_app = harness.log_in(10_000, room=7, app=20_000)
    sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "type": 1, "content": "主播好"})

    (packet,) = member.receive()
    assert packet.code == BIZ
    assert set(packet.body) == {"appId", "userId", "bizCode", "data", "msgId"}
    assert (packet.body["appId"], packet.body["userId"], packet.body["bizCode"]) == (10_001, 123_456, 5555)
    assert packet.data == {
        "userId": 10_000,
        "roomId": 7,
        "type": 1,
        "content": "主播好",
        "senderName": NICKNAME,
        "senderAvatar": AVATAR,
        "createTime": harness.now.unix_ms,
    }
    (to_browser,) = browser.receive()
    assert to_browser.body == packet.body | {"userId": 2**53 - 1}
    assert len(packet.body["msgId"]) == 19
    for silent in (sender, elsewhere, nowhere, other_app):
        assert silent.receive() == []
    assert harness.metrics.messages_accepted == 1


def test_what_a_client_says_of_itself_is_overruled_and_what_is_unknown_is_dropped() -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7, nickname=NICKNAME, avatar=AVATAR), harness.log_in(10_001, room=7)
    lies = {"userId": 10_001, "senderName": "root", "senderAvatar": "/root.png", "createTime": 1, "senderId": 5}
    data = lies | {"roomId": 7, "content": "x", "isAdmin": True}
    sender.send(BIZ, bizCode=ROOM_CHAT, appId=20_000, userId=10_001, token="t", msgId="1", data=data)
    (packet,) = member.receive()
    assert packet.data == {
        "userId": 10_000,
        "roomId": 7,
        "type": 0,
        "content": "x",
        "senderName": NICKNAME,
        "senderAvatar": AVATAR,
        "createTime": harness.now.unix_ms,
    }
    assert packet.body["appId"] == 10_001
    assert packet.body["msgId"] != "1"
    assert "token" not in packet.body


def test_a_direct_message() -> None:
    harness = Harness()
    sender, receiver = harness.log_in(10_000, nickname=NICKNAME, avatar=AVATAR), harness.log_in_ws(10_001)
    bystander = harness.log_in(10_002)
    sender.send(BIZ, bizCode=DIRECT, data={"objectId": 10_001, "userId": 1, "content": "hi", "roomId": 3})
    (packet,) = receiver.receive()
    assert packet.body["bizCode"] == 5556
    assert packet.body["userId"] == 10_001
    assert packet.data == {
        "userId": 10_000,
        "objectId": 10_001,
        "type": 0,
        "content": "hi",
        "senderName": NICKNAME,
        "senderAvatar": AVATAR,
        "createTime": harness.now.unix_ms,
    }
    assert sender.receive() == bystander.receive() == []


@pytest.mark.parametrize("room", [{}, {"roomId": None}, {"roomId": 0}])
def test_the_older_form_of_a_direct_message(room: dict[str, Any]) -> None:
    harness = Harness()
    sender, receiver = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    bystander = harness.log_in(10_002, room=7)
    sender.send(BIZ, bizCode=ROOM_CHAT, data=room | {"objectId": 10_001, "content": "hi", "senderId": 10_002})
    (packet,) = receiver.receive()
    assert packet.body["bizCode"] == 5555
    assert packet.data["senderId"] == packet.data["userId"] == 10_000
    assert packet.data["objectId"] == 10_001
    assert "roomId" not in packet.data
    assert bystander.receive() == []


def test_with_a_room_and_an_object_it_is_for_the_room() -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "objectId": 10_005})
    (packet,) = member.receive()
    assert packet.data["roomId"] == 7
    assert packet.data["userId"] == 10_000
    assert packet.data["content"] == ""
    assert "objectId" not in packet.data


@pytest.mark.parametrize("room", [None, 8])
def test_only_in_the_room_one_is_in(room: int | None) -> None:
    harness = Harness()
    member = harness.log_in(10_001, room=7)
    sender = harness.log_in(10_000, room=room)
    sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "x"})
    assert refusal(sender.receive()) == 403
    assert member.receive() == []
    assert not sender.session.ended
    assert harness.metrics.messages_accepted == 0


def test_no_longer_after_leaving() -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    sender.answer(ROOM, data={"roomId": None})
    sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "x"})
    assert refusal(sender.receive()) == 403
    assert member.receive() == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bizCode": None},
        {"bizCode": 5557, "data": {"roomId": 7, "event": "closed"}},
        {"bizCode": 2**64, "data": {}},
        {"bizCode": "5555x", "data": {"roomId": 7}},
        {"bizCode": ROOM_CHAT},
        {"bizCode": ROOM_CHAT, "data": None},
        {"bizCode": ROOM_CHAT, "data": "not JSON"},
        {"bizCode": ROOM_CHAT, "data": "[]"},
        {"bizCode": ROOM_CHAT, "data": '{"roomId":7,"content":"\\ud800"}'},
        {"bizCode": ROOM_CHAT, "data": '{"roomId":7,"x":' + "[" * 5000},
        {"bizCode": ROOM_CHAT, "data": {}},
        {"bizCode": ROOM_CHAT, "data": {"roomId": "7x"}},
        {"bizCode": ROOM_CHAT, "data": {"roomId": 7.0}},
        {"bizCode": ROOM_CHAT, "data": {"roomId": -7}},
        {"bizCode": ROOM_CHAT, "data": {"roomId": 7, "content": 5}},
        {"bizCode": ROOM_CHAT, "data": {"roomId": 7, "type": -1}},
        {"bizCode": ROOM_CHAT, "data": {"roomId": 7, "type": 2**31}},
        {"bizCode": DIRECT, "data": {"content": "to nobody"}},
        {"bizCode": DIRECT, "data": {"objectId": 9_999}},
        {"bizCode": DIRECT, "data": {"objectId": 2**53}},
        {"bizCode": DIRECT, "data": {"objectId": None}},
    ],
)
def test_malformed(fields: dict[str, Any]) -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    sender.send(BIZ, **fields)
    assert refusal(sender.receive()) == 400
    assert member.receive() == []
    assert not sender.session.ended
    assert harness.metrics.packets_refused == 1
    assert harness.metrics.messages_accepted == 0


def test_content_is_counted_in_code_points() -> None:
    harness = Harness(limits={"content_chars": 3})
    sender, member = harness.log_in(10_000, room=7), harness.log_in_ws(10_001, room=7)
    sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "鱼\U0001f600x"})
    (packet,) = member.receive()
    assert packet.data["content"] == "鱼\U0001f600x"
    for bizcode, target in (
        (ROOM_CHAT, {"roomId": 7}),
        (ROOM_CHAT, {"objectId": 10_001}),
        (DIRECT, {"objectId": 10_001}),
    ):
        refused = sender.answer(BIZ, bizCode=bizcode, data=target | {"content": "鱼\U0001f600xy"})
        assert error_of(refused) == 400
        assert refused.data["reason"] == "content of 4 characters: expected 3 at most"
    assert member.receive() == []


def test_no_limit_of_content() -> None:
    harness = Harness(limits={"content_chars": 0})
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "x" * 60_000})
    (packet,) = member.receive()
    assert packet.data["content"] == "x" * 60_000


def test_a_receiver_that_is_not_here_gets_it_when_it_comes() -> None:
    harness = Harness()
    sender = harness.log_in(10_000)
    stranger = harness.log_in(10_001, app=20_000)
    sender.whisper(10_001, "anybody?")
    assert sender.receive() == stranger.receive() == []
    receiver = harness.log_in(10_001)
    (packet,) = receiver.receive()
    assert packet.body["bizCode"] == DIRECT
    assert packet.data["content"] == "anybody?"
    assert packet.data["userId"] == 10_000


def test_a_receiver_that_has_just_been_replaced() -> None:
    harness = Harness()
    sender, older = harness.log_in(10_000), harness.log_in(10_001)
    newer = harness.log_in(10_001)
    older.receive()
    sender.send(BIZ, bizCode=DIRECT, data={"objectId": 10_001, "content": "for you"})
    assert older.receive() == []
    assert [packet.data["content"] for packet in newer.receive()] == ["for you"]


def test_a_receipt_says_as_what_it_is_stored() -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    sender.say("with", "c-1")
    sender.say("without")
    first, second = member.receive()
    (receipt,) = sender.receive()
    msg_id = first.body["msgId"]
    assert receipt == (ACK, {"appId": 10_001, "userId": 10_000, "msgId": msg_id, "clientMsgId": "c-1"})
    assert "clientMsgId" not in first.body
    assert (first.data["content"], second.data["content"]) == ("with", "without")


@pytest.mark.parametrize("client_msg_id", ["x", "鱼" * 64, '"\\', "\x01"])
def test_a_client_msg_id_comes_back_as_it_was(client_msg_id: str) -> None:
    sender = Harness().log_in(10_000, room=7)
    sender.say("x", client_msg_id)
    assert [each for each, _ in receipts(sender.receive())] == [client_msg_id]


@pytest.mark.parametrize(("client_msg_id", "echoed"), [("鱼" * 65, None), ("a\0b", "a\0b")])
def test_what_cannot_be_a_client_msg_id(client_msg_id: str, echoed: str | None) -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    refused = sender.answer(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7}, clientMsgId=client_msg_id)
    assert error_of(refused) == 400
    assert refused.body.get("clientMsgId") == echoed
    assert member.receive() == []


def test_what_is_wrong_with_it_is_said_before_it_is_known_whether_it_is_new() -> None:
    harness = Harness(limits={"content_chars": 3})
    sender = harness.log_in(10_000, room=7)
    for content, code in (("xy", None), ("wxyz", 400)):
        sender.say(content, "c-1")
        (answer,) = sender.receive()
        assert answer.body["clientMsgId"] == "c-1"
        assert (error_of(answer) if code else None) == code


@pytest.mark.parametrize("stores_at_once", [True, False])
def test_a_new_message_to_a_room_one_is_not_in_is_refused_once_it_is_known_to_be_new(stores_at_once: bool) -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=8), harness.log_in(10_001, room=7)
    harness.stores_at_once = stores_at_once
    sender.say("x", "c-1", room=7)
    harness.settle()
    (refused,) = sender.receive()
    assert error_of(refused) == 403
    assert refused.body["clientMsgId"] == "c-1"
    assert member.receive() == []
    assert_nothing_waits(harness)
    sender.send(ROOM, data={"roomId": 7})  # and it was not kept: now it is accepted
    harness.settle()
    (entered,) = sender.receive()
    assert entered.data == {"roomId": 7, "online": 2, "lastMsgId": ""}
    sender.say("x", "c-1")
    harness.settle()
    assert len(receipts(sender.receive())) == 1
    assert member.contents() == ["x"]


def test_a_resend_from_outside_the_room_gets_the_receipt_of_the_first() -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    sender.say("x", "c-1")
    first = receipts(sender.receive())
    sender.answer(ROOM, data={"roomId": None})
    sender.say("x", "c-1", room=7)
    assert receipts(sender.receive()) == first
    assert member.contents() == ["x"]


def test_messages_of_one_sender_come_in_order_and_with_growing_ids() -> None:
    harness = Harness()
    sender, member = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    for number in range(50):
        if number % 3:
            sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": str(number)})
        else:
            sender.send(BIZ, bizCode=DIRECT, data={"objectId": 10_001, "content": str(number)})
    received = member.receive()
    assert [packet.data["content"] for packet in received] == [str(number) for number in range(50)]
    ids = [int(packet.body["msgId"]) for packet in received]
    assert ids == sorted(set(ids))


def test_the_instance_number_is_in_the_msg_id() -> None:
    harness = Harness(instance={"number": 77})
    peer = harness.log_in(10_000)
    message = peer.answer(BIZ, bizCode=DIRECT, data={"objectId": 10_000, "content": "to myself"})
    assert int(message.body["msgId"]) >> 12 & 1023 == 77
    assert message.code != ERROR
