from __future__ import annotations

from typing import Any

import pytest

from harness import (
    BIZ,
    DIRECT,
    ROOM_CHAT,
    assert_nothing_is_left,
    assert_nothing_waits,
    error_of,
    ids_of,
    receipts,
    refusal,
)
from town import ALICE, BOB, CAROL, Town


def test_a_resend_after_the_commit_is_receipted_and_not_delivered(town: Town) -> None:
    town.alice.say("x", "c-1")
    town.harness.write()
    (message,) = town.bob.receive()
    first = town.alice.receive()
    assert receipts(first) == [("c-1", message.body["msgId"])]
    town.alice.say("x", "c-1")
    town.harness.write()
    assert town.alice.receive() == first
    assert town.bob.receive() == []
    assert town.history() == ["x"]
    assert town.harness.metrics.messages_repeated == 1


def test_a_resend_after_a_restart_too(town: Town) -> None:
    town.alice.say("x", "c-1")
    town.harness.write()
    again = Town.make(town.harness.store)
    again.alice.say("x", "c-1")
    again.harness.write()
    assert again.alice.receive() == town.alice.receive()
    assert again.bob.receive() == []
    assert_nothing_is_left(again.harness)


SOMETHING_ELSE: list[dict[str, Any]] = [
    {"data": {"roomId": 7, "type": 1, "content": "y"}},
    {"data": {"roomId": 7, "type": 2, "content": "x"}},
    {"data": {"roomId": 8, "type": 1, "content": "x"}},
    {"data": {"objectId": CAROL, "type": 1, "content": "x"}},
    {"bizCode": DIRECT, "data": {"objectId": CAROL, "type": 1, "content": "x"}},
]


@pytest.mark.parametrize("what", SOMETHING_ELSE)
@pytest.mark.parametrize("when", ["before the commit", "after it", "after a restart"])
def test_the_same_client_msg_id_for_something_else_is_a_conflict(town: Town, what: dict[str, Any], when: str) -> None:
    town.alice.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "type": 1, "content": "x"}, clientMsgId="c-1")
    if when != "before the commit":
        town.harness.write()
        town.alice.receive()
    if when == "after a restart":
        town = Town.make(town.harness.store)
    town.alice.send(BIZ, clientMsgId="c-1", **({"bizCode": ROOM_CHAT} | what))
    town.harness.settle()
    answers = town.alice.receive()
    (refused,) = [packet for packet in answers if not receipts([packet])]
    assert error_of(refused) == 409
    assert refused.body["clientMsgId"] == "c-1"
    assert town.history() == ["x"]
    assert_nothing_waits(town.harness)


@pytest.mark.parametrize("code", [ROOM_CHAT, DIRECT])
def test_the_two_codes_of_a_direct_message_are_two_messages(town: Town, code: int) -> None:
    town.alice.send(BIZ, bizCode=code, data={"objectId": CAROL}, clientMsgId="c-1")
    town.harness.write()
    town.alice.receive()
    town.alice.send(BIZ, bizCode=ROOM_CHAT + DIRECT - code, data={"objectId": CAROL}, clientMsgId="c-1")
    town.harness.write()
    assert refusal(town.alice.receive()) == 409


def test_another_receiver_is_another_message(town: Town) -> None:
    town.alice.whisper(CAROL, "x", "c-1")
    town.harness.write()
    town.alice.receive()
    town.alice.whisper(BOB, "x", "c-1")
    town.harness.write()
    assert refusal(town.alice.receive()) == 409
    assert town.bob.receive() == []


def test_what_a_client_says_of_itself_and_what_is_unknown_makes_no_other_message(town: Town) -> None:
    town.alice.send(BIZ, bizCode=DIRECT, data={"objectId": CAROL, "content": "x"}, clientMsgId="c-1")
    town.alice.send(
        BIZ, bizCode=DIRECT, data={"objectId": CAROL, "content": "x", "type": 0, "senderName": "a"}, clientMsgId="c-1"
    )
    town.harness.write()
    town.harness.advance(30)
    town.alice.send(BIZ, bizCode=DIRECT, data={"objectId": CAROL, "content": "x", "roomId": 5}, clientMsgId="c-1")
    town.harness.write()
    ((_, first), (_, second)) = receipts(town.alice.receive())
    assert first == second


@pytest.mark.parametrize("stored_between", [True, False])
def test_another_user_and_another_app_may_use_the_same_one(town: Town, stored_between: bool) -> None:
    stranger = town.harness.log_in(ALICE, app=20_000, room=7)
    for peer in (town.alice, town.bob, stranger):
        peer.say(str(peer.session.user_id), "c-1")
        if stored_between:
            town.harness.write()
    town.harness.settle()
    ids = [msg_id for peer in (town.alice, town.bob, stranger) for _, msg_id in receipts(peer.receive())]
    assert len(set(ids)) == 3
    assert sorted(town.history()) == [str(ALICE), str(ALICE), str(BOB)]


def test_who_has_written_half_of_an_inbox_makes_room_for_others() -> None:
    town = Town.make(messages={"inbox": 4})
    absent = 10_009
    for n in range(3):
        town.alice.whisper(absent, str(n), f"c-{n}")
    town.harness.write()
    *_, refused = town.alice.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (507, "c-2")
    assert "more from you" in refused.data["reason"]
    town.bob.whisper(absent, "of somebody else", "c-1")
    town.harness.write()
    assert len(receipts(town.bob.receive())) == 1
    assert (town.harness.metrics.inbox_share_full, town.harness.metrics.inbox_full) == (1, 0)


def test_who_has_no_account_is_written_to_only_where_that_is_allowed() -> None:
    town = Town.make(messages={"known_receivers_only": True})
    town.alice.whisper(10_009, "x", "c-1")
    town.alice.say("to the room", "c-2")
    town.harness.write()
    refused, receipt = town.alice.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (403, "c-1")
    assert refused.data["reason"] == "objectId 10009: there is no such account"
    assert receipt.body["clientMsgId"] == "c-2"
    assert town.harness.metrics.receivers_unknown == 1
    assert town.history() == ["to the room"]


@pytest.mark.parametrize("cid", ["", "c-3"])
def test_a_full_inbox_refuses_the_next_and_keeps_the_oldest(cid: str) -> None:
    town = Town.make(messages={"inbox": 2})
    absent = 10_009
    town.alice.whisper(absent, "1", "c-1")
    town.carol.whisper(absent, "2")
    town.harness.write()
    town.alice.receive()
    town.bob.whisper(absent, "3", cid)
    town.bob.whisper(CAROL, "to another")
    town.harness.write()
    (refused,) = town.bob.receive()
    assert (error_of(refused), refused.body.get("clientMsgId", "")) == (507, cid)
    assert str(absent) in refused.data["reason"]
    assert town.carol.contents() == ["to another"]
    assert town.history() == ["1", "2", "to another"]
    assert town.harness.metrics.inbox_full == 1
    town.alice.whisper(absent, "1", "c-1")  # no new one
    town.harness.write()
    assert len(receipts(town.alice.receive())) == 1
    receiver = town.harness.log_in(absent)
    town.harness.settle()
    received = receiver.receive()
    assert [packet.data["content"] for packet in received] == ["1", "2"]
    receiver.acknowledge(*ids_of(received))
    town.harness.settle()
    town.bob.whisper(absent, "3", cid)
    town.harness.settle()
    assert receiver.contents() == ["3"]
    assert_nothing_is_left(town.harness)


def test_who_has_gone_meanwhile_is_told_nothing_and_its_message_is_stored(town: Town) -> None:
    town.alice.whisper(CAROL, "x", "c-1")
    town.alice.hang_up()
    town.harness.write()
    assert town.carol.contents() == ["x"]
    assert town.harness.metrics.receipts == 0
    assert town.alice.outbox.size == 0
