from __future__ import annotations

import pytest

from documents import table
from harness import BIZ, ERROR, LOGIN, Harness
from qiyu.handlers.registry import BEFORE_LOGIN, LOGGED_IN
from qiyu.protocol.packet import MsgCode


def test_every_code_that_a_client_sends_has_a_handler() -> None:
    sent = {int(code) for code, _, by_client, _ in table("protocol.md", "### Codes") if by_client not in {"–", "-"}}
    assert {code.value for code in {*BEFORE_LOGIN, *LOGGED_IN}} == sent  # type: ignore[attr-defined]


def test_before_the_login_there_is_only_the_login() -> None:
    assert set(BEFORE_LOGIN) == {MsgCode.WS_HANDSHAKE, MsgCode.LOGIN}
    assert not set(LOGGED_IN) & {MsgCode.WS_HANDSHAKE, MsgCode.ERROR}


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
