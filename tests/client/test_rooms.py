"""Which ERROR is the answer to a ROOM packet."""

from __future__ import annotations

from typing import Any

import trio

from qiyu.client.cursors import Cursors
from qiyu.client.rooms import Membership, RoomRequest, RoomRequests
from qiyu.protocol.bodies import ErrorData, RoomAnswer

NO_SUCH_ROOM = ErrorData(404, "no such room")


def new() -> tuple[Membership, RoomRequests]:
    membership = Membership(Cursors(10), room_id=1)
    return membership, RoomRequests(membership)


def begin(requests: RoomRequests, heartbeats: int, **fields: Any) -> RoomRequest:
    request = RoomRequest(heartbeats, **fields)
    requests.begin(request)
    return request


def test_an_error_after_the_heartbeats_answer_is_the_requests() -> None:
    membership, requests = new()
    request = begin(requests, 1)
    requests.heartbeat_answered()
    assert requests.refused(NO_SUCH_ROOM)
    assert request.done.is_set()
    assert request.refusal is not None
    assert request.refusal.code == 404
    assert membership.room_id == 1


def test_an_error_before_the_heartbeats_answer_is_about_an_earlier_message() -> None:
    membership, requests = new()
    request = begin(requests, 1)
    assert not requests.refused(ErrorData(403, "muted"))
    requests.heartbeat_answered()
    requests.answered(RoomAnswer(room_id=2, online=1))
    assert request.answer == RoomAnswer(room_id=2, online=1)
    assert membership.room_id == 2


def test_errors_that_only_messages_have_are_never_the_requests() -> None:
    _, requests = new()
    begin(requests, 0)
    for code in (206, 429, 507):
        assert not requests.refused(ErrorData(code, "a message"))


def test_an_error_with_no_request_is_nobodys() -> None:
    _, requests = new()
    assert not requests.refused(NO_SUCH_ROOM)


def test_a_request_whose_caller_gave_up_still_takes_its_own_answer() -> None:
    membership, requests = new()
    given_up, waiting = begin(requests, 1), begin(requests, 2)
    requests.heartbeat_answered()
    requests.answered(RoomAnswer(room_id=2, online=1))
    assert given_up.done.is_set()
    assert not waiting.done.is_set()
    assert not requests.refused(NO_SUCH_ROOM)
    requests.heartbeat_answered()
    assert requests.refused(NO_SUCH_ROOM)
    assert waiting.done.is_set()
    assert membership.room_id == 2


def test_the_answer_is_told_before_anything_else_is_read_and_moves_the_position() -> None:
    membership, requests = new()
    told: list[RoomAnswer] = []
    begin(requests, 1, after_msg_id="7", on_answer=told.append)
    membership.cursors.dropped()
    requests.answered(RoomAnswer(room_id=2, online=1, recovered=True))
    assert told == [RoomAnswer(room_id=2, online=1, recovered=True)]
    membership.cursors.arrived(1, "8")
    assert (membership.cursors.of(2), membership.cursors.of(1)) == ("7", "8")


def test_an_answer_that_nobody_asked_for_says_where_we_are() -> None:
    membership, requests = new()
    requests.answered(RoomAnswer(room_id=2, online=1))
    assert membership.room_id == 2


def test_a_room_that_was_closed_is_left() -> None:
    membership, requests = new()
    requests.closed(2)
    assert membership.room_id == 1
    requests.closed(1)
    assert membership.room_id is None


async def test_the_end_of_the_connection_frees_who_waits() -> None:
    _, requests = new()
    request = begin(requests, 1)
    requests.end()
    with trio.fail_after(1):
        await request.done.wait()
    assert request.answer is None
    assert request.refusal is None
