from __future__ import annotations

from typing import Any

import pytest

from harness import BIZ, HEARTBEAT, LOGIN, ROOM_CHAT, Harness, Received, TcpClient, error_of

MAX_ID = 2**53 - 1


def attempt(harness: Harness, **fields: Any) -> TcpClient:
    peer = harness.connect()
    peer.send(LOGIN, **{"appId": 10_001, "userId": 10_000, "token": harness.token(10_000)} | fields)
    return peer


def refused_with(peer: TcpClient) -> tuple[int, str]:
    (packet,) = peer.receive()
    assert peer.shut
    assert peer.session.user_id == 0
    assert len(peer.harness.node.hub) == 0
    assert peer.harness.metrics.logins == 0
    return error_of(packet), packet.data["reason"]


def test_the_answer() -> None:
    peer = attempt(Harness())
    assert peer.receive() == [Received(LOGIN, {"appId": 10_001, "userId": 10_000, "data": "true"})]
    assert peer.session.user_id == 10_000
    assert not peer.shut


def test_who_it_is_comes_from_the_token() -> None:
    harness = Harness()
    peer = harness.log_in(10_000, nickname="看客小鱼", avatar="/img/1.png")
    assert (peer.session.nickname, peer.session.avatar) == ("看客小鱼", "/img/1.png")


@pytest.mark.parametrize("user_id", [10_000, MAX_ID])
@pytest.mark.parametrize("app_id", [10_000, MAX_ID])
def test_the_ends_of_the_ids(user_id: int, app_id: int) -> None:
    harness = Harness()
    peer = harness.log_in(user_id, app=app_id)
    assert harness.node.hub.find(app_id, user_id) is peer.session


@pytest.mark.parametrize("bad", [None, -1, 0, 9_999, MAX_ID + 1, 2**63, 2**64, "-10000", "10000.0", "", 10_000.0, True])
@pytest.mark.parametrize("name", ["userId", "appId"])
def test_an_id_that_cannot_be_one(name: str, bad: object) -> None:
    code, reason = refused_with(attempt(Harness(), **{name: bad}))
    assert code == 400
    assert name in reason


@pytest.mark.parametrize("token", [None, "", "nonsense", "a.b%10001"])
def test_a_malformed_token(token: str | None) -> None:
    assert refused_with(attempt(Harness(), token=token)) == (
        401,
        "login: the login token is malformed; the connection is closed",
    )


def test_the_token_of_another_user() -> None:
    harness = Harness()
    code, reason = refused_with(attempt(harness, token=harness.token(10_001)))
    assert (code, "for another user" in reason) == (401, True)
    assert harness.metrics.logins_refused == 1


def test_the_token_of_another_app() -> None:
    harness = Harness()
    code, reason = refused_with(attempt(harness, token=harness.token(10_000, app=20_000)))
    assert (code, "for another app" in reason) == (401, True)


@pytest.mark.parametrize(("seconds", "works"), [(299.999, True), (300, False)])
def test_a_token_lasts_five_minutes(seconds: float, works: bool) -> None:
    harness = Harness()
    token = harness.token(10_000)
    harness.advance(seconds)
    peer = attempt(harness, token=token)
    if works:
        assert [packet.code for packet in peer.receive()] == [LOGIN]
    else:
        code, reason = refused_with(peer)
        assert (code, "expired" in reason) == (401, True)


@pytest.mark.parametrize("body", [b"", b"[", b"\xff"])
def test_a_body_that_is_no_json(body: bytes) -> None:
    peer = Harness().connect()
    peer.write(peer.frame(LOGIN, body))
    assert refused_with(peer)[0] == 400


def test_no_token_is_repeated_to_anybody() -> None:
    harness = Harness()
    token = harness.token(10_001)
    peer = attempt(harness, token=token)
    _, reason = refused_with(peer)
    assert token[:20] not in reason
    assert token[:20] not in repr(peer.session)


def test_a_room_at_once() -> None:
    harness = Harness()
    peer = harness.log_in(10_000, room=7)
    member = harness.log_in(10_001, room=7)
    member.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "welcome"})
    assert [packet.data["content"] for packet in peer.receive()] == ["welcome"]


@pytest.mark.parametrize("data", [None, "", "{}", '{"roomId":null}'])
def test_no_room(data: str | None) -> None:
    peer = attempt(Harness(), data=data)
    assert [packet.code for packet in peer.receive()] == [LOGIN]
    assert peer.session.room is None


@pytest.mark.parametrize(
    "data", ["true", "[]", "no JSON", '{"roomId":0}', '{"roomId":"7x"}', '{"roomId":9007199254740992}']
)
def test_a_room_that_cannot_be_entered_costs_the_room_only(data: str) -> None:
    peer = attempt(Harness(), data=data)
    login, error = peer.receive()
    assert login == Received(LOGIN, {"appId": 10_001, "userId": 10_000, "data": "true"})
    assert error_of(error) == 400
    assert peer.session.room is None
    assert peer.answer(HEARTBEAT).code == HEARTBEAT


@pytest.mark.parametrize("body", [b'{"appId":10001,"userId":10005,"data":"{\\"roomId\\":8}"}', b"not JSON", b""])
def test_a_second_login_is_ignored(body: bytes) -> None:
    harness = Harness()
    peer = harness.log_in(10_000, room=7)
    peer.write(peer.frame(LOGIN, body))
    assert peer.receive() == []
    assert peer.session.user_id == 10_000
    assert peer.session.room is not None
    assert peer.session.room.id == 7
    assert harness.metrics.logins == 1


def test_a_login_and_more_in_one_read() -> None:
    harness = Harness()
    peer = harness.connect()
    login = peer.packet(LOGIN, appId=10_001, userId=10_000, token=harness.token(10_000))
    peer.write(login + login + peer.packet(HEARTBEAT))
    assert [packet.code for packet in peer.receive()] == [LOGIN, HEARTBEAT]
