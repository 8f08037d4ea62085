from __future__ import annotations

import pytest

from harness import HEARTBEAT, LOGOUT, Harness, Received


@pytest.mark.parametrize("ws", [False, True])
def test_it_is_answered_and_closed(ws: bool) -> None:
    harness = Harness()
    peer = (harness.log_in_ws if ws else harness.log_in)(10_002, room=7)
    assert peer.answer(LOGOUT) == Received(LOGOUT, {"appId": 10_001, "userId": 10_002, "data": "true"})
    assert peer.shut
    assert peer.close_code == (1000 if ws else None)
    assert harness.node.hub.find(10_001, 10_002) is None
    assert harness.node.hub.find_room(10_001, 7) is None


def test_what_was_sent_before_is_answered_and_what_comes_after_is_not() -> None:
    peer = Harness().log_in(10_002)
    peer.write(peer.packet(HEARTBEAT) + peer.packet(LOGOUT) + peer.packet(HEARTBEAT))
    assert [packet.code for packet in peer.receive()] == [HEARTBEAT, LOGOUT]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'{"data":7}'])
def test_its_body_is_not_looked_at(body: bytes) -> None:
    peer = Harness().log_in(10_002)
    peer.write(peer.frame(LOGOUT, body))
    assert [packet.code for packet in peer.receive()] == [LOGOUT]
