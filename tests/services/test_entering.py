"""The steps into a room, the database's answers in the test's own hand. What is missed is test_catch_up's business."""

from __future__ import annotations

from functools import partial

import pytest

from harness import BIZ, HEARTBEAT, ROOM, Client, Harness, error_of, refusal
from qiyu.errors import ErrorCode, Refused
from qiyu.services import lookups
from qiyu.services.entering import Entry
from qiyu.storage.living_rooms import LivingRoom

VIEWER = 10_002


class Town(Harness):
    """An instance that requires rooms to be open; a test says which the database has."""

    def __init__(self) -> None:
        super().__init__(living={"require_open_room": True, "events": False})

    def open(self, room_id: int) -> LivingRoom:
        room = LivingRoom(room_id, 10_001, 1, "a room", "", 0, 0, 1)
        self.node.room_directory.started(room, self.now)
        return room

    def close(self, room: LivingRoom) -> None:
        self.node.room_directory.closed(room, self.now)

    def look_up(self, is_open: bool | None) -> None:
        """Answer all who wait, as the driver does."""
        for entries in self.node.entering.lookups.take_all().values():
            for session, found in entries:
                self.dispatcher.resume(session, partial(found, is_open), self.now)


@pytest.fixture
def town() -> Town:
    return Town()


def enter(viewer: Client, room_id: int, **data: object) -> None:
    viewer.send(ROOM, data={"roomId": room_id} | data, clientMsgId="c-1")


def is_in(viewer: Client, room_id: int | None) -> bool:
    room = viewer.session.room
    return (None if room is None else room.id) == room_id


def test_a_room_that_is_open_is_entered_at_once(town: Town) -> None:
    town.open(7)
    viewer = town.log_in(VIEWER)
    enter(viewer, 7)
    (answer,) = viewer.receive()
    assert (answer.code, answer.data) == (ROOM, {"roomId": 7, "online": 1, "lastMsgId": ""})
    assert len(town.node.entering.lookups) == 0


@pytest.mark.parametrize(("is_open", "code"), [(True, 0), (False, 404), (None, 503)])
def test_of_another_the_database_is_asked_while_the_session_waits_where_it_is(
    town: Town, is_open: bool | None, code: int
) -> None:
    town.open(7)
    viewer = town.log_in(VIEWER, room=7)
    enter(viewer, 8)
    viewer.send(HEARTBEAT)
    assert viewer.receive() == []
    assert is_in(viewer, 7)
    assert repr(town.node.entering) == "<Entering <LookUps of 1 for 1 sessions>>"
    town.look_up(is_open)
    town.settle()  # of an open one, it is asked as well which message is the newest
    answer, heartbeat = viewer.receive()
    assert heartbeat.code == HEARTBEAT
    if is_open:
        assert (answer.code, answer.data["roomId"]) == (ROOM, 8)
    else:
        assert (error_of(answer), answer.body["clientMsgId"]) == (code, "c-1")
    assert is_in(viewer, 8 if is_open else 7)


def test_whoever_would_wait_beyond_the_bound_is_told_so_and_may_try_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "WAITING_SESSIONS", 1)
    first, second = town.log_in(VIEWER), town.log_in(VIEWER + 1)
    enter(first, 7)
    enter(second, 7)
    assert refusal(second.receive()) == 503
    assert second.session.held is None
    town.look_up(is_open=True)
    enter(second, 7)
    town.look_up(is_open=True)
    assert is_in(first, 7)
    assert is_in(second, 7)


def test_a_room_that_closes_while_what_was_missed_is_read_is_not_entered(town: Town) -> None:
    room = town.open(7)
    viewer = town.log_in(VIEWER)
    town.stores_at_once = False
    enter(viewer, 7, afterMsgId="1")
    assert viewer.receive() == []
    town.close(room)
    town.settle()
    assert refusal(viewer.receive()) == 404
    assert is_in(viewer, None)


def test_it_waits_twice_where_the_database_has_both_answers(town: Town) -> None:
    viewer = town.log_in(VIEWER)
    town.stores_at_once = False
    enter(viewer, 7, afterMsgId="1")
    viewer.send(BIZ, bizCode=5558, data={"roomId": 7, "count": 1})
    town.look_up(is_open=True)
    assert viewer.receive() == []
    assert is_in(viewer, None)
    town.settle()
    (answer,) = viewer.receive()  # and the like was refused to nobody
    assert answer.data == {"roomId": 7, "online": 1, "lastMsgId": "", "recovered": True}


def test_a_login_is_not_answered_twice(town: Town) -> None:
    town.open(7)
    viewer = town.log_in(VIEWER, room=7)
    assert viewer.receive() == []
    assert is_in(viewer, 7)


def test_whoever_ends_while_it_waits_enters_nothing(town: Town) -> None:
    viewer = town.log_in(VIEWER)
    enter(viewer, 7)
    viewer.hang_up()
    town.look_up(is_open=True)
    assert town.node.hub.find_room(10_001, 7) is None


def test_leaving_is_answered_wherever_one_is(town: Town) -> None:
    town.open(7)
    viewer = town.log_in(VIEWER, room=7)
    for _ in range(2):
        town.node.entering.leave(viewer.session)
        (answer,) = viewer.receive()
        assert (answer.code, answer.data) == (ROOM, {"roomId": None, "online": 0})
        assert is_in(viewer, None)


def test_an_error_names_the_room_and_the_packet(town: Town) -> None:
    entry = Entry(town.log_in(VIEWER).session, 7, client_msg_id="mine")
    town.node.room_directory.remember(7, None, town.now)
    with pytest.raises(Refused) as refused:
        town.node.entering.begin(entry, town.now)
    assert (refused.value.code, refused.value.reason) == (ErrorCode.NO_SUCH_ROOM, "roomId 7: no such open room")
    assert refused.value.client_msg_id == "mine"


def test_the_answer_names_the_newest_message_of_the_room(town: Town) -> None:
    town.open(7)
    one, two = town.log_in(VIEWER, room=7), town.log_in(VIEWER + 1)
    assert two.answer(ROOM, data={"roomId": 7}).data["lastMsgId"] == ""
    one.say("first")
    one.say("second", "a")
    _, second = [packet.body["msgId"] for packet in two.receive()]
    assert two.answer(ROOM, data={"roomId": 7}).data["lastMsgId"] == second
    three = town.log_in(VIEWER + 2)
    assert three.answer(ROOM, data={"roomId": 7}).data["lastMsgId"] == second


def test_after_a_restart_the_database_says_which_that_is() -> None:
    before = Harness()
    one, two = before.log_in(VIEWER, room=7), before.log_in(VIEWER + 1, room=7)
    one.say("kept", "a")
    (kept,) = [packet.body["msgId"] for packet in two.receive()]
    after = Harness(before.store)
    after.stores_at_once = False
    one, two = after.log_in(VIEWER), after.log_in(VIEWER + 1)
    after.settle()
    for peer in (one, two):
        peer.send(ROOM, data={"roomId": 7})
        assert peer.receive() == []  # held until the room has been read, once for both
    after.settle()
    assert [peer.receive()[0].data["lastMsgId"] for peer in (one, two)] == [kept, kept]
    one.send(ROOM, data={"roomId": 7})
    assert one.receive_first().data["lastMsgId"] == kept  # memory knows


def test_a_message_that_waits_is_not_the_newest_yet_and_comes_after_the_answer() -> None:
    harness = Harness()
    one, two = harness.log_in(VIEWER, room=7), harness.log_in(VIEWER + 1, room=7)
    two.answer(ROOM, data={"roomId": 7})
    harness.stores_at_once = False
    one.say("waits", "a")
    two.send(ROOM, data={"roomId": 7})
    assert two.receive_first().data["lastMsgId"] == ""
    harness.settle()
    assert two.contents() == ["waits"]


@pytest.mark.parametrize("kept_above", [0, 10**18])
def test_who_saw_an_empty_room_comes_back_to_all_that_was_said(kept_above: int) -> None:
    harness = Harness()
    harness.store.kept_above = kept_above
    one, two = harness.log_in(VIEWER, room=7), harness.log_in(VIEWER + 1)
    assert two.answer(ROOM, data={"roomId": 7}).data["lastMsgId"] == ""
    two.answer(ROOM, data={"roomId": None})
    for number in range(3):
        one.say(str(number))
    two.send(ROOM, data={"roomId": 7, "afterMsgId": "0"})
    answer = two.receive_first()
    assert answer.data["recovered"] is True
    assert two.contents() == ["0", "1", "2"]


def test_a_database_that_does_not_answer_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer then names a msgId after which all that is said from now on comes."""
    harness = Harness()
    harness.stores_at_once = False
    one, two = harness.log_in(VIEWER, room=7), harness.log_in(VIEWER + 1)
    harness.settle()
    two.send(ROOM, data={"roomId": 7})
    for session, loaded in harness.node.catch_up.take_all():
        harness.dispatcher.resume(session, loaded, harness.now)
    place = two.receive_first().data["lastMsgId"]
    two.send(ROOM, data={"roomId": None})
    one.say("said since")
    monkeypatch.setattr(lookups, "WAITING_SESSIONS", 0)
    two.send(ROOM, data={"roomId": 7, "afterMsgId": place})
    left, answer, message = two.receive()
    assert (left.data["roomId"], answer.data["recovered"]) == (None, True)
    assert (message.data["content"], message.body["msgId"]) == ("said since", answer.data["lastMsgId"])
    two.send(ROOM, data={"roomId": 8})  # too many wait
    assert two.receive_first().data["roomId"] == 8
