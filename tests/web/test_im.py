from __future__ import annotations

import json
from typing import Any

import pytest

from qiyu.errors import DatabaseUnavailable
from qiyu.living import history as living_history
from qiyu.protocol.packet import APP_ID
from qiyu.protocol.tcp import HEADER, TcpWire
from qiyu.routing.msgid import first_id
from qiyu.services.replay import publication_of
from qiyu.storage.database import Database
from qiyu.storage.messages import InboxRules, NewMessage, conversation_page, store
from qiyu.web.images import DEFAULT_AVATAR
from sessions import make_session
from web.sites import HOST, Caller, Site, bearer

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_a_token_and_where_to_take_it(site: Site) -> None:
    ann = await site.user(nickName="Ann", avatar="/ann.png")
    data = (await ann.post("/im/getImConfig")).data
    identity = site.tokens.verify(data.pop("token"), user_id=ann.user_id, app_id=APP_ID, now_ms=site.now.unix_ms)
    assert identity[:4] == (APP_ID, ann.user_id, "Ann", "/ann.png")
    user = await site.accounts.user_of(ann.token, site.now)
    assert user is not None
    assert identity.http_session == user.http_session != 0
    assert data == {
        "wsImServerAddress": f"{HOST}:8086",
        "tcpImServerAddress": f"{HOST}:8085",
        "wsUrl": None,
    }


async def test_who_has_no_picture_has_none_in_the_token(site: Site) -> None:
    ann = await site.user()
    token = (await ann.post("/im/getImConfig")).data["token"]
    identity = site.tokens.verify(token, user_id=ann.user_id, app_id=APP_ID, now_ms=site.now.unix_ms)
    assert identity.avatar == ""
    assert DEFAULT_AVATAR not in token


async def test_a_token_is_for_those_who_are_logged_in(site: Site) -> None:
    assert (await site.caller().post("/im/getImConfig")).refusal[0] == 401


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("wss://live.example.com", "live.example.com:443"),
        ("ws://live.example.com", "live.example.com:80"),
        ("wss://live.example.com:8443", "live.example.com:8443"),
        ("wss://[2001:db8::1]", "[2001:db8::1]:443"),
        ("wss://live.example.com/im", "live.example.com:443"),
        ("wss://live.example.com:8443/im/1", "live.example.com:8443"),
    ],
)
async def test_configured_addresses_go_before_the_host_that_was_called(
    database: Database, url: str, address: str
) -> None:
    site = Site(database, ws_public_url=url, tcp_public_address="tcp.example.com:9000")
    ann = await site.user()
    data = (await ann.post("/im/getImConfig", headers={"Host": "elsewhere"})).data
    assert (data["wsImServerAddress"], data["wsUrl"]) == (address, url)
    assert data["tcpImServerAddress"] == "tcp.example.com:9000"


async def test_a_path_of_its_own_is_told(database: Database) -> None:
    site = Site(database, ws_path="/im")
    ann = await site.user()
    data = (await ann.post("/im/getImConfig")).data
    assert (data["wsImServerAddress"], data["wsUrl"]) == (f"{HOST}:8086", f"ws://{HOST}:8086/im")


async def test_tls_is_told(database: Database) -> None:
    site = Site(database, tls_listeners=frozenset(["ws"]))
    ann = await site.user()
    assert (await ann.post("/im/getImConfig")).data["wsUrl"] == f"wss://{HOST}:8086"


@pytest.mark.parametrize(
    ("host", "called"),
    [("127.0.0.1:8080", "127.0.0.1"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]"), ("LOCALHOST", "LOCALHOST")],
)
async def test_the_host_that_was_called(site: Site, host: str, called: str) -> None:
    ann = await site.user()
    data = (await ann.post("/im/getImConfig", headers={"Host": host})).data
    assert data["wsImServerAddress"] == f"{called}:8086"


@pytest.mark.parametrize("host", ["", "a b", "a/b", "user@host", "host:port", "::1", "[::1", "[evil]:1", "a:1:2", "ä"])
async def test_what_is_no_host(site: Site, host: str) -> None:
    ann = await site.user()
    caller = site.caller(use_cookies=False)
    code, msg = (await caller.post("/im/getImConfig", headers={"Host": host} | bearer(ann.token))).refusal
    assert code == 400
    assert msg.startswith("Host: expected a host name")


def connect(site: Site, user_id: int, *, app_id: int = APP_ID, room_id: int = 0) -> None:
    session = make_session()
    session.identify(app_id, user_id, "", "")
    site.hub.bind(session)
    if room_id:
        site.hub.enter(session, room_id)


@pytest.mark.parametrize(
    "how",
    [
        {"json": {"userIds": [20_001, 20_002, 20_003]}},
        {"json": {"userIds": ["20001", 20_002, 20003.0]}},
        {"json": {"userIds": "20001,20002,20003"}},
        {"form": {"userIds": "20001,20002,20003,20001"}},
        {"form": {"userIds": '[20001, "20002", 20003]'}},
        {"query_string": {"userIds": "20001,20002,20003"}},
        {"data": "userIds=20001&userIds=20002&userIds=20003", "headers": FORM},
    ],
)
async def test_who_is_online(site: Site, how: dict[str, Any]) -> None:
    connect(site, 20_001)
    connect(site, 20_002, app_id=APP_ID + 1)
    ann = await site.user()
    assert (await ann.post("/im/online", **how)).data == {"20001": True, "20002": False, "20003": False}


async def test_who_is_online_is_told_to_those_who_are_logged_in(site: Site) -> None:
    assert (await site.caller().post("/im/online", json={"userIds": [20_001]})).refusal[0] == 401


@pytest.mark.parametrize(
    "user_ids",
    [
        [],
        "",
        ",",
        "20001,,20002",
        "[20001",
        "[" * 20_000,
        [9999],
        [2**53],
        [None],
        [[20_001]],
        [True],
        {"20001": 1},
        list(range(20_000, 21_001)),
    ],
)
async def test_what_is_no_list_of_users(site: Site, user_ids: Any) -> None:
    ann = await site.user()
    code, msg = (await ann.post("/im/online", json={"userIds": user_ids})).refusal
    assert code == 400
    assert msg.endswith(
        "expected 1 to 1000 user ids, each from 10000 to 9007199254740991, as a list or with commas between"
    )
    assert len(msg) < 200


async def test_a_thousand_users_are_not_too_many(site: Site) -> None:
    ann = await site.user()
    ids = list(range(20_000, 21_000))
    assert len((await ann.post("/im/online", json={"userIds": ids})).data) == 1000
    assert len((await ann.post("/im/online", form={"userIds": ",".join(map(str, ids))})).data) == 1000


# history

ID = first_id(1_700_000_000_000)


async def said(site: Site, *messages: dict[str, Any]) -> None:
    """Keep messages; each has a msg_id, a user_id, and a room_id or an object_id."""
    rows = []
    for fields in messages:
        target = "roomId" if "room_id" in fields else "objectId"
        data = {"userId": fields["user_id"], target: fields.get("room_id") or fields["object_id"], "content": "早 \0"}
        row = {
            "app_id": APP_ID,
            "biz_code": 5555 if "room_id" in fields else 5556,
            "room_id": 0,
            "object_id": 0,
            "client_msg_id": "",
            "data": json.dumps(data, ensure_ascii=False),
            "create_time": site.now.unix_ms,
            "into_inbox": False,
        }
        rows.append(NewMessage(**(row | fields)))
    await site.database.run(store, rows, (), InboxRules())


async def history(caller: Caller, **asked: Any) -> Any:
    return (await caller.post("/im/history", json=asked)).data


def msg_ids(data: dict[str, Any]) -> list[int]:
    return [int(each["msgId"]) for each in data["messages"]]


async def a_room(anchor: Caller) -> int:
    room_id: int = (await anchor.post("/living/startingLiving", form={"type": 1})).data["roomId"]
    return room_id


async def test_messages_are_as_their_receiver_gets_them(site: Site) -> None:
    ann, bob = await site.user("ann"), await site.user("bob")
    await said(
        site,
        {"msg_id": ID, "user_id": ann.user_id, "object_id": bob.user_id, "client_msg_id": "早 1"},
        {"msg_id": ID + 1, "user_id": bob.user_id, "object_id": ann.user_id, "client_msg_id": "b"},
        {"msg_id": ID + 2, "user_id": ann.user_id, "object_id": bob.user_id},
    )
    read_by_bob = await history(bob, objectId=ann.user_id)
    for found, row in zip(
        read_by_bob["messages"],
        await site.database.read(conversation_page, APP_ID, ann.user_id, bob.user_id, after=0, before=None, limit=9),
        strict=True,
    ):
        head, tail, _ = publication_of(row).splice(TcpWire(2**16), 5, 0)
        body = json.loads(head[HEADER.size :] + b"%d" % bob.user_id + tail)
        assert found == body | ({"clientMsgId": "b"} if row.user_id == bob.user_id else {})
    assert msg_ids(read_by_bob) == [ID, ID + 1, ID + 2]
    assert read_by_bob["hasMore"] is False
    read_by_ann = await history(ann, objectId=bob.user_id)
    assert [each.get("clientMsgId") for each in read_by_ann["messages"]] == ["早 1", None, None]
    assert ["clientMsgId" in each for each in read_by_ann["messages"]] == [True, False, False]
    assert {each["userId"] for each in read_by_ann["messages"]} == {ann.user_id}
    assert json.loads(read_by_ann["messages"][1]["data"])["userId"] == bob.user_id


@pytest.mark.parametrize("where", ["roomId", "objectId"])
async def test_paging_back_through_250_messages(site: Site, where: str) -> None:
    ann, bob = await site.user("ann", vip=True), await site.user("bob")
    room_id = await a_room(ann)
    connect(site, bob.user_id, room_id=room_id)
    target = {"room_id": room_id} if where == "roomId" else {"object_id": bob.user_id}
    await said(site, *[{"msg_id": ID + n, "user_id": ann.user_id} | target for n in range(250)])
    asked = {where: room_id if where == "roomId" else ann.user_id, "limit": 100}
    pages = [await history(bob, **asked)]
    while pages[-1]["hasMore"]:
        pages.append(await history(bob, **asked, beforeMsgId=pages[-1]["messages"][0]["msgId"]))
    assert [len(page["messages"]) for page in pages] == [100, 100, 50]
    assert [msg_id for page in reversed(pages) for msg_id in msg_ids(page)] == list(range(ID, ID + 250))
    newest = await history(bob, **{where: asked[where]})
    assert (msg_ids(newest), newest["hasMore"]) == (list(range(ID + 200, ID + 250)), True)
    last = await history(bob, **asked | {"limit": 50, "beforeMsgId": str(ID + 50)})
    assert (msg_ids(last), last["hasMore"]) == (list(range(ID, ID + 50)), False)
    assert await history(bob, **asked, beforeMsgId=str(ID)) == {"messages": [], "hasMore": False}


async def test_a_member_costs_one_query_beside_the_session(site: Site) -> None:
    ann, bob = await site.user("ann", vip=True), await site.user("bob")
    room_id = await a_room(ann)
    connect(site, bob.user_id, room_id=room_id)
    before = site.database.queries
    await history(bob, roomId=room_id)
    await history(bob, objectId=ann.user_id)
    assert site.database.queries == before + 4


async def test_who_may_read_what_was_said_in_a_room(site: Site) -> None:
    ann, bob, carol = await site.user("ann", vip=True), await site.user("bob"), await site.user("carol", vip=True)
    room_id = await a_room(ann)
    connect(site, bob.user_id, room_id=room_id)
    connect(site, carol.user_id, room_id=await a_room(carol))
    await said(site, {"msg_id": ID, "user_id": bob.user_id, "room_id": room_id})
    assert (await site.caller().post("/im/history", json={"roomId": room_id})).refusal[0] == 401
    for reader in (ann, bob):
        assert msg_ids(await history(reader, roomId=room_id)) == [ID]
    assert (await carol.post("/im/history", json={"roomId": room_id})).refusal == (
        403,
        f"roomId = {room_id}: only its members and its anchor may read what was said there",
    )
    await ann.post("/living/closeLiving", form={"roomId": room_id})
    assert msg_ids(await history(ann, roomId=room_id)) == [ID]
    for stranger in (bob, carol):
        assert (await stranger.post("/im/history", json={"roomId": room_id})).refusal == (
            403,
            f"roomId = {room_id}: only its anchor, now that it is closed, may read what was said there",
        )
    assert (await ann.post("/im/history", json={"roomId": 12_345})).refusal == (
        404,
        "roomId = 12345: there never was such a room",
    )


async def test_nobody_reads_what_others_have_sent_each_other(site: Site) -> None:
    ann, bob, carol = [await site.user(name) for name in ("ann", "bob", "carol")]
    await said(site, {"msg_id": ID, "user_id": ann.user_id, "object_id": bob.user_id})
    assert (await site.caller().post("/im/history", json={"objectId": bob.user_id})).refusal[0] == 401
    for other in (ann, bob, carol):
        assert await history(carol, objectId=other.user_id) == {"messages": [], "hasMore": False}
    assert await history(ann, objectId=ann.user_id) == {"messages": [], "hasMore": False}
    assert await history(ann, objectId=99_999) == {"messages": [], "hasMore": False}


async def test_what_is_older_than_the_history_is_not_shown(database: Database) -> None:
    site = Site(database, history_ms=1000)
    ann = await site.user("ann", vip=True)
    room_id = await a_room(ann)
    oldest = first_id(site.now.unix_ms - 1000)
    for target in ({"room_id": room_id}, {"object_id": 10_500}):
        offset = 10 if "room_id" in target else 0
        await said(site, *[{"msg_id": oldest - 50 + n + offset, "user_id": ann.user_id} | target for n in (0, 50, 51)])
    assert msg_ids(await history(ann, roomId=room_id)) == [oldest + 10, oldest + 11]
    assert await history(ann, objectId=10_500, limit=1) | {"messages": []} == {"messages": [], "hasMore": True}
    assert msg_ids(await history(ann, objectId=10_500, limit=2)) == [oldest, oldest + 1]
    assert (await history(ann, objectId=10_500, limit=2))["hasMore"] is False
    site.now = site.now._replace(unix_ms=site.now.unix_ms + 1001)
    assert msg_ids(await history(ann, roomId=room_id)) == []


@pytest.mark.parametrize(
    "how",
    [
        {"json": {"objectId": 20_001, "beforeMsgId": str(ID + 1), "limit": 1}},
        {"json": {"objectId": "20001", "beforeMsgId": str(ID + 1), "roomId": None}},
        {"form": {"objectId": "20001", "beforeMsgId": str(ID + 1), "limit": "100"}},
        {"query_string": {"objectId": "20001", "beforeMsgId": str(ID + 1)}},
        {"form": {"objectId": "20001", "beforeMsgId": ""}},
        {"json": {"objectId": 20_001.0, "beforeMsgId": None, "limit": None}},
        {"json": {"objectId": 20_001, "beforeMsgId": str(2**63 - 1)}},
    ],
)
async def test_how_history_may_be_asked_for(site: Site, how: dict[str, Any]) -> None:
    ann = await site.user()
    await said(site, {"msg_id": ID, "user_id": 20_001, "object_id": ann.user_id})
    assert msg_ids((await ann.post("/im/history", **how)).data) == [ID]


@pytest.mark.parametrize("before", ["0", "7", 7, 7.0, 0, 2**53 - 1, "0000000000000000007"])
async def test_a_small_msg_id_may_be_a_number(site: Site, before: Any) -> None:
    ann = await site.user()
    await said(site, {"msg_id": ID, "user_id": 20_001, "object_id": ann.user_id})
    assert await history(ann, objectId=20_001, beforeMsgId=before) == {"messages": [], "hasMore": False}


MSG_ID_WORDS = "expected a msgId: a whole number from 0 to 9223372036854775807, as text"


@pytest.mark.parametrize(
    ("asked", "msg"),
    [
        ({}, "roomId or objectId: missing, expected one of them"),
        ({"roomId": None}, "roomId or objectId: missing, expected one of them"),
        ({"roomId": 1, "objectId": 10_001}, "roomId = 1, objectId = 10001: expected only one of them"),
        ({"roomId": 0}, "roomId = 0: expected a whole number from 1 to 9007199254740991"),
        ({"roomId": ""}, 'roomId = "": expected a whole number from 1 to 9007199254740991'),
        ({"objectId": 9999}, "objectId = 9999: expected a whole number from 10000 to 9007199254740991"),
        (
            {"roomId": "x", "objectId": 2**53, "beforeMsgId": "a", "limit": 101},
            "roomId = x: expected a whole number from 1 to 9007199254740991; "
            "objectId = a number: expected a whole number from 10000 to 9007199254740991; "
            f"beforeMsgId = a: {MSG_ID_WORDS}; limit = 101: expected a whole number from 1 to 100; "
            "roomId = x, objectId = a number: expected only one of them",
        ),
        (
            {"limit": 0},
            "limit = 0: expected a whole number from 1 to 100; roomId or objectId: missing, expected one of them",
        ),
        ({"roomId": 1, "beforeMsgId": "-1"}, f"beforeMsgId = -1: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": -1}, f"beforeMsgId = -1: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": 1.5}, f"beforeMsgId = 1.5: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": True}, f"beforeMsgId = true: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": ID}, f"beforeMsgId = a number: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": 1e18}, f"beforeMsgId = a number: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": str(2**63)}, f"beforeMsgId = {2**63}: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": "9" * 5000}, f"beforeMsgId = {'9' * 39}…: {MSG_ID_WORDS}"),
        ({"roomId": 1, "beforeMsgId": "١"}, f'beforeMsgId = "\\u0661": {MSG_ID_WORDS}'),
        ({"roomId": 1, "beforeMsgId": " 1"}, f'beforeMsgId = " 1": {MSG_ID_WORDS}'),
        ({"roomId": 1, "beforeMsgId": ["1"]}, f"beforeMsgId = a list: {MSG_ID_WORDS}"),
    ],
)
async def test_what_is_wrong_with_a_question_for_history(site: Site, asked: dict[str, Any], msg: str) -> None:
    ann = await site.user()
    assert (await ann.post("/im/history", json=asked)).refusal == (400, msg)


async def test_history_when_the_database_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: object, **_how: object) -> None:
        raise DatabaseUnavailable("connection refused by db.internal")

    ann = await site.user()
    monkeypatch.setattr(living_history, "conversation_page", away)
    answer = await ann.post("/im/history", json={"objectId": 20_001})
    assert answer.refusal == (503, "the database does not answer: try again in a moment")
    assert answer.headers["Retry-After"] == "2"
