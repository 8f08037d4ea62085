from __future__ import annotations

from itertools import count

import pytest

from harness import (
    BIZ,
    ERROR,
    HEARTBEAT,
    LOGIN,
    LOGOUT,
    PONG,
    ROOM_CHAT,
    Harness,
    Received,
    error_of,
    in_flight_of,
    refusal,
)


def test_who_does_not_log_in_in_time_is_told_and_closed() -> None:
    harness = Harness()
    late = harness.connect()
    harness.advance(4.75)
    assert late.receive() == []
    harness.advance(0.25)
    (answer,) = late.receive()
    assert error_of(answer) == 401
    assert answer.data["reason"] == "no login within 5 s; the connection is closed"
    assert late.shut
    assert harness.metrics.logins_timed_out == 1


def test_half_a_login_does_not_buy_time() -> None:
    harness = Harness()
    late = harness.connect()
    harness.advance(4)
    late.write(late.packet(LOGIN, appId=10_001)[:-1])
    harness.advance(1)
    assert refusal(late.receive()) == 401
    assert late.shut


def test_who_logged_in_in_time_is_left_alone() -> None:
    harness = Harness()
    in_time, late = harness.log_in(10_000), harness.connect()
    harness.advance(3)
    later = harness.connect()
    harness.advance(2)
    assert in_time.receive() == []
    assert refusal(late.receive()) == 401
    assert later.receive() == []
    assert not later.session.ended


def test_a_websocket_without_upgrade_is_closed_with_no_packet() -> None:
    harness = Harness()
    late = harness.connect_ws()
    late.write(b"GET /")
    harness.advance(5)
    assert late.receive() == []
    assert late.http == b""
    assert late.shut


def test_no_login_limit() -> None:
    harness = Harness(limits={"login_seconds": 0})
    patient = harness.connect()
    harness.advance(86_400)
    assert patient.receive() == []
    assert not patient.shut


def test_idle_for_two_heartbeats() -> None:
    harness = Harness()
    silent = harness.log_in(10_000, room=1)
    harness.advance(59.75)
    assert silent.receive() == []
    harness.advance(0.25)
    assert silent.receive() == [
        Received(LOGOUT, {"appId": 10_001, "userId": 10_000, "data": '{"reason":"idle","reconnect":true}'})
    ]
    assert silent.shut
    assert harness.metrics.sessions_idle == 1
    assert len(harness.node.hub) == 0
    assert harness.node.hub.find_room(10_001, 1) is None


def test_the_idle_time_is_two_of_the_configured_heartbeats() -> None:
    harness = Harness(session={"heartbeat_seconds": 10})
    silent = harness.log_in(10_000)
    harness.advance(19.75)
    assert not silent.session.ended
    harness.advance(0.25)
    assert silent.session.ended


def test_any_packet_is_a_sign_of_life_and_half_a_one_is_not() -> None:
    harness = Harness()
    one, other = harness.log_in(10_000), harness.log_in(10_001)
    harness.advance(59)
    one.send(4711)  # refused, and yet a sign
    other.write(other.packet(HEARTBEAT)[:-1])
    harness.advance(1)
    assert not one.session.ended
    assert other.session.ended
    harness.advance(58.75)
    assert not one.session.ended
    harness.advance(0.25)
    assert one.session.ended


def test_what_it_is_sent_is_no_sign_of_life() -> None:
    harness = Harness()
    silent, sender = harness.log_in(10_000, room=1), harness.log_in(10_001, room=1)
    harness.advance(59)
    sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 1, "content": "!"})
    harness.advance(1)
    assert silent.session.ended
    assert not sender.session.ended


def test_a_ping_is_a_sign_of_life() -> None:
    harness = Harness()
    one, other = harness.log_in_ws(10_000), harness.log_in_ws(10_001)
    harness.advance(59)
    one.write(one.masked(0x9, b"alive"))
    harness.advance(1)
    assert one.receive() == []
    assert one.pongs == [b"alive"]
    assert not one.session.ended
    assert [packet.code for packet in other.receive()] == [LOGOUT]
    assert other.close_code == 4008
    harness.advance(59)
    assert one.session.ended


def test_a_hidden_tab_stays_though_its_timers_hardly_run() -> None:
    """Chromium wakes the timers of a hidden page once a minute; the answers to pings are the browser's own."""
    harness = Harness()
    hidden = harness.log_in_ws(10_000)
    for minute in range(5):
        harness.advance(37.25)
        assert (hidden.receive(), hidden.pings) == ([], minute)
        harness.advance(0.25)
        assert (hidden.receive(), hidden.pings) == ([], minute + 1)
        hidden.write(hidden.masked(PONG, b""))
    assert not hidden.session.ended


def test_who_does_not_answer_is_idle_and_over_tcp_nobody_is_asked() -> None:
    harness = Harness()
    gone, woken = harness.log_in_ws(10_000), harness.log_in(10_001)
    harness.advance(59.75)
    assert (gone.receive(), woken.receive(), gone.pings) == ([], [], 1)
    harness.advance(0.25)
    assert [packet.code for packet in gone.receive() + woken.receive()] == [LOGOUT, LOGOUT]
    assert gone.close_code == 4008


def test_who_sends_its_heartbeats_is_not_asked() -> None:
    harness = Harness()
    lively = harness.log_in_ws(10_000)
    for _ in range(10):
        harness.advance(30)
        lively.send(HEARTBEAT)
        assert [packet.code for packet in lively.receive()] == [HEARTBEAT]
    assert lively.pings == 0


def test_a_newer_login_ends_the_older() -> None:
    harness = Harness()
    older = harness.log_in(10_000, room=1)
    newer = harness.log_in(10_000, room=1)
    assert older.receive() == [
        Received(LOGOUT, {"appId": 10_001, "userId": 10_000, "data": '{"reason":"replaced","reconnect":false}'})
    ]
    assert older.shut
    older.hang_up()  # late
    assert harness.node.hub.find(10_001, 10_000) is newer.session
    room = harness.node.hub.find_room(10_001, 1)
    assert room is not None
    assert room.members == {newer.session}
    assert older.receive() == []
    assert harness.metrics.sessions_replaced == 1
    assert newer.answer(HEARTBEAT).code == HEARTBEAT


def test_replaced_across_wires_and_back() -> None:
    harness = Harness()
    first = harness.log_in_ws(10_000)
    second = harness.log_in(10_000)
    assert [packet.data["reason"] for packet in first.receive()] == ["replaced"]
    assert first.close_code == 4001
    third = harness.log_in_ws(10_000)
    assert [packet.data["reason"] for packet in second.receive()] == ["replaced"]
    assert harness.node.hub.find(10_001, 10_000) is third.session


def test_what_the_replaced_one_still_sends_is_thrown_away() -> None:
    harness = Harness()
    listener = harness.log_in(10_001, room=1)
    older = harness.log_in(10_000, room=1)
    newer = harness.log_in(10_000)
    older.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 1, "content": "still here"})
    older.send(LOGOUT)
    older.write(b"garbage")
    assert listener.receive() == []
    assert [packet.code for packet in older.receive()] == [LOGOUT]
    assert not newer.session.ended


def test_the_same_user_of_another_app_is_somebody_else() -> None:
    harness = Harness()
    one, other = harness.log_in(10_000), harness.log_in(10_000, app=20_000)
    assert one.receive() == []
    assert not one.session.ended
    assert harness.node.hub.find(20_000, 10_000) is other.session


def test_an_open_connection_outlives_its_token() -> None:
    harness = Harness(auth={"token_seconds": 1})
    peer = harness.log_in(10_000)
    harness.advance(30)
    assert peer.answer(HEARTBEAT).body["data"] == "true"


def test_logout_by_the_client() -> None:
    harness = Harness()
    peer = harness.log_in(10_000, room=1)
    peer.send(LOGOUT)
    assert peer.receive() == [Received(LOGOUT, {"appId": 10_001, "userId": 10_000, "data": "true"})]
    assert peer.shut
    assert len(harness.node.hub) == 0
    assert harness.node.hub.find_room(10_001, 1) is None


def test_logout_on_a_websocket() -> None:
    harness = Harness()
    peer = harness.log_in_ws(10_000)
    peer.send(LOGOUT)
    assert [packet.body["data"] for packet in peer.receive()] == ["true"]
    assert peer.close_code == 1000
    assert peer.shut


def test_a_drain_tells_everybody_when_to_come_back() -> None:
    harness = Harness()
    peer, browser = harness.log_in(10_000), harness.log_in_ws(10_001)
    stranger, half = harness.connect(), harness.connect_ws()
    times = count(500)
    harness.dispatcher.drain(lambda: next(times))
    retry_after = []
    for each in (stranger, peer, browser):
        (packet,) = each.receive()
        assert packet.code == LOGOUT
        assert packet.data["reason"] == "drain"
        assert packet.data["reconnect"] is True
        retry_after.append(packet.data["retryAfterMs"])
    assert len(set(retry_after)) == 3
    assert browser.close_code == 1012
    assert half.receive() == []
    assert all(each.shut for each in (stranger, peer, browser, half))
    assert len(harness.node.hub) == 0


def test_a_slow_one_is_ended_and_the_room_goes_on() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 1000, "outbox_hard_bytes": 2000})
    slow, sender = harness.log_in(10_000, room=1), harness.log_in(10_001, room=1)
    for _ in range(100):
        sender.send(BIZ, bizCode=5556, data={"objectId": 10_000, "content": "x" * 100})
        if slow.outbox.overflowed:
            break
    assert slow.outbox in harness.dirty
    assert slow.receive() == [
        Received(LOGOUT, {"appId": 10_001, "userId": 10_000, "data": '{"reason":"slow","reconnect":true}'})
    ]
    assert slow.shut
    assert harness.metrics.sessions_slow == 1
    assert harness.node.hub.find(10_001, 10_000) is None
    assert not sender.session.ended


def test_a_slow_websocket() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 1000, "outbox_hard_bytes": 2000})
    slow = harness.log_in_ws(10_000)
    slow.write(slow.packet(HEARTBEAT) * 60)
    assert [packet.data["reason"] for packet in slow.receive()] == ["slow"]
    assert slow.close_code == 4009


def test_whoever_ended_for_another_reason_is_not_counted_as_slow() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 1000, "outbox_hard_bytes": 2000})
    slow = harness.log_in(10_000)
    slow.write(slow.packet(HEARTBEAT) * 60)
    assert slow.outbox.overflowed
    harness.log_in(10_000)
    assert [packet.data["reason"] for packet in slow.receive()] == ["replaced"]
    assert harness.metrics.sessions_slow == 0


@pytest.mark.parametrize(("last", "code"), [(b"garbage", ERROR), (None, LOGOUT)])
def test_a_slow_one_that_ends_otherwise_hears_of_that(last: bytes | None, code: int) -> None:
    harness = Harness(limits={"outbox_soft_bytes": 1000, "outbox_hard_bytes": 2000})
    slow = harness.log_in(10_000)
    slow.write(slow.packet(HEARTBEAT) * 60 + (last or slow.packet(LOGOUT)))
    (packet,) = slow.receive()
    assert packet.code == code
    assert slow.shut
    assert harness.metrics.sessions_slow == 0


def test_unused_memory_is_given_back() -> None:
    harness = Harness()
    peer = harness.log_in(10_000)
    peer.send(BIZ, bizCode=5556, data={"objectId": 10_000, "content": "to myself"})
    (message,) = peer.receive()
    harness.advance(1)
    assert in_flight_of(peer.session)
    peer.send(1005, msgId=message.body["msgId"])
    assert in_flight_of(peer.session) == {}
    assert peer.session.direct_in_flight is not None
    harness.advance(1)
    assert peer.session.direct_in_flight is None


@pytest.mark.parametrize("logged_in", [True, False])
def test_a_connection_that_is_gone_is_forgotten(logged_in: bool) -> None:
    harness = Harness()
    peer = harness.log_in(10_000, room=1) if logged_in else harness.connect()
    harness.dispatcher.closed(peer.session)
    harness.dispatcher.closed(peer.session)
    assert peer.session.ended
    assert len(harness.node.hub) == 0
    assert harness.node.hub.find_room(10_001, 1) is None
    harness.advance(100)
    assert harness.metrics.logins_timed_out == harness.metrics.sessions_idle == 0


def test_eof_ends_the_session_and_what_is_owed_is_still_there() -> None:
    harness = Harness()
    peer = harness.log_in(10_000, room=1)
    peer.send(HEARTBEAT)
    peer.shut_down()
    peer.shut_down()
    assert [packet.code for packet in peer.receive()] == [HEARTBEAT]
    assert peer.shut
    assert len(harness.node.hub) == 0
    assert harness.metrics.protocol_violations == 0


def test_eof_within_a_packet() -> None:
    harness = Harness()
    peer = harness.log_in(10_000)
    peer.write(peer.packet(HEARTBEAT)[:-1])
    peer.shut_down()
    assert harness.metrics.protocol_violations == 1
    assert peer.session.ended


def test_a_bug_ends_one_session_and_says_no_more_than_that() -> None:
    harness = Harness()
    peer, other = harness.log_in_ws(10_000, room=1), harness.log_in(10_001, room=1)
    harness.dispatcher.crashed(peer.session)
    assert peer.receive() == []
    assert peer.close_code == 1011
    assert peer.shut
    assert not other.session.ended
    assert harness.metrics.connections_crashed == 1
    assert len(harness.node.hub) == 1
