from __future__ import annotations

import pytest

from harness import HEARTBEAT, Harness, Received


@pytest.mark.parametrize("ws", [False, True])
@pytest.mark.parametrize("fields", [{}, {"data": "anything", "userId": 1, "msgId": "5"}])
def test_it_is_answered_to_who_sent_it(ws: bool, fields: dict[str, object]) -> None:
    harness = Harness()
    peer = (harness.log_in_ws if ws else harness.log_in)(10_002, app=10_003)
    assert peer.answer(HEARTBEAT, **fields) == Received(HEARTBEAT, {"appId": 10_003, "userId": 10_002, "data": "true"})


def test_each_is_answered() -> None:
    peer = Harness().log_in(10_002)
    peer.write(peer.packet(HEARTBEAT) * 3)
    assert [packet.code for packet in peer.receive()] == [HEARTBEAT] * 3


def test_it_keeps_the_session() -> None:
    harness = Harness()
    peer, silent = harness.log_in(10_002), harness.log_in(10_003)
    for _ in range(4):
        harness.advance(20)
        peer.send(HEARTBEAT)
    assert not peer.session.ended
    assert silent.session.ended


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'{"data":7}'])
def test_its_body_is_not_looked_at(body: bytes) -> None:
    peer = Harness().log_in(10_002)
    peer.write(peer.frame(HEARTBEAT, body))
    assert [packet.code for packet in peer.receive()] == [HEARTBEAT]
