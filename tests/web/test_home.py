from __future__ import annotations

import pytest

from qiyu.accounts.accounts import DAY_MS
from qiyu.storage.users import VIP
from qiyu.web.images import DEFAULT_AVATAR
from web.sites import Site, bearer

NOBODY = {
    "loginStatus": False,
    "userId": 0,
    "nickName": None,
    "avatar": None,
    "showStartLivingBtn": False,
    "registrationOpen": True,
}


async def test_nobody_is_logged_in(site: Site) -> None:
    assert (await site.caller().post("/home/initPage")).data == NOBODY


async def test_somebody_is_logged_in(site: Site) -> None:
    ann = await site.user(nickName="Ann", avatar="/ann.png")
    assert (await ann.post("/home/initPage")).data == {
        "loginStatus": True,
        "userId": ann.user_id,
        "nickName": "Ann",
        "avatar": "/ann.png",
        "showStartLivingBtn": False,
        "registrationOpen": True,
    }


async def test_who_has_no_picture_gets_one(site: Site) -> None:
    ann = await site.user()
    assert (await ann.post("/home/initPage")).data["avatar"] == DEFAULT_AVATAR
    assert DEFAULT_AVATAR.startswith("data:image/svg+xml,")


async def test_a_tag_from_elsewhere_counts_at_once(site: Site) -> None:
    ann = await site.user()
    await site.accounts.tag(ann.user_id, VIP)
    assert (await ann.post("/home/initPage")).data["showStartLivingBtn"] is True
    await site.accounts.untag(ann.user_id, VIP)
    assert (await ann.post("/home/initPage")).data["showStartLivingBtn"] is False


async def test_the_session_may_come_in_the_header(site: Site) -> None:
    ann = await site.user()
    caller = site.caller()
    for value in (f"Bearer {ann.token}", f"bearer  {ann.token} "):
        assert (await caller.post("/home/initPage", headers={"Authorization": value})).data["userId"] == ann.user_id


@pytest.mark.parametrize("value", ["Bearer", "Bearer ", "Bearer x", "Basic YTpi", "", "Bearer " + "x" * 43, "Bearer ä"])
async def test_a_header_that_is_nobodys_is_not_made_up_for_by_the_cookie(site: Site, value: str) -> None:
    ann = await site.user()
    assert (await ann.post("/home/initPage", headers={"Authorization": value})).data == NOBODY


async def test_a_session_ends_with_time(site: Site) -> None:
    ann = await site.user()
    site.now = site.now._replace(unix_ms=site.now.unix_ms + 30 * DAY_MS)
    assert (await site.caller().post("/home/initPage", headers=bearer(ann.token))).data == NOBODY


async def test_a_call_costs_one_query_at_most(site: Site) -> None:
    ann = await site.user()
    before = site.database.queries
    await ann.post("/home/initPage")
    assert site.database.queries == before + 1
    await site.caller().post("/home/initPage")
    await site.caller().post("/home/initPage", headers=bearer("no token"))
    assert site.database.queries == before + 1
