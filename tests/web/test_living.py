from __future__ import annotations

from typing import Any

import pytest

from qiyu.storage.database import Database
from qiyu.web.images import DEFAULT_AVATAR, DEFAULT_BACKGROUND
from web.sites import Caller, Site, bearer


async def go_live(anchor: Caller, **fields: Any) -> int:
    room_id: int = (await anchor.post("/living/startingLiving", json={"type": 1} | fields)).data["roomId"]
    return room_id


async def listed(site: Site, **fields: Any) -> list[dict[str, Any]]:
    asked = {"type": 1, "page": 1, "pageSize": 10} | fields
    rooms: list[dict[str, Any]] = (await site.caller().post("/living/list", json=asked)).data["list"]
    return rooms


# startingLiving


@pytest.mark.parametrize("how", ["form", "json", "query_string"])
async def test_a_vip_goes_live(site: Site, how: str) -> None:
    ann = await site.user(vip=True, avatar="/ann.png")
    answer = await ann.post("/living/startingLiving", **{how: {"type": 2}})
    [just_opened] = await listed(site, type=2)
    assert just_opened["anchorNickName"] == "ann"
    await site.context.living_rooms.refresh(site.now)
    [room] = await listed(site, type=2)
    assert answer.data == {"roomId": room["id"]}
    assert room == {
        "id": answer.data["roomId"],
        "roomName": f"主播-{ann.user_id}的直播间",
        "anchorId": ann.user_id,
        "anchorNickName": "ann",
        "anchorAvatar": "/ann.png",
        "watchNum": 0,
        "goodNum": 0,
        "covertImg": "/ann.png",
        "onAir": False,
    }


async def test_a_room_may_have_a_name_and_a_picture(site: Site) -> None:
    ann = await site.user(vip=True, avatar="/ann.png")
    await go_live(ann, roomName=" 晚安 ", covertImg="https://img.example/a.png")
    [room] = await listed(site)
    assert (room["roomName"], room["covertImg"]) == ("晚安", "https://img.example/a.png")


async def test_who_is_live_gets_the_same_room(site: Site) -> None:
    ann = await site.user(vip=True)
    assert await go_live(ann) == await go_live(ann)


async def test_only_a_vip_goes_live(site: Site) -> None:
    assert (await site.caller().post("/living/startingLiving", json={"type": 1})).refusal[0] == 401
    ann = await site.user()
    assert (await ann.post("/living/startingLiving", json={"type": 1})).refusal == (403, "only a VIP may go live")


@pytest.mark.parametrize(
    ("asked", "msg"),
    [
        ({}, "type: missing, expected 1 (normal) or 2 (PK)"),
        ({"type": None}, "type: missing, expected 1 (normal) or 2 (PK)"),
        ({"type": 3}, "type = 3: expected 1 (normal) or 2 (PK)"),
        ({"type": True}, "type = true: expected 1 (normal) or 2 (PK)"),
        ({"type": [1]}, "type = a list: expected 1 (normal) or 2 (PK)"),
        ({"type": "1", "roomName": "x" * 61}, f"roomName = {'x' * 39}…: expected 1 to 60 characters that can be seen"),
        ({"type": 1, "covertImg": "a b"}, 'covertImg = "a b": expected an http:// or https:// address or a path'),
    ],
)
async def test_what_is_wrong_with_a_start(site: Site, asked: dict[str, Any], msg: str) -> None:
    ann = await site.user(vip=True)
    code, text = (await ann.post("/living/startingLiving", json=asked)).refusal
    assert code == 400
    assert text.startswith(msg)


# closeLiving


async def test_the_anchor_closes_the_room(site: Site) -> None:
    ann = await site.user(vip=True)
    room_id = await go_live(ann)
    assert (await ann.post("/living/closeLiving", form={"roomId": room_id})).data is None
    assert await listed(site) == []
    assert (await ann.post("/living/closeLiving", form={"roomId": room_id})).refusal[0] == 404


async def test_nobody_else_closes_the_room(site: Site) -> None:
    ann, bob = await site.user("ann", vip=True), await site.user("bob", vip=True)
    room_id = await go_live(ann)
    assert (await site.caller().post("/living/closeLiving", form={"roomId": room_id})).refusal[0] == 401
    assert (await bob.post("/living/closeLiving", form={"roomId": room_id})).refusal[0] == 403
    assert (await bob.post("/living/closeLiving", form={"roomId": "0x1"})).refusal == (
        400,
        "roomId = 0x1: expected a whole number from 1 to 9007199254740991",
    )
    assert len(await listed(site)) == 1


# anchorConfig

NO_ROOM = {
    "roomId": -1,
    "anchorId": None,
    "isAnchor": False,
    "anchor": False,
    "roomName": None,
    "anchorNickName": None,
    "anchorImg": None,
    "userId": None,
    "nickName": None,
    "avatar": DEFAULT_AVATAR,
    "watcherNickName": None,
    "watcherAvatar": None,
    "defaultBgImg": DEFAULT_BACKGROUND,
    "pkObjId": None,
    "pushUrl": None,
    "streamKey": None,
    "playUrl": None,
    "onAir": False,
}


async def test_the_room_as_a_watcher_sees_it(site: Site) -> None:
    ann = await site.user("ann", vip=True, nickName="Ann", avatar="/ann.png")
    bob = await site.user("bob", nickName="Bob", avatar="/bob.png")
    room_id = await go_live(ann, roomName="晚安", covertImg="/room.png")
    before = site.database.queries
    assert (await bob.post("/living/anchorConfig", form={"roomId": room_id})).data == {
        "roomId": room_id,
        "anchorId": ann.user_id,
        "isAnchor": False,
        "anchor": False,
        "roomName": "晚安",
        "anchorNickName": "Ann",
        "anchorImg": "/room.png",
        "userId": bob.user_id,
        "nickName": "Bob",
        "avatar": "/ann.png",
        "watcherNickName": "Bob",
        "watcherAvatar": "/bob.png",
        "defaultBgImg": DEFAULT_BACKGROUND,
        "pkObjId": None,
        "pushUrl": None,
        "streamKey": None,
        "playUrl": f"ws://live.example.com:8086/live/{room_id}",
        "onAir": False,
    }
    assert site.database.queries == before + 2, "one for the session, one for the anchor"


async def test_the_room_as_its_anchor_sees_it(site: Site) -> None:
    ann = await site.user("ann", vip=True)
    room_id = await go_live(ann)
    before = site.database.queries
    data = (await ann.post("/living/anchorConfig", json={"roomId": str(room_id)})).data
    assert (data["isAnchor"], data["anchor"], data["userId"], data["anchorId"]) == (
        True,
        True,
        ann.user_id,
        ann.user_id,
    )
    assert data["avatar"] == data["watcherAvatar"] == data["anchorImg"] == DEFAULT_AVATAR
    assert site.database.queries == before + 1
    assert data["pushUrl"] == "rtmp://live.example.com:1935/live"
    assert site.context.stream_keys.verify(data["streamKey"], site.now.unix_ms) == room_id


async def test_the_list_and_the_room_say_who_is_on_air(site: Site) -> None:
    ann = await site.user("ann", vip=True)
    room_id = await go_live(ann)
    site.streams.begin(room_id, lambda _reason: None, site.now)
    assert [room["onAir"] for room in await listed(site)] == [True]
    assert (await ann.post("/living/anchorConfig", json={"roomId": room_id})).data["onAir"] is True


@pytest.mark.parametrize(
    ("fields", "urls"),
    [
        ({"rtmp_port": 0}, (None, "ws://live.example.com:8086/live/{}")),
        (
            {"rtmp_public_url": "rtmps://push.example.com/live", "ws_public_url": "wss://chat.example.com"},
            ("rtmps://push.example.com/live", "wss://chat.example.com/live/{}"),
        ),
        (
            {"rtmp_port": 0, "ws_public_url": "wss://chat.example.com/im", "ws_path": "/other"},
            (None, "wss://chat.example.com/im/live/{}"),
        ),
        (
            {"tls_listeners": frozenset(["ws", "rtmp"])},
            ("rtmps://live.example.com:1935/live", "wss://live.example.com:8086/live/{}"),
        ),
        ({"rtmp_port": 0, "ws_path": "/im"}, (None, "ws://live.example.com:8086/im/live/{}")),
        (
            {"play_url": "https://cdn.example.com/{room}.m3u8"},
            ("rtmp://live.example.com:1935/live", "https://cdn.example.com/{}.m3u8"),
        ),
    ],
)
async def test_where_the_picture_goes_is_for_the_settings_to_say(
    database: Database, fields: dict[str, Any], urls: tuple[str | None, str]
) -> None:
    site = Site(database, **fields)
    ann = await site.user("ann", vip=True)
    room_id = await go_live(ann)
    data = (await ann.post("/living/anchorConfig", json={"roomId": room_id})).data
    assert (data["pushUrl"], data["playUrl"]) == (urls[0], urls[1].format(room_id))
    assert (data["streamKey"] is None) == (urls[0] is None)


async def test_there_is_no_such_room_or_nobody_is_logged_in(site: Site) -> None:
    ann = await site.user(vip=True, avatar="/ann.png")
    room_id = await go_live(ann)
    assert (await site.caller().post("/living/anchorConfig", query_string={"roomId": room_id})).data == NO_ROOM
    assert (await ann.post("/living/anchorConfig", json={"roomId": 12345})).data == NO_ROOM | {
        "userId": ann.user_id,
        "nickName": "ann",
        "watcherNickName": "ann",
        "watcherAvatar": "/ann.png",
    }
    assert (await ann.post("/living/anchorConfig")).refusal[0] == 400


# list


async def test_rooms_are_listed_newest_first_and_in_pages(site: Site) -> None:
    rooms = [await go_live(await site.user(f"anchor{n}", vip=True)) for n in range(3)]
    await go_live(await site.user("pk", vip=True), type=2)
    caller = site.caller()
    first = (await caller.post("/living/list", form={"type": 1, "page": 1, "pageSize": 2})).data
    assert ([room["id"] for room in first["list"]], first["hasNext"]) == ([rooms[2], rooms[1]], True)
    second = (await caller.post("/living/list", form={"type": 1, "page": 2, "pageSize": 2})).data
    assert ([room["id"] for room in second["list"]], second["hasNext"]) == ([rooms[0]], False)
    assert (await caller.post("/living/list", form={"type": 1, "page": 9, "pageSize": 2})).data == {
        "list": [],
        "hasNext": False,
    }


async def test_a_list_asks_nothing_of_the_database(site: Site) -> None:
    ann = await site.user(vip=True)
    await go_live(ann)
    before = site.database.queries
    await ann.post("/living/list", form={"type": 1, "page": 1, "pageSize": 10}, headers=bearer(ann.token))
    assert site.database.queries == before


async def test_what_is_wrong_with_a_page_is_said_all_at_once(site: Site) -> None:
    assert (await site.caller().post("/living/list", form={"pageSize": "500", "page": "0"})).refusal == (
        400,
        "type: missing, expected 1 (normal) or 2 (PK); page = 0: expected a whole number from 1 to 1000000; "
        "pageSize = 500: expected a whole number from 1 to 100",
    )
