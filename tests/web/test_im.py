from __future__ import annotations

from typing import Any

import pytest

from qiyu.protocol.packet import APP_ID
from qiyu.routing.outbox import Outbox
from qiyu.routing.session import Session
from qiyu.storage.database import Database
from qiyu.web.images import DEFAULT_AVATAR
from web.sites import HOST, Site, bearer

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def test_a_token_and_where_to_take_it(site: Site) -> None:
    ann = await site.user(nickName="Ann", avatar="/ann.png")
    data = (await ann.post("/im/getImConfig")).data
    identity = site.tokens.verify(data.pop("token"), user_id=ann.user_id, app_id=APP_ID, now_ms=site.now.unix_ms)
    assert identity == (APP_ID, ann.user_id, "Ann", "/ann.png")
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


def connect(site: Site, user_id: int, app_id: int = APP_ID) -> None:
    session = Session(1, None, Outbox(lambda _: None, 1, None), 0)  # type: ignore[arg-type]  # nothing is sent
    session.user_id, session.app_id = user_id, app_id
    site.hub.bind(session)


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
