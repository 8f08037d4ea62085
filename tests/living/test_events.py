"""Enter, leave, count, closed, and likes, with time in the test's own hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import APP, BIZ, ERROR, HEARTBEAT, LOGOUT, ROOM, Client, Harness, error_of

LIKE, EVENT = 5558, 5557


def town(**living: Any) -> Harness:
    return Harness(living={"require_open_room": False, "events": True} | living)


def events_of(peer: Client) -> list[dict[str, Any]]:
    """The room events that a peer finds, and nothing else."""
    received = peer.receive()
    assert all(packet.code == BIZ and packet.body["bizCode"] == EVENT for packet in received)
    assert all("msgId" not in packet.body for packet in received)
    return [packet.data for packet in received]


def test_members_learn_who_enters_and_leaves_at_once() -> None:
    harness = town()
    one = harness.log_in(10_001, room=7, nickname="一")
    two = harness.log_in_ws(10_002, room=7, nickname="二")
    assert events_of(one) == [
        {"roomId": 7, "event": "enter", "userId": 10_002, "senderName": "二", "online": 2, "goodNum": 0}
    ]
    assert events_of(two) == []  # it knows that itself
    two.send(LOGOUT)
    assert events_of(one) == [
        {"roomId": 7, "event": "leave", "userId": 10_002, "senderName": "二", "online": 1, "goodNum": 0}
    ]


@pytest.mark.parametrize("how", ["leaves", "moves", "hangs up", "is replaced", "is idle"])
def test_leaving_is_told_however_it_comes(how: str) -> None:
    harness = town()
    one, two = harness.log_in(10_001, room=7), harness.log_in(10_002, room=7)
    harness.advance(1)
    events_of(one)
    if how == "leaves":
        two.send(ROOM, data={"roomId": None})
    elif how == "moves":
        two.send(ROOM, data={"roomId": 8})
    elif how == "hangs up":
        two.hang_up()
    elif how == "is replaced":
        harness.log_in(10_002)
    else:
        harness.advance(45)
        one.send(HEARTBEAT)
        one.receive()
        harness.advance(16)
    assert [(event["event"], event["userId"]) for event in events_of(one)[:1]] == [("leave", 10_002)]


def test_entering_the_room_one_is_in_raises_no_event() -> None:
    harness = town()
    one, two = harness.log_in(10_001, room=7), harness.log_in(10_002, room=7)
    harness.advance(1)
    events_of(one)
    two.send(ROOM, data={"roomId": 7})
    harness.advance(1)
    assert events_of(one) == []


def test_counts_come_once_a_second_and_only_when_something_changed() -> None:
    harness = town()
    one, two = harness.log_in(10_001, room=7), harness.log_in(10_002, room=7)
    events_of(one)
    for _ in range(100):
        two.send(BIZ, bizCode=LIKE, data={"roomId": 7, "count": 50})
    assert events_of(one) == events_of(two) == []
    harness.advance(1)
    assert events_of(one) == [{"roomId": 7, "event": "count", "online": 2, "goodNum": 5000}]
    assert [event["event"] for event in events_of(two)] == ["count"]
    harness.advance(1)
    assert events_of(one) == []


def test_likes_that_are_refused() -> None:
    harness = town()
    one = harness.log_in(10_001, room=7)
    for data, code in (
        ({"roomId": 8, "count": 1}, 403),
        ({"roomId": 7, "count": 0}, 400),
        ({"roomId": 7, "count": 51}, 400),
        ({"roomId": 7}, 400),
        ({"count": 1}, 400),
        ({"roomId": 7, "count": "one"}, 400),
    ):
        assert error_of(one.answer(BIZ, bizCode=LIKE, data=data)) == code
    harness.advance(1)
    assert [event["goodNum"] for event in events_of(one)] == [0]


def test_a_busy_room_goes_without_who_enters_and_keeps_the_count() -> None:
    harness = town(enter_deliveries_per_second=10)
    first = harness.log_in(10_001, room=7)
    for user in range(10_002, 10_042):
        harness.log_in(user, room=7)
    told = [event["event"] for event in events_of(first)]
    assert told == ["enter"] * 3  # 2 + 3 + 4 deliveries; the next would have been 5
    harness.advance(1)
    (count,) = events_of(first)
    assert (count["event"], count["online"]) == ("count", 41)


def test_likes_of_a_plain_room_end_with_it() -> None:
    harness = town()
    one = harness.log_in(10_001, room=7)
    one.send(BIZ, bizCode=LIKE, data={"roomId": 7, "count": 5})
    assert harness.node.room_events.likes(APP, 7) == 5
    one.send(ROOM, data={"roomId": None})
    assert harness.node.room_events.likes(APP, 7) == 0


def test_likes_of_a_living_room_outlast_its_members() -> None:
    harness = town()
    events = harness.node.room_events
    one = harness.log_in(10_001, room=7)
    one.send(BIZ, bizCode=LIKE, data={"roomId": 7, "count": 5})
    events.keep_counts(APP, 7, likes=100)
    events.keep_counts(APP, 7, likes=100)  # said again at each reading, and counted once
    assert events.likes(APP, 7) == 105
    one.hang_up()
    assert events.likes(APP, 7) == 105
    assert events.take_unstored() == {(APP, 7)}
    assert events.take_unstored() == set()
    events.put_back_unstored({(APP, 7)})
    assert events.take_unstored() == {(APP, 7)}


def test_closing_tells_the_members_and_empties_the_room() -> None:
    harness = town()
    one, two = harness.log_in(10_001, room=7), harness.log_in_ws(10_002, room=7)
    events_of(one)
    harness.node.room_directory.dissolve(7)
    for peer in (one, two):
        assert [event["event"] for event in events_of(peer)] == ["closed"]
        assert error_of(peer.answer(BIZ, bizCode=5555, data={"roomId": 7, "content": "hello?"})) == 403
    harness.advance(1)
    assert events_of(one) == []
    assert harness.node.hub.find_room(APP, 7) is None


def test_closing_is_told_to_slow_members_too() -> None:
    harness = Harness(
        living={"require_open_room": False, "events": True},
        limits={"outbox_soft_bytes": 1000, "outbox_hard_bytes": 10_000},
    )
    one, two = harness.log_in(10_001, room=7), harness.log_in_ws(10_002, room=7)
    events_of(one)
    for _ in range(10):
        two.say("x" * 200)
    assert one.outbox.size >= 1000
    harness.log_in(10_003, room=7)  # of which it is not told
    harness.node.room_directory.dissolve(7)
    received = one.receive()
    assert error_of(received[-2]) == 206
    assert [packet.data["event"] for packet in received if packet.body.get("bizCode") == EVENT] == ["closed"]
    assert received[-1].data["event"] == "closed"
    assert harness.node.in_flight.deliveries == 0


def test_closing_is_told_even_where_events_are_not_wanted() -> None:
    harness = Harness()
    one = harness.log_in(10_001, room=7)
    harness.log_in(10_002, room=7)
    harness.advance(1)
    assert events_of(one) == []
    harness.node.room_directory.dissolve(7)
    assert [event["event"] for event in events_of(one)] == ["closed"]


@pytest.mark.property
@given(st.lists(st.tuples(st.sampled_from("eltmL"), st.integers(0, 5), st.integers(1, 3)), max_size=60))
def test_the_last_count_is_the_truth(moves: list[tuple[str, int, int]]) -> None:
    """Whatever is done in rooms, once a second is over the last event of each room shows its members and likes."""
    harness = town(enter_deliveries_per_second=6)
    peers = {user: harness.log_in(10_001 + user) for user in range(6)}
    where: dict[int, int | None] = dict.fromkeys(peers)
    likes: dict[int, int] = {}
    for move, user, room in moves:
        if move == "e":
            peers[user].send(ROOM, data={"roomId": room})
            where[user] = room
        elif move == "l":
            peers[user].send(ROOM, data={"roomId": None})
            where[user] = None
        elif move == "m" and where[user] is not None:
            peers[user].send(BIZ, bizCode=LIKE, data={"roomId": where[user], "count": room})
            likes[where[user]] = likes.get(where[user], 0) + room  # type: ignore[index, arg-type]
        elif move == "t":
            harness.advance(1)
        for number in list(likes):
            if number not in where.values():
                del likes[number]  # a plain room ends with its last member
    harness.advance(1)
    for user, peer in peers.items():
        data = [packet.data for packet in peer.receive() if packet.code == BIZ]
        if where[user] is not None:
            last = [event for event in data if event["roomId"] == where[user]][-1]
            online = sum(place == where[user] for place in where.values())
            assert (last["online"], last["goodNum"]) == (online, likes.get(where[user] or 0, 0))
        assert all(packet.code != ERROR for packet in peer.receive())
