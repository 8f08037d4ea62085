"""Several cores with one database: what they do for each other, step by step."""

from __future__ import annotations

import pytest

from harness import BIZ, ERROR, LOGOUT, ROOM, Client, error_of, receipts
from qiyu.errors import PresenceUnavailable
from qiyu.protocol.packet import BizCode
from qiyu.services import rooms_here
from qiyu.services.homes import RoomKey, State
from several import Member, Several

ANNA, BERT, CLEO = 20_001, 20_002, 20_003
HALL = RoomKey(10_001, 7)


def enter(several: Several, peer: Client, after: str = "") -> dict[str, object]:
    peer.send(ROOM, data={"roomId": 7, **({"afterMsgId": after} if after else {})})
    several.settle()
    answer = peer.receive_first()
    assert answer.code == ROOM
    data: dict[str, object] = answer.data
    return data


def heard(peer: Client) -> list[str]:
    return [packet.data["content"] for packet in peer.receive() if packet.code == BIZ]


def together(number: int = 2) -> tuple[Several, list[Member], list[Client]]:
    """One in the hall on each instance; the first has its home."""
    several = Several(number)
    peers: list[Client] = []
    for member, user in zip(several.members, (ANNA, BERT, CLEO), strict=False):
        peer = member.log_in(user)
        several.settle()
        enter(several, peer)
        several.settle()
        peers.append(peer)
    states = [member.cluster.homes.find(HALL) for member in several.members]
    assert [room.state for room in states if room] == [State.HOME] + [State.JOINED] * (number - 1)
    return several, several.members, peers


def test_what_is_said_anywhere_comes_everywhere_in_one_order() -> None:
    several, _, (anna, bert, cleo) = together(3)
    for n in range(3):
        for peer, name in ((anna, "a"), (bert, "b"), (cleo, "c")):
            peer.say(f"{name}{n}", cid=f"{name}{n}")
    several.settle()
    packets = [peer.receive() for peer in (anna, bert, cleo)]
    assert [len(receipts(each)) for each in packets] == [3, 3, 3]
    stored = {packet.body["msgId"]: packet.data["content"] for each in packets for packet in each if packet.code == BIZ}
    order = [content for _, content in sorted(stored.items())]
    for each, own in zip(packets, "abc", strict=True):
        got = [packet.data["content"] for packet in each if packet.code == BIZ]
        assert got == [content for content in order if content[0] != own]


def test_a_cut_holds_up_what_is_said_and_loses_nothing() -> None:
    several, (one, two), (anna, bert) = together()
    several.cut(one, two)
    anna.say("a", cid="a")
    several.settle()
    bert.say("b", cid="b")  # kept for a second
    several.pass_time(1.5)
    bert.say("c", cid="c")
    several.settle()
    (refused,) = bert.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (503, "c")
    several.mend(one, two)
    several.pass_time(1)
    assert heard(bert) == ["a"]
    assert heard(anna) == ["b"]


def test_more_than_memory_has_is_read_from_the_database() -> None:
    several, (one, two), (anna, bert) = together()
    anna.say("before", cid="before")
    several.settle()
    assert heard(bert) == ["before"]
    several.cut(one, two)
    for n in range(5):
        anna.say(f"m{n}", cid=f"m{n}")
    several.settle()
    ring = one.node.rings.find(HALL)
    assert ring is not None
    while len(ring.items) > 2:
        one.node.rings._forget_oldest(ring)
    several.mend(one, two)
    anna.say("live", cid="live")
    several.pass_time(1)
    assert heard(bert) == [*(f"m{n}" for n in range(5)), "live"]
    assert not two.cluster.rooms._fills


def test_more_than_anybody_is_sent_is_told_as_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_here, "RING_MESSAGES", 6)
    monkeypatch.setattr(rooms_here, "CATCH_UP_MESSAGES", 4)
    several, (one, two), (anna, bert) = together()
    several.cut(one, two)
    for n in range(9):
        anna.say(f"m{n}", cid=f"m{n}")
    several.settle()
    ring = one.node.rings.find(HALL)
    assert ring is not None
    one.node.rings._forget_oldest(ring)
    several.mend(one, two)
    several.pass_time(1)
    first, *rest = bert.receive()
    assert error_of(first) == 206
    contents = [packet.data["content"] for packet in rest if packet.code == BIZ]
    assert contents[-4:] == ["m5", "m6", "m7", "m8"]
    assert two.metrics.room_gaps == 1


def test_the_room_of_a_dead_instance_goes_on_where_its_members_are() -> None:
    several, (one, two, three), (anna, bert, cleo) = together(3)
    anna.say("a", cid="a")
    several.settle()
    bert.say("b", cid="b")  # on its way to the home
    bert.receive()
    several.fence(one)
    several.settle()
    assert heard(cleo) == ["a", "b"]
    assert receipts(bert.receive())[0][0] == "b"
    rooms = [member.cluster.homes.find(HALL) for member in (two, three)]
    assert {room.state for room in rooms if room} == {State.HOME, State.JOINED}


def test_a_home_is_handed_over_with_all_that_was_accepted() -> None:
    several, (one, two), (anna, bert) = together()
    anna.say("a", cid="a")
    one.cluster.drain()
    one.dispatcher.drain(lambda: 500)
    several.pass_time(1)
    assert heard(bert) == ["a"]
    assert one.cluster.homes.is_idle
    room = two.cluster.homes.find(HALL)
    assert room is not None
    assert room.state is State.HOME
    bert.say("b", cid="b")
    several.settle()
    assert receipts(bert.receive())[0][0] == "b"


def test_direct_messages_find_their_receiver_and_come_once() -> None:
    several, (one, two), (anna, bert) = together()
    anna.whisper(BERT, "d", cid="d")
    several.settle()
    assert heard(bert) == ["d"]
    two.node.replays.read(bert.session)  # something may have been missed
    several.settle()
    assert heard(bert) == []
    anna.whisper(BERT, "e", cid="e")
    several.settle()
    assert heard(bert) == ["e"]
    assert one.metrics.directs_sent_on == 2


def test_a_direct_message_of_the_time_of_a_cut_comes_with_the_inbox() -> None:
    several, (one, two), (anna, bert) = together()
    several.cut(one, two)
    anna.whisper(BERT, "d", cid="d")
    several.settle()
    assert heard(bert) == []
    several.mend(one, two)
    several.pass_time(2)
    assert heard(bert) == ["d"]


def test_the_newer_login_stands() -> None:
    several, (_, two), (anna, bert) = together()
    again = two.log_in(ANNA)
    several.settle()
    assert anna.receive()[-1].code == LOGOUT
    bert.whisper(ANNA, "d", cid="d")
    several.settle()
    assert heard(again) == ["d"]


def test_members_of_a_room_whose_home_stays_away_are_sent_away() -> None:
    several, (one, two), (_, bert) = together()
    several.cut(one, two)
    several.pass_time(11)
    assert bert.receive()[-1].code == LOGOUT
    late = two.log_in(CLEO)
    late.send(ROOM, data={"roomId": 7})
    several.pass_time(11)
    assert late.receive()[-1].code == ERROR
    assert two.metrics.rooms_lost == 1


def test_a_message_that_no_link_carries_is_refused() -> None:
    several = Several(2, limits={"content_chars": 0, "body_bytes": 0})
    anna = several.members[0].log_in(ANNA, room=7)
    several.settle()
    anna.receive()
    anna.say("x" * 100_001, cid="long")
    (refused,) = anna.receive()
    assert error_of(refused) == 400


def test_rooms_are_counted_where_they_are_at_home_and_told_everywhere() -> None:
    several = Several(3, living={"require_open_room": False, "events": True})
    one, two, three = several.members
    peers = []
    for member, user in zip(several.members, (ANNA, BERT, CLEO), strict=True):
        peer = member.log_in(user)
        several.settle()
        enter(several, peer)
        several.pass_time(1)
        peers.append(peer)
    for peer in peers:
        peer.receive()
    peers[1].send(BIZ, bizCode=BizCode.LIKE, data={"roomId": 7, "count": 5})
    peers[2].send(BIZ, bizCode=BizCode.LIKE, data={"roomId": 7, "count": 6})
    several.pass_time(3)
    for peer in peers:
        last = [packet.data for packet in peer.receive() if packet.data.get("event") == "count"][-1]
        assert (last["online"], last["goodNum"]) == (3, 11)
    peers[2].send(ROOM, data={"roomId": None})
    several.settle()
    for peer in peers[:2]:
        (left,) = [packet.data for packet in peer.receive() if packet.data.get("event") == "leave"]
        assert left["userId"] == CLEO
    several.pass_time(3)
    assert [member.node.room_events.members(*HALL) for member in (one, two)] == [2, 2]
    assert one.node.room_events.counts(*HALL).visits == 3
    assert one.node.room_events.counts(*HALL).peak == 3
    assert [member.cluster.reports.is_home(HALL) for member in (one, two, three)] == [True, False, False]
    several.fence(one)
    peers[1].receive()
    several.pass_time(2)
    (count,) = [packet.data for packet in peers[1].receive() if packet.data.get("event") == "count"][-1:] or [{}]
    assert two.node.room_events.members(*HALL) == 1
    assert two.node.room_events.counts(*HALL).likes == 11
    assert count.get("online", 1) == 1


def test_clients_are_sent_where_the_fewest_are() -> None:
    several, (one, two), _ = together()
    for user in range(30_001, 30_004):
        one.log_in(user)
    several.pass_time(8)  # until each has told the other
    assert [one.cluster.least_loaded().number for _ in range(3)] == [two.me.number] * 3
    assert (
        one.cluster.least_loaded().number == one.me.number
    )  # three have been sent there since it said how many it has
    two.cluster.is_draining = True
    several.pass_time(8)
    assert {one.cluster.least_loaded().number for _ in range(9)} == {one.me.number}


def test_what_is_amiss_is_said() -> None:
    several, (one, two), _ = together()
    several.pass_time(4)
    assert one.cluster.reasons() == []
    several.presence.failure = PresenceUnavailable("away")
    several.cut(one, two)
    one.log_in(CLEO)
    several.pass_time(8)
    reasons = " / ".join(one.cluster.reasons())
    assert "Redis does not answer" in reasons
    assert "1 users cannot be found" in reasons
    several.presence.failure = None
    several.presence.empty()
    several.mend(one, two)
    several.pass_time(5)
    assert one.cluster.reasons() == []
