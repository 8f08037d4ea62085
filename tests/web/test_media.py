from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest

from qiyu.storage.database import Database
from web.sites import Answered, Caller, Site

ENGINE = "192.0.2.9"


class Studio:
    """A site with an engine in front, and a room that is open."""

    def __init__(self, site: Site, room: int, anchor: Caller) -> None:
        self.site = site
        self.room = room
        self.anchor = anchor
        self.engine = site.caller(address=ENGINE, use_cookies=False)

    @classmethod
    async def open(cls, database: Database, **fields: Any) -> Studio:
        networks = (ipaddress.ip_network("192.0.2.8/30"),)
        site = Site(database, engines=networks, **fields)
        anchor = await site.user(vip=True)
        data = (await anchor.post("/living/startingLiving", form={"type": "1"})).data
        return cls(site, data["roomId"], anchor)

    async def key(self) -> tuple[str, str]:
        config = (await self.anchor.post("/living/anchorConfig", form={"roomId": str(self.room)})).data
        name, _, key = config["streamKey"].partition("?key=")
        return name, key

    async def tell(self, what: str, **fields: str) -> Answered:
        """As nginx's rtmp module does."""
        return await self.engine.post(f"/media/{what}", form={"app": "live", "clientid": "1", **fields})


async def test_a_push_begins_goes_on_and_ends(database: Database) -> None:
    studio = await Studio.open(database)
    name, key = await studio.key()
    answer = await studio.tell("on_publish", call="publish", name=name, key=key, type="live")
    assert (answer.status, answer.text) == (200, "0")
    assert studio.site.streams.is_on_air(studio.room)
    listed = (await studio.anchor.post("/living/list", form={"type": "1", "page": "1", "pageSize": "10"})).data
    assert [room["onAir"] for room in listed["list"]] == [True]
    assert (await studio.tell("on_update", call="update_publish", name=name)).status == 200
    assert (await studio.tell("on_publish", clientid="2", name=name, key=key)).status == 403
    await studio.tell("on_publish_done", clientid="2", name=name)
    assert studio.site.streams.is_on_air(studio.room)
    await studio.tell("on_publish_done", name=name)
    assert not studio.site.streams.is_on_air(studio.room)
    assert (await studio.tell("on_update", call="update_publish", name=name)).status == 403
    assert (await studio.tell("on_update", call="update_play", name=name)).status == 200


async def test_srs_says_it_in_json(database: Database) -> None:
    studio = await Studio.open(database)
    name, key = await studio.key()
    told = {"action": "on_publish", "client_id": "ax3", "app": "live", "stream": name, "param": f"?key={key}"}
    answer = await studio.engine.post("/media/on_publish", json=told)
    assert (answer.status, answer.text) == (200, "0")
    assert studio.site.streams.is_on_air(studio.room)
    await studio.engine.post("/media/on_unpublish", json=told | {"action": "on_unpublish"})
    assert not studio.site.streams.is_on_air(studio.room)
    assert (await studio.engine.post("/media/on_publish", json=[1])).refusal == (400, "expected an object")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda name, key: {"name": name, "key": key[:-1]}, "the stream key is malformed"),
        (lambda name, _: {"name": name}, "the stream key has no key"),
        (lambda name, key: {"name": name + "1", "key": key}, "the stream key is wrong, or that of another room"),
    ],
)
async def test_a_wrong_key_is_refused(
    database: Database, spoil: Callable[[str, str], dict[str, str]], reason: str
) -> None:
    studio = await Studio.open(database)
    code, said = (await studio.tell("on_publish", **spoil(*await studio.key()))).refusal
    assert code == 403
    assert said.startswith(reason)


async def test_a_room_that_is_closed_is_not_pushed_to(database: Database) -> None:
    studio = await Studio.open(database)
    name, key = await studio.key()
    await studio.anchor.post("/living/closeLiving", form={"roomId": name})
    assert (await studio.tell("on_publish", name=name, key=key)).refusal == (403, f"room {name} is not open")


async def test_only_an_engine_may_ask(database: Database) -> None:
    studio = await Studio.open(database)
    for what in ("on_publish", "on_publish_done", "on_update", "on_play"):
        code, reason = (await studio.anchor.post(f"/media/{what}", form={"clientid": "1"})).refusal
        assert (code, reason) == (403, "only the engines that [video] engines names may call this")


async def test_a_call_without_the_connection_is_malformed(database: Database) -> None:
    studio = await Studio.open(database)
    refused = await studio.engine.post("/media/on_update", form={"name": "1"})
    assert refused.refusal == (400, "clientid: expected the engine's number of the connection")


async def test_who_plays_must_have_a_token_where_pictures_are_not_open(database: Database) -> None:
    studio = await Studio.open(database)
    room, user = str(studio.room), studio.anchor.user_id
    token = studio.site.tokens.issue(user, now_ms=studio.site.now.unix_ms)
    assert (await studio.tell("on_play", name=room, userId=str(user), token=token)).status == 200
    assert (await studio.tell("on_play", name=room, userId="10001", token=token)).refusal == (
        403,
        "the login token is for another user",
    )
    assert (await studio.tell("on_play", name=room)).refusal == (403, "the login token is malformed")
    assert (await studio.tell("on_play", name="x")).refusal == (403, "name: expected the number of a room")


async def test_who_plays_needs_nothing_where_they_are(database: Database) -> None:
    studio = await Studio.open(database, are_pictures_open=True)
    assert (await studio.tell("on_play", name=str(studio.room))).status == 200
    assert (await studio.tell("on_play", name="999")).refusal == (403, "room 999 is not open")
