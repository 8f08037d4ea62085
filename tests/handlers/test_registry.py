from __future__ import annotations

import pytest

from documents import table
from harness import BIZ, ERROR, LOGIN, Harness, WsClient
from qiyu.handlers.registry import LOGGED_IN, NOT_LOGGED_IN, UPGRADING, tcp_door, ws_door
from qiyu.protocol.packet import MsgCode


def test_every_code_that_a_client_sends_has_a_handler() -> None:
    sent = {int(code) for code, _, by_client, _ in table("protocol.md", "### Codes") if by_client not in {"–", "-"}}
    states = (UPGRADING, NOT_LOGGED_IN, LOGGED_IN)
    assert {int(code) for state in states for code in state.handlers} == sent


def test_before_the_login_there_is_only_the_login() -> None:
    assert set(UPGRADING.handlers) == {MsgCode.WS_HANDSHAKE}
    assert set(NOT_LOGGED_IN.handlers) == {MsgCode.LOGIN}
    assert not set(LOGGED_IN.handlers) & {MsgCode.WS_HANDSHAKE, MsgCode.ERROR}
    assert [state.take_acks is None for state in (UPGRADING, NOT_LOGGED_IN, LOGGED_IN)] == [True, True, False]


@pytest.mark.parametrize("code", [code for code in MsgCode if code is not MsgCode.LOGIN])
def test_nothing_else_is_handled_before_it(code: MsgCode) -> None:
    harness = Harness()
    nobody = harness.connect()
    nobody.send(code)
    (error,) = nobody.receive()
    assert (error.code, error.data["code"]) == (ERROR, 401)
    assert nobody.shut


def test_a_second_login_is_ignored() -> None:
    harness = Harness()
    peer = harness.log_in(10_002, room=7)
    peer.send(LOGIN, appId=10_001, userId=10_003, token=harness.token(10_003))
    peer.send(BIZ, bizCode=5558, data={"roomId": 7, "count": 1})
    assert peer.receive() == []
    assert peer.session.user_id == 10_002


@pytest.mark.parametrize("ws", [False, True])
def test_a_client_goes_from_state_to_state(ws: bool) -> None:
    harness = Harness()
    peer = harness.connect_ws() if ws else harness.connect()
    assert peer.session.state is (UPGRADING if ws else NOT_LOGGED_IN)
    if isinstance(peer, WsClient):
        peer.upgrade("/")
        assert peer.session.state is NOT_LOGGED_IN
    peer.send(MsgCode.LOGIN, appId=10_001, userId=10_000, token=harness.token(10_000))
    assert peer.session.state is LOGGED_IN
    assert harness.log_in_ws(10_001).session.state is LOGGED_IN


def test_the_doors_belong_to_the_sessions_and_have_their_limit() -> None:
    harness = Harness()
    for door in (tcp_door(harness.node, 100), ws_door(harness.node, 100)):
        assert door.owner is harness.node.sessions
        assert door.make_wire() is not door.make_wire()
    wire = tcp_door(harness.node, 100).make_wire()
    wire.receive_data(b"\x48\xf1\0\0\x03\xec\0\0\0\x65")
    assert wire.error is not None
    assert "0 to 100 bytes" in wire.error.reason
