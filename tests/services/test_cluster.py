"""Several cores with one database: what they do for each other, step by step."""

from __future__ import annotations

import pytest

from harness import BIZ, ERROR, LOGOUT, ROOM, Client, error_of, receipts
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
