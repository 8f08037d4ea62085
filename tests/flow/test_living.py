"""A live room, from its opening to its record, as people see it: over HTTP, WebSocket and TCP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trio

from qiyu.accounts.accounts import Accounts
from qiyu.accounts.passwords import Passwords
from qiyu.drivers.clock import read_clock
from qiyu.storage.database import Database, database_url
from qiyu.storage.living_rooms import find_record
from qiyu.storage.users import VIP, add_tag
from raw_clients import BIZ, DIRECT, ERROR, LIKE, LOGIN, LOGOUT, ROOM, RawTcpClient, RawWsClient, Rejected
from servers import RunningServer, Start

OPEN = {"living__require_open_room": "true", "living__events": "true"}


async def call(server: RunningServer, path: str, session: str = "", **fields: Any) -> tuple[int, Any]:
    """POST a JSON body; the status, and `data` or the message."""
    request = urllib.request.Request(
        f"http://{server.http}{path}", json.dumps(fields).encode(), {"Content-Type": "application/json"}
    )
    if session:
        request.add_header("Authorization", f"Bearer {session}")

    def ask() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                body = json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                body = json.load(refused)
        return body["code"], body["data"] if body["code"] == 200 else body["msg"]

    return await trio.to_thread.run_sync(ask)


async def register(server: RunningServer, name: str) -> tuple[int, str]:
    """A new user: id, and session."""
    code, data = await call(server, "/user/register", name=name, password="a long password")
    assert code == 200, data
    return data["userId"], data["token"]


async def test_a_room_from_its_opening_to_its_record(start_server: Start, tmp_path: Path) -> None:
    async with start_server(**OPEN) as server, Database.open(database_url("", tmp_path)) as database:
        anchor, anchor_session = await register(server, "anchor")
        viewer, viewer_session = await register(server, "viewer")
        assert anchor == 10000

        code, reason = await call(server, "/living/startingLiving", anchor_session, type=1)
        assert code == 403, reason
        await database.run(add_tag, anchor, VIP)  # as `qiyu user tag` does, in another process
        code, data = await call(server, "/living/startingLiving", anchor_session, type=1)
        assert code == 200, data
        room_id = data["roomId"]

        code, data = await call(server, "/living/list", type=1, page=1, pageSize=10)
        assert code == 200
        assert [(room["id"], room["roomName"]) for room in data["list"]] == [(room_id, f"主播-{anchor}的直播间")]

        code, config = await call(server, "/im/getImConfig", viewer_session)
        assert code == 200
        assert config["wsImServerAddress"] == server.ws
        assert config["tcpImServerAddress"] == server.tcp
        code, anchor_config = await call(server, "/im/getImConfig", anchor_session)
        async with (
            await RawWsClient.log_in(config["wsImServerAddress"], viewer, config["token"], room_id) as watcher,
            await RawTcpClient.connect(anchor_config["tcpImServerAddress"]) as host,
        ):
            await host.log_in(anchor, anchor_config["token"])
            await host.send(ROOM, data={"roomId": room_id})
            assert (await host.expect(ROOM))["data"] == {"roomId": room_id, "online": 2, "lastMsgId": ""}
            assert (await watcher.next_event("enter"))["userId"] == anchor

            await watcher.say(room_id, "hello")
            heard = (await host.expect(BIZ))["data"]
            assert (heard["content"], heard["senderName"]) == ("hello", "viewer")
            await watcher.send(BIZ, bizCode=LIKE, data={"roomId": room_id, "count": 9})
            while True:
                count = await host.next_event("count")
                if count["goodNum"]:
                    break
            assert (count["goodNum"], count["online"]) == (9, 2)
            code, data = await call(server, "/living/list", type="1", page=1, pageSize=10)
            assert (data["list"][0]["watchNum"], data["list"][0]["goodNum"]) == (2, 9)

            assert (await call(server, "/living/closeLiving", viewer_session, roomId=room_id))[0] == 403
            assert (await call(server, "/living/closeLiving", anchor_session, roomId=room_id))[0] == 200
            assert (await watcher.next_event("closed"))["roomId"] == room_id
            await watcher.say(room_id, "anybody left?")
            assert (await watcher.expect(ERROR))["data"]["code"] == 403
            await watcher.send(ROOM, data={"roomId": room_id})
            assert (await watcher.expect(ERROR))["data"]["code"] == 404
            await watcher.send(BIZ, bizCode=DIRECT, data={"objectId": anchor, "content": "bye"})
        assert (await call(server, "/living/list", type=1, page=1, pageSize=10))[1] == {"list": [], "hasNext": False}
        record = await database.read(find_record, room_id)
        assert record is not None
        assert record.end_time >= record.start_time
        assert (record.watch_num, record.good_num) == (2, 9)


async def test_a_room_that_is_not_open_is_refused_at_every_door(start_server: Start) -> None:
    async with start_server(**OPEN) as server:
        async with await server.tcp_peer(10001, 5) as one, await server.ws_peer(10002, 5) as two:
            for peer in (one, two):  # the login was answered; the room was not
                assert (await peer.expect(ERROR))["data"]["code"] == 404
                await peer.send(ROOM, data={"roomId": 6})
                await peer.say(6, "too early")
                assert (await peer.expect(ERROR))["data"]["code"] == 404
                assert (await peer.expect(ERROR))["data"]["code"] == 403


async def test_rooms_and_accounts_outlast_a_restart(start_server: Start, tmp_path: Path) -> None:
    async with start_server(**OPEN) as server, Database.open(database_url("", tmp_path)) as database:
        anchor, session = await register(server, "anchor")
        await database.run(add_tag, anchor, VIP)
        room_id = (await call(server, "/living/startingLiving", session, type=2))[1]["roomId"]
        server.stop()
        with trio.fail_after(10):
            await server.stopped.wait()
    async with start_server(**OPEN) as server:
        assert (await call(server, "/living/list", type=2, page=1, pageSize=10))[1]["list"][0]["id"] == room_id
        async with await server.ws_peer(10002, room_id) as viewer:
            await viewer.say(room_id, "still here")
            await viewer.send(ROOM, data={"roomId": room_id})
            assert (await viewer.expect(ROOM))["data"]["online"] == 1
        code, data = await call(server, "/home/initPage", session)
        assert (code, data["userId"], data["showStartLivingBtn"]) == (200, anchor, True)


async def test_who_signs_out_over_http_is_signed_out_everywhere(start_server: Start) -> None:
    async with start_server() as server:
        user, session = await register(server, "ann")
        _, config = await call(server, "/im/getImConfig", session)
        path = f"/{config['token']}/{user}"
        async with await RawWsClient.connect(server.ws, path) as peer:
            await peer.expect(LOGIN)
            assert (await call(server, "/user/logout", session))[0] == 200
            assert (await peer.expect(LOGOUT))["data"] == {"reason": "signedOut", "reconnect": False}
            assert (await peer.expect_closed()).code == 4002
        with pytest.raises(Rejected) as rejected:
            await RawWsClient.connect(server.ws, path)
        assert rejected.value.status == 401
    async with start_server() as server:  # after a restart as well
        with pytest.raises(Rejected) as rejected:
            await RawWsClient.connect(server.ws, path)
        assert rejected.value.status == 401


async def test_a_new_password_by_the_command_line_ends_what_the_old_one_opened(
    start_server: Start, tmp_path: Path
) -> None:
    async with start_server() as server:
        user, session = await register(server, "ann")
        _, config = await call(server, "/im/getImConfig", session)
        async with await RawWsClient.connect(server.ws, f"/{config['token']}/{user}") as peer:
            await peer.expect(LOGIN)
            async with Database.open(database_url("", tmp_path)) as database:  # as `qiyu user password` does
                accounts = Accounts(database, Passwords(trio.to_thread.run_sync))
                await accounts.set_password(user, "battery staple", read_clock())
            assert (await peer.expect(LOGOUT))["data"]["reason"] == "signedOut"
