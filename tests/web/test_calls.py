"""What every call has in common, with two calls of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from quart import Response

from qiyu.storage.users import User
from qiyu.web.calls import Caller, anyone, logged_in
from qiyu.web.params import Params, RoomId
from qiyu.web.responses import ResponseData, reply
from web.sites import Site, bearer


class Asked(Params):
    room_id: RoomId


class Told(ResponseData):
    user_id: int


@pytest.fixture
def calls(site: Site) -> list[str]:
    """Who was let through; the calls are /open and /closed."""
    through: list[str] = []

    @anyone(Asked, Told)
    async def open_(asked: Asked, caller: Caller) -> Told:
        through.append("open")
        user = await caller.user()
        return Told(user_id=user.id if user else asked.room_id)

    @logged_in(Asked)
    async def closed(asked: Asked, user: User) -> None:
        through.append(f"closed {user.id} {asked.room_id}")

    @anyone(Asked)
    async def own(_asked: Asked, _caller: Caller) -> Response:
        return reply(200, "my own")

    views: dict[str, Callable[..., object]] = {"open": open_, "closed": closed, "own": own}
    for name, view in views.items():
        site.app.add_url_rule(f"/{name}", name, view, methods=["POST"])  # type: ignore[arg-type]
    return through


async def test_anyone_may_call_and_is_known_where_a_session_came(site: Site, calls: list[str]) -> None:
    ann = await site.user("ann")
    assert (await site.caller().post("/open", json={"roomId": 7})).data == {"userId": 7}
    assert (await ann.post("/open", json={"roomId": 7})).data == {"userId": ann.user_id}


async def test_without_a_session_nobody_is_asked_for(site: Site, calls: list[str]) -> None:
    before = site.database.queries
    await site.caller().post("/open", json={"roomId": 7})
    assert site.database.queries == before


async def test_those_who_are_logged_in_are_let_through(site: Site, calls: list[str]) -> None:
    ann = await site.user("ann")
    assert (await ann.post("/closed", json={"roomId": 7})).data is None
    assert calls == [f"closed {ann.user_id} 7"]


async def test_a_call_is_refused_as_a_page_then_as_nobody_then_for_what_it_says(site: Site, calls: list[str]) -> None:
    ann = await site.user("ann")
    elsewhere = {"Origin": "https://evil.example"}
    assert (await ann.post("/closed", json={}, headers=elsewhere)).refusal[0] == 403
    assert (await site.caller().post("/closed", json={})).refusal == (
        401,
        "not logged in, or not any more: see /user/login",
    )
    assert (await ann.post("/closed", json={})).refusal[0] == 400
    assert calls == []


async def test_the_header_goes_before_the_cookie(site: Site, calls: list[str]) -> None:
    ann, bob = await site.user("ann"), await site.user("bob")
    answer = await ann.post("/open", json={"roomId": 7}, headers=bearer(bob.token))
    assert answer.data == {"userId": bob.user_id}
    lower = {"Authorization": f"bearer   {bob.token} "}
    assert (await ann.post("/open", json={"roomId": 7}, headers=lower)).data == {"userId": bob.user_id}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic YW5uOng=", "{token}"])
async def test_a_header_with_no_session_is_no_session_whatever_the_cookie_says(
    site: Site, calls: list[str], header: str
) -> None:
    ann = await site.user("ann")
    headers = {"Authorization": header.format(token=ann.token)}
    assert (await ann.post("/closed", json={"roomId": 7}, headers=headers)).refusal[0] == 401


async def test_a_call_may_make_its_answer_itself(site: Site, calls: list[str]) -> None:
    answer = await site.caller().post("/own", json={"roomId": 7})
    assert (answer.status, answer.body) == (200, {"code": 200, "msg": "my own", "data": None})
