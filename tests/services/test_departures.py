"""What came before a good-bye is answered before it, however the peer says it and whatever is waited for."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import (
    ACK,
    BIZ,
    CLOSE,
    DIRECT,
    ERROR,
    HEARTBEAT,
    LOGOUT,
    ROOM,
    ROOM_CHAT,
    Client,
    Harness,
    WsClient,
    assert_nothing_is_left,
    error_of,
    receipts,
)
from qiyu.services.departures import DEPARTURE_SECONDS

LEAVER, MEMBER = 10_000, 10_001

WAYS = ["end of stream", "LOGOUT", "garbage", "close frame"]
WIRES_AND_WAYS = [(ws, way) for ws in (False, True) for way in WAYS if ws or way != "close frame"]
EACH_WAY = pytest.mark.parametrize(("ws", "way"), WIRES_AND_WAYS)


def logged_in(harness: Harness, user: int, *, ws: bool, room: int | None = None) -> Client:
    return harness.log_in_ws(user, room=room) if ws else harness.log_in(user, room=room)


def entry(peer: Client) -> bytes:
    """A packet that is held: only the database knows what came after that message."""
    return peer.packet(ROOM, data={"roomId": 7, "afterMsgId": "1"})


def chat(peer: Client, client_msg_id: str = "") -> bytes:
    return peer.packet(
        BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": client_msg_id or "at once"}, clientMsgId=client_msg_id
    )


def whisper(peer: Client, client_msg_id: str) -> bytes:
    """A packet that waits to be stored."""
    data = {"objectId": MEMBER, "content": client_msg_id}
    return peer.packet(BIZ, bizCode=DIRECT, data=data, clientMsgId=client_msg_id)


def leave(peer: Client, way: str, before: bytes) -> None:
    """Write what comes before the good-bye, and the good-bye in the same write."""
    if way == "LOGOUT":
        peer.write(before + peer.packet(LOGOUT) + whisper(peer, "too late"))
    elif way == "garbage":
        peer.write(before + (peer.masked(0x3, b"") if isinstance(peer, WsClient) else b"\0\0"))
    elif way == "close frame":
        assert isinstance(peer, WsClient)
        peer.write(before + peer.masked(CLOSE, struct.pack(">H", 1000)) + whisper(peer, "too late"))
    else:
        peer.write(before)
        peer.shut_down()


def assert_good_bye(peer: Client, way: str, code: int | None) -> None:
    """The last packet that came, and how the connection ended."""
    assert peer.shut
    assert peer.session.ended
    assert code == {"LOGOUT": LOGOUT, "garbage": ERROR}.get(way)
    if isinstance(peer, WsClient):
        assert peer.close_code == (1002 if way == "garbage" else 1000)


@EACH_WAY
def test_who_waits_for_nothing_goes_at_once(ws: bool, way: str) -> None:
    harness = Harness()
    peer = logged_in(harness, LEAVER, ws=ws)
    leave(peer, way, peer.packet(HEARTBEAT))
    answer, *good_bye = peer.receive()
    assert answer.code == HEARTBEAT
    assert_good_bye(peer, way, good_bye[0].code if good_bye else None)
    assert len(harness.node.departures) == 0


@EACH_WAY
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("stored_before", [False, True])
@pytest.mark.parametrize("stored_after", [False, True])
def test_what_came_before_the_good_bye_is_answered_first(
    ws: bool, way: str, held: bool, stored_before: bool, stored_after: bool
) -> None:
    harness = Harness()
    harness.stores_at_once = False
    member = harness.log_in(MEMBER, room=7)
    peer = logged_in(harness, LEAVER, ws=ws, room=None if held else 7)
    harness.settle()
    before = whisper(peer, "before") if stored_before else b""
    before += entry(peer) + chat(peer) if held else chat(peer)
    before += chat(peer, "after") if stored_after else b""
    leave(peer, way, before + peer.packet(HEARTBEAT))
    waits = held or stored_before or stored_after
    assert peer.session.ended is not waits
    assert (harness.node.hub.find(10_001, LEAVER) is peer.session) is waits

    harness.settle()
    answers = peer.receive()
    codes = [packet.code for packet in answers]
    assert [cid for cid, _ in receipts(answers)] == ["before"] * stored_before + ["after"] * stored_after
    assert codes.count(ROOM) == held
    assert codes.count(HEARTBEAT) == 1
    assert_good_bye(peer, way, codes[-1] if codes[-1] in {LOGOUT, ERROR} else None)
    assert member.contents() == ["before"] * stored_before + ["at once"] + ["after"] * stored_after
    peer.hang_up()
    member.hang_up()
    assert_nothing_is_left(harness)
    assert len(harness.node.departures) == 0


@EACH_WAY
def test_a_refusal_that_comes_late_comes_before_the_good_bye(ws: bool, way: str) -> None:
    """A database that fails refuses what waits, and that is an answer too."""
    harness = Harness()
    harness.stores_at_once = False
    peer = logged_in(harness, LEAVER, ws=ws)
    harness.settle()
    leave(peer, way, whisper(peer, "a"))
    harness.lose(harness.take())
    refusal, *good_bye = peer.receive()
    assert error_of(refusal) == 503
    assert refusal.body["clientMsgId"] == "a"
    assert_good_bye(peer, way, good_bye[0].code if good_bye else None)


@EACH_WAY
@pytest.mark.parametrize("held", [False, True])
def test_a_database_that_does_not_answer_keeps_nobody_for_ever(ws: bool, way: str, held: bool) -> None:
    harness = Harness()
    harness.stores_at_once = False
    peer = logged_in(harness, LEAVER, ws=ws)
    harness.settle()
    leave(peer, way, entry(peer) + whisper(peer, "a") if held else whisper(peer, "a"))
    harness.advance(DEPARTURE_SECONDS - 0.25)
    assert not peer.session.ended
    assert repr(harness.node.departures) == ("<Departures 0>" if held and way == "LOGOUT" else "<Departures 1>")
    if held and way == "LOGOUT":  # it is held itself, and the entry before it is answered in time or refused
        return
    harness.advance(0.25)
    received = peer.receive()
    assert_good_bye(peer, way, received[-1].code if received else None)
    peer.hang_up()
    harness.settle()  # it comes too late for the sender, and is stored all the same
    assert_nothing_is_left(harness)


@EACH_WAY
def test_who_is_gone_altogether_is_forgotten_at_once(ws: bool, way: str) -> None:
    harness = Harness()
    harness.stores_at_once = False
    peer = logged_in(harness, LEAVER, ws=ws)
    harness.settle()
    leave(peer, way, whisper(peer, "a") + entry(peer))
    harness.dispatcher.closed(peer.session)  # a reset
    assert len(harness.node.departures) == 0
    assert harness.node.hub.find(10_001, LEAVER) is None
    harness.settle()
    assert peer.receive() == []
    assert_nothing_is_left(harness)


@EACH_WAY
def test_who_logs_in_anew_meanwhile_replaces_the_one_that_is_leaving(ws: bool, way: str) -> None:
    harness = Harness()
    harness.stores_at_once = False
    peer = logged_in(harness, LEAVER, ws=ws)
    harness.settle()
    leave(peer, way, whisper(peer, "a"))
    newer = harness.log_in(LEAVER)
    assert [packet.data["reason"] for packet in peer.receive()] == ["replaced"]
    assert peer.shut
    harness.settle()
    assert peer.receive() == []
    assert harness.node.hub.find(10_001, LEAVER) is newer.session
    harness.advance(DEPARTURE_SECONDS)
    assert not newer.session.ended


def test_acknowledgements_count_until_the_good_bye() -> None:
    """After LOGOUT too, while that waits: an ACK is good whenever it comes."""
    harness = Harness()
    peer, member = harness.log_in(LEAVER), harness.log_in(MEMBER)
    member.whisper(LEAVER, "for you")
    harness.stores_at_once = False
    (message,) = peer.receive()
    peer.write(whisper(peer, "a") + peer.packet(LOGOUT))
    peer.send(ACK, msgId=message.body["msgId"])
    harness.settle()
    assert [packet.code for packet in peer.receive()] == [ACK, LOGOUT]
    assert harness.metrics.inbox_acknowledged == 1
    again = harness.log_in(LEAVER)
    harness.settle()
    assert again.receive() == []


@pytest.mark.property
@given(
    st.sampled_from(WIRES_AND_WAYS),
    st.lists(st.sampled_from(["entry", "stored", "at once", "heartbeat"]), max_size=6),
    st.lists(st.sampled_from(["write", "read"]), max_size=6),
)
def test_every_packet_before_a_good_bye_has_its_answer(
    wire_and_way: tuple[bool, str], packets: list[str], steps: list[str]
) -> None:
    """Whatever is sent before a good-bye, and in whatever order the database answers, each packet gets the answer that
    it would have had without the good-bye, once, and the good-bye is the last."""
    ws, way = wire_and_way
    harness = Harness()
    harness.stores_at_once = False
    peer = logged_in(harness, LEAVER, ws=ws)
    harness.settle()
    sent = b""
    for number, kind in enumerate(packets):
        sent += {
            "entry": entry(peer),
            "stored": whisper(peer, f"c{number}"),
            "at once": whisper(peer, ""),
            "heartbeat": peer.packet(HEARTBEAT),
        }[kind]
    leave(peer, way, sent)
    for step in steps:
        (harness.write if step == "write" else harness.read)()
    harness.settle()
    received = peer.receive()
    codes = [packet.code for packet in received]
    assert codes.count(ROOM) == packets.count("entry")
    assert codes.count(HEARTBEAT) == packets.count("heartbeat")
    wanted = [f"c{number}" for number, kind in enumerate(packets) if kind == "stored"]
    assert [client_msg_id for client_msg_id, _ in receipts(received)] == wanted
    assert_good_bye(peer, way, codes[-1] if codes and codes[-1] in {LOGOUT, ERROR} else None)
    assert len(codes) == len(packets) - packets.count("at once") + (way in {"LOGOUT", "garbage"})
