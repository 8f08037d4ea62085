"""docs/protocol.md lists every error and every reason, and what a client does next."""

from __future__ import annotations

import inspect

import pytest

from documents import table
from qiyu import errors
from qiyu.errors import EndReason, ErrorCode, ProtocolViolation, QiyuError, Refused, WsClose


def test_the_codes_of_the_errors_are_the_documented_ones() -> None:
    assert [int(row[0]) for row in table("protocol.md", "## Errors")] == [code.value for code in ErrorCode]


def test_the_reasons_for_which_a_session_ends_are_the_documented_ones() -> None:
    documented = {
        (reason.strip("`"), int(close), action.startswith("reconnects"))
        for reason, close, _, action in table("protocol.md", "### When the server ends a session")
    }
    assert documented == {(each.text, each.ws_close, each.reconnect) for each in EndReason}


def test_reasons_with_one_close_code_are_reasons_all_the_same() -> None:
    """An enum makes members with equal values one: two reasons must differ in their text."""
    assert len(EndReason) == len(EndReason.__members__) == len({reason.text for reason in EndReason})


def test_everything_that_is_raised_here_has_one_root() -> None:
    raised = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)]
    assert raised
    assert all(issubclass(each, QiyuError) for each in raised)


def test_a_violation_is_malformed_and_against_the_policy_unless_it_says_otherwise() -> None:
    plain = ProtocolViolation("why")
    assert (plain.code, plain.ws_close, plain.reason, str(plain)) == (400, 1008, "why", "why")
    other = ProtocolViolation("why", code=ErrorCode.NOT_LOGGED_IN, ws_close=WsClose.MESSAGE_TOO_BIG)
    assert (other.code, other.ws_close) == (401, 1009)


@pytest.mark.parametrize("client_msg_id", ["", "c-1"])
def test_a_refusal_says_why(client_msg_id: str) -> None:
    refused = Refused(ErrorCode.CONFLICT, "why", client_msg_id=client_msg_id)
    assert (refused.code, refused.reason, refused.client_msg_id, str(refused)) == (409, "why", client_msg_id, "why")
