from __future__ import annotations

import pytest

from harness import ERROR, LOGIN, LOGOUT, Harness
from qiyu.services.sign_outs import EndedSessions

ANN = 10_002
ONE, TWO = 2**60 - 1, 2**59 + 7


def token_of(harness: Harness, number: int) -> str:
    return harness.node.tokens.issue(ANN, http_session=number, now_ms=harness.now.unix_ms)


def sign_out(harness: Harness, number: int, user: int = ANN) -> None:
    harness.node.sign_outs.tell(number, user, harness.now.unix_ms, harness.now.unix_ms)


@pytest.mark.parametrize("ws", [False, True])
def test_the_session_that_was_opened_by_it_ends_and_is_not_to_come_back(ws: bool) -> None:
    harness = Harness()
    token = token_of(harness, ONE)
    if ws:
        web = harness.connect_ws()
        web.upgrade(f"/{token}/{ANN}")
        web.receive_first()
        peer = web
    else:
        tcp = harness.connect()
        tcp.send(LOGIN, appId=10_001, userId=ANN, token=token)
        tcp.receive_first()
        peer = tcp  # type: ignore[assignment]
    sign_out(harness, TWO)
    assert not peer.shut
    sign_out(harness, ONE)
    packet = peer.receive()[-1]
    assert packet.code == LOGOUT
    assert packet.data == {"reason": "signedOut", "reconnect": False}
    assert peer.shut
    assert peer.close_code == (4002 if ws else None)
    assert harness.node.hub.find(10_001, ANN) is None
    assert harness.metrics.sessions_signed_out == 1


def test_its_tokens_are_good_no_more_and_others_are() -> None:
    harness = Harness()
    old, other = token_of(harness, ONE), token_of(harness, TWO)
    sign_out(harness, ONE)
    peer = harness.connect()
    peer.send(LOGIN, appId=10_001, userId=ANN, token=old)
    packet = peer.receive_first()
    assert packet.code == ERROR
    assert packet.data["code"] == 401
    assert "an HTTP session that has ended" in packet.data["reason"]
    for token in (other, harness.token(ANN)):
        peer = harness.connect()
        peer.send(LOGIN, appId=10_001, userId=ANN, token=token)
        assert peer.receive_first().code == LOGIN


def test_another_login_of_the_user_stays() -> None:
    harness = Harness()
    peer = harness.log_in(ANN)
    sign_out(harness, ONE)
    assert not peer.shut


def test_what_is_told_again_ends_nothing_more() -> None:
    harness = Harness()
    sign_out(harness, ONE)
    peer = harness.log_in(ANN)
    found = harness.node.hub.find(10_001, ANN)
    assert found is not None
    found.http_session = ONE
    sign_out(harness, ONE)
    assert not peer.shut


def test_it_is_remembered_as_long_as_a_token_lives() -> None:
    ended = EndedSessions(300)
    assert ended.add(1, 1000, 1000)
    assert not ended.add(1, 1000, 2000)
    assert ended.add(2, 250_000, 300_000)
    assert (1 in ended, 2 in ended, len(ended)) == (True, True, 2)
    assert ended.add(3, 301_000, 301_000)
    assert (1 in ended, 2 in ended, 3 in ended) == (False, True, True)
    assert not ended.add(4, 1000, 301_000), "no token of that time is good any more"


def test_so_many_are_remembered_and_not_one_more() -> None:
    ended = EndedSessions(300, remembered=3)
    for number in range(1, 5):
        ended.add(number, 1000, 1000)
    assert [number in ended for number in range(1, 5)] == [False, True, True, True]
