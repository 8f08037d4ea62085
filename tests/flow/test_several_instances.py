"""Several instances as processes of their own, with a real Redis and PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from installation import Installation, Instance, installation
from link_proxy import LinkProxy
from raw_clients import ACK, BIZ, DIRECT, ERROR, HEARTBEAT, LIKE, LOGOUT, ROOM, ROOM_CHAT, RawTcpClient

A, B, C = 10_001, 10_002, 10_003
DOUBLE_LOGINS: Final = int(os.environ.get("DOUBLE_LOGINS", "25"))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Installation]:
    """Instances are taken for dead after three seconds."""
    with installation(tmp_path, cluster__lease_seconds="3") as made:
        yield made


async def enter(peer: RawTcpClient, room: int, after: str = "") -> dict[str, Any]:
    await peer.send(ROOM, data={"roomId": room, **({"afterMsgId": after} if after else {})})
    body: dict[str, Any] = (await peer.expect(ROOM))["data"]
    return body


async def say(peer: RawTcpClient, room: int, content: str, cid: str = "") -> None:
    await peer.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": room, "content": content}, clientMsgId=cid)


async def whisper(peer: RawTcpClient, to: int, content: str, cid: str = "") -> None:
    await peer.send(BIZ, bizCode=DIRECT, data={"objectId": to, "content": content}, clientMsgId=cid)


async def say_until_taken(peer: RawTcpClient, room: int, content: str, seconds: float = 30.0) -> float:
    """Again after each 503; returns how long it took."""
    begun = time.monotonic()
    with trio.fail_after(seconds):
        while True:
            await say(peer, room, content, cid=content)
            code, body = await peer.next_packet()
            while code == BIZ:
                code, body = await peer.next_packet()
            if code == ACK:
                return time.monotonic() - begun
            assert (code, body["data"]["code"]) == (ERROR, 503), body
            await trio.sleep(0.05)


async def contents(peer: RawTcpClient, number: int) -> list[str]:
    return [(await peer.expect(BIZ))["data"]["content"] for _ in range(number)]


async def reason_of_the_end(peer: RawTcpClient, seconds: float = 20.0) -> str:
    with trio.fail_after(seconds):
        while True:
            code, body = await peer.next_packet()
            if code == LOGOUT:
                return str(body["data"]["reason"])


async def until(holds: Callable[[], Any], seconds: float = 30.0) -> None:
    with trio.fail_after(seconds):
        while not await trio.to_thread.run_sync(holds):  # noqa: ASYNC110  # of another process
            await trio.sleep(0.05)


async def test_a_room_has_one_order_on_all_instances(fresh: Installation) -> None:
    """Invariant: everybody sees what the others said, by growing msgIds, and all have the same order."""
    instances = fresh.start(3)
    seen: dict[int, list[tuple[int, str]]] = {}

    async def talk(peer: RawTcpClient, user: int) -> None:
        for n in range(50):
            await say(peer, 7, f"{user}-{n}", cid=f"{user}-{n}" if n % 3 else "")

    async def read(peer: RawTcpClient, user: int) -> None:
        seen[user] = []
        receipts = 0
        while len(seen[user]) < 100 or receipts < 33:
            code, body = await peer.next_packet()
            if code == BIZ:
                seen[user].append((int(body["msgId"]), body["data"]["content"]))
            else:
                assert code == ACK, body
                receipts += 1

    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(await one.log_in(A + n)) for n, one in enumerate(instances)]
        for peer in peers:
            await enter(peer, 7)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for n, peer in enumerate(peers):
                    nursery.start_soon(talk, peer, A + n)
                    nursery.start_soon(read, peer, A + n)
    everything = dict(pair for pairs in seen.values() for pair in pairs)
    assert len(everything) == 150
    for user, pairs in seen.items():
        assert [msg_id for msg_id, _ in pairs] == sorted(msg_id for msg_id, _ in pairs)
        assert {content for _, content in pairs} == {
            content for content in everything.values() if not content.startswith(str(user))
        }
    for user in seen:
        own = [content for _, content in sorted(everything.items()) if content.startswith(f"{user}-")]
        assert own == [f"{user}-{n}" for n in range(50)]


async def test_a_resend_elsewhere_is_receipted_with_the_first_msg_id(fresh: Installation) -> None:
    one, two = fresh.start(2)
    async with await one.log_in(A) as a, await two.log_in(B) as b:
        await enter(a, 7)
        await enter(b, 7)
        await say(b, 7, "x", cid="c-1")
        first = await b.expect(ACK)
        assert await contents(a, 1) == ["x"]
    async with await one.log_in(B) as b:
        await enter(b, 7)
        await say(b, 7, "x", cid="c-1")
        again = await b.expect(ACK)
        assert again["msgId"] == first["msgId"]
        await say(b, 7, "other", cid="c-1")
        assert (await b.expect(ERROR))["data"]["code"] == 409


async def test_who_comes_back_on_another_instance_misses_nothing(fresh: Installation) -> None:
    one, two = fresh.start(2)
    async with await one.log_in(A) as a, await two.log_in(B) as b:
        await enter(a, 7)
        await enter(b, 7)
        for n in range(3):
            await say(a, 7, f"m{n}", cid=f"m{n}")
            await a.expect(ACK)
        seen = (await b.expect(BIZ))["msgId"]
    async with await one.log_in(A) as a, await two.log_in(B) as b:
        await enter(a, 7)
        answer = await enter(b, 7, after=seen)
        assert answer["recovered"] is True
        assert await contents(b, 2) == ["m1", "m2"]
        await say(a, 7, "m3", cid="m3")
        assert await contents(b, 1) == ["m3"]


async def test_direct_messages_find_their_receiver_wherever_it_is(fresh: Installation) -> None:
    one, two, three = fresh.start(3)
    async with await one.log_in(A) as a:
        await whisper(a, B, "early", cid="early")
        await a.expect(ACK)
        async with await two.log_in(B) as b:
            assert await contents(b, 1) == ["early"]
            for n in range(20):
                await whisper(a, B, f"d{n}", cid=f"d{n}" if n % 2 else "")
            assert await contents(b, 20) == [f"d{n}" for n in range(20)]
            await whisper(b, A, "back", cid="back")
            await b.expect(ACK)
            got = []
            while "back" not in got:
                code, body = await a.next_packet()
                got += [body["data"]["content"]] if code == BIZ else []
        async with await three.log_in(B) as b:  # nothing was acknowledged
            assert await contents(b, 21) == ["early", *(f"d{n}" for n in range(20))]


async def test_a_login_ends_the_session_on_another_instance(fresh: Installation) -> None:
    one, two = fresh.start(2)
    async with await one.log_in(A) as first, await two.log_in(B) as b:
        async with await two.log_in(A) as second:
            assert await reason_of_the_end(first) == "replaced"
            await whisper(b, A, "x", cid="x")
            assert await contents(second, 1) == ["x"]
            await trio.aclose_forcefully(first.stream)
            await whisper(b, A, "y", cid="y")
            assert await contents(second, 1) == ["y"]


async def test_of_two_logins_at_one_moment_exactly_one_survives(fresh: Installation) -> None:
    """DOUBLE_LOGINS=1000 for the note."""
    instances = fresh.start(2)
    limit = trio.CapacityLimiter(10)

    async def one_of_many(user: int) -> None:
        async with limit:
            await log_in_twice(instances, user)

    async with trio.open_nursery() as nursery:
        for n in range(DOUBLE_LOGINS):
            nursery.start_soon(one_of_many, 20_000 + n)


async def log_in_twice(instances: list[Instance], user: int) -> None:
    peers: list[RawTcpClient] = []
    ended: list[RawTcpClient] = []
    one_has_ended = trio.Event()

    async def log_in(instance: Instance) -> None:
        peers.append(await instance.log_in(user))

    async def read(peer: RawTcpClient) -> None:
        code, body = await peer.next_packet()
        assert (code, body["data"]["reason"]) == (LOGOUT, "replaced"), body
        ended.append(peer)
        one_has_ended.set()

    async with trio.open_nursery() as both:
        for instance in instances:
            both.start_soon(log_in, instance)
    async with trio.open_nursery() as reading:
        for peer in peers:
            reading.start_soon(read, peer)
        with trio.fail_after(20):
            await one_has_ended.wait()
        await trio.sleep(0.05)  # for what must not come
        reading.cancel_scope.cancel()
    assert len(ended) == 1
    (stays,) = [peer for peer in peers if peer not in ended]
    await stays.send(HEARTBEAT)
    await stays.expect(HEARTBEAT)
    for peer in peers:
        await trio.aclose_forcefully(peer.stream)


async def test_a_killed_instance_is_replaced_at_once(fresh: Installation) -> None:
    """Its users log in elsewhere, its rooms have a new home within two seconds, and nobody misses anything."""
    one, two, three = fresh.start(3)
    async with await one.log_in(A) as a, await two.log_in(B) as b, await three.log_in(C) as c:
        for peer in (a, b, c):
            await enter(peer, 7)
        await say(a, 7, "before", cid="before")
        await a.expect(ACK)
        assert await contents(b, 1) == await contents(c, 1) == ["before"]
        one.kill()
        begun = time.monotonic()
        async with await two.say_hello(A) as again:
            assert time.monotonic() - begun < 2.0
            await say_until_taken(b, 7, "after")
            seconds = time.monotonic() - begun
            assert await contents(c, 1) == ["after"]
            await whisper(b, A, "you there", cid="d")
            assert (await again.expect(BIZ))["data"]["content"] == "you there"
    assert seconds < 5.0  # two, on a machine that does nothing else
    assert two.metric("instances_fenced_total") + three.metric("instances_fenced_total") == 1


async def test_an_instance_that_stood_still_ends_its_sessions_and_joins_anew(hasty: Installation) -> None:
    one, two = hasty.start(2)
    async with await one.log_in(A) as a, await two.log_in(B) as b:
        await enter(a, 7)
        await enter(b, 7)
        one.pause()
        await say_until_taken(b, 7, "without you")
        one.go_on()
        begun = time.monotonic()
        assert await reason_of_the_end(a) == "lost"
        async with await one.say_hello(A) as again:
            assert time.monotonic() - begun < 5.0
            await enter(again, 7)
            await say(b, 7, "welcome back", cid="w")
            assert await contents(again, 1) == ["welcome back"]
    await until(lambda: one.metric("links") == 1)


async def test_chat_goes_on_without_redis_and_nobody_misses_anything_when_it_is_back(fresh: Installation) -> None:
    one, two = fresh.start(2)
    async with await one.log_in(A) as a, await two.log_in(B) as b:
        await enter(a, 7)
        await enter(b, 7)
        fresh.redis.stop()
        await say(b, 7, "in the room", cid="r")
        await b.expect(ACK)
        assert await contents(a, 1) == ["in the room"]
        await whisper(a, B, "while it was away", cid="d")
        await a.expect(ACK)
        async with await one.log_in(C) as c:
            await whisper(a, C, "here", cid="h")
            assert await contents(c, 1) == ["here"]
            await until(lambda: "Redis does not answer" in str(one.get("/readyz")["data"]))
            assert one.get("/readyz")["data"]["status"] == "degraded"
            fresh.redis.start()
            assert await contents(b, 1) == ["while it was away"]
            await whisper(b, C, "found you")
            assert await contents(c, 1) == ["found you"]
        await until(lambda: one.get("/readyz")["data"]["status"] == "ok")
        fresh.redis.client.flushall()
        await whisper(a, B, "emptied", cid="e")
        assert await contents(b, 1) == ["emptied"]
    assert one.metric("instances_fenced_total") + two.metric("instances_fenced_total") == 0


async def test_a_link_that_is_cut_refuses_and_then_brings_what_was_missed(fresh: Installation) -> None:
    async with LinkProxy() as first, LinkProxy() as second:
        one, two = fresh.add(), fresh.add()
        for instance, proxy in ((one, first), (two, second)):
            proxy.target = instance.ports["CLUSTER"]
            instance.public_link = proxy.address
            await trio.to_thread.run_sync(instance.start)
        await until(lambda: one.metric("links") == two.metric("links") == 1)
        async with await one.log_in(A) as a, await two.log_in(B) as b:
            await enter(a, 7)
            await enter(b, 7)
            first.cut()
            second.cut()
            await until(lambda: two.metric("links") == 0)
            await trio.sleep(1.2)
            await say(b, 7, "not now", cid="x")
            assert (await b.expect(ERROR))["data"]["code"] == 503
            for n in range(3):
                await say(a, 7, f"m{n}", cid=f"m{n}")
                await a.expect(ACK)
            first.mend()
            second.mend()
            assert await contents(b, 3) == ["m0", "m1", "m2"]
            await say_until_taken(b, 7, "again")
            assert await contents(a, 1) == ["again"]
    assert one.metric("instances_fenced_total") + two.metric("instances_fenced_total") == 0


async def test_a_link_that_stays_cut_sends_the_members_elsewhere(hasty: Installation) -> None:
    async with LinkProxy() as first, LinkProxy() as second:
        one, two = hasty.add(), hasty.add()
        for instance, proxy in ((one, first), (two, second)):
            proxy.target = instance.ports["CLUSTER"]
            instance.public_link = proxy.address
            await trio.to_thread.run_sync(instance.start)
        await until(lambda: one.metric("links") == two.metric("links") == 1)
        async with await one.log_in(A) as a, await two.log_in(B) as b, await two.log_in(C) as c:
            await enter(a, 7)
            await enter(b, 7)
            first.cut()
            second.cut()
            assert await reason_of_the_end(b) == "lost"
            await c.send(HEARTBEAT)
            await c.expect(HEARTBEAT)


async def test_a_rolling_restart_hands_rooms_over_and_loses_nothing(fresh: Installation) -> None:
    one, two = fresh.start(2)
    async with await one.log_in(A) as a, await two.log_in(B) as b:
        await enter(a, 7)
        await enter(b, 7)
        await say(a, 7, "before", cid="before")
        await a.expect(ACK)
        assert await contents(b, 1) == ["before"]
        one.terminate()
        seconds = await say_until_taken(b, 7, "meanwhile")
        assert await reason_of_the_end(a) == "drain"
        async with await two.say_hello(A) as again:
            await enter(again, 7, after="1")
            assert await contents(again, 1) == ["meanwhile"]
        assert await trio.to_thread.run_sync(one.end) == 0
        assert seconds < 3.0  # one, on a machine that does nothing else
        await trio.to_thread.run_sync(one.start)
        await trio.to_thread.run_sync(fresh.wait_for_links)
        async with await one.log_in(C) as c:
            await enter(c, 7)
            await say(b, 7, "after", cid="after")
            assert await contents(c, 1) == ["after"]
    assert two.metric("instances_fenced_total") == 0
    log = one.log.read_text()
    assert "not all could be handed over" not in log


async def test_rooms_are_counted_over_all_instances(tmp_path: Path) -> None:
    with installation(tmp_path, living__events="true") as it:
        one, two, three = it.start(3)
        async with await one.log_in(A) as a, await two.log_in(B) as b, await three.log_in(C) as c:
            assert (await enter(a, 7))["online"] == 1
            assert (await enter(b, 7))["online"] == 2
            assert (await a.next_event("enter"))["userId"] == B
            await count(b, online=2)  # each instance reports once a second
            assert (await enter(c, 7))["online"] == 3
            for peer in (a, b):
                assert (await peer.next_event("enter"))["userId"] == C
            await b.send(BIZ, bizCode=LIKE, data={"roomId": 7, "count": 5})
            await c.send(BIZ, bizCode=LIKE, data={"roomId": 7, "count": 6})
            for peer in (a, b, c):
                await count(peer, online=3, likes=11)
            await c.send(ROOM, data={"roomId": None})
            for peer in (a, b):
                leave = await peer.next_event("leave")
                assert (leave["userId"], leave["online"]) == (C, 2)
            one.kill()  # the home: what was counted goes on from what the others know
            await b.send(BIZ, bizCode=LIKE, data={"roomId": 7, "count": 1})
            await count(b, online=1, likes=12)


async def test_accounts_and_living_rooms_are_the_same_on_every_instance(tmp_path: Path) -> None:
    with installation(tmp_path, living__require_open_room="true") as it:
        one, two = it.start(2)

        def http(instance: Instance, path: str, token: str = "", **fields: Any) -> Any:
            return instance.post(path, token, **fields)

        anchor = await trio.to_thread.run_sync(
            partial(http, one, "/user/register", name="anchor", password="a long password", nickName="anchor")
        )
        qiyu("user", "tag", "anchor", "vip", QIYU_DATABASE__URL=it.database)
        guest = await trio.to_thread.run_sync(
            partial(http, two, "/user/register", name="guest", password="a long password", nickName="guest")
        )
        room = (await trio.to_thread.run_sync(partial(http, two, "/living/startingLiving", anchor["token"], type=1)))[
            "roomId"
        ]
        async with await one.log_in(guest["userId"]) as member:
            await enter(member, room)
            ask = partial(http, two, "/im/online", guest["token"], userIds=[guest["userId"], anchor["userId"]])
            await until(lambda: ask() == {str(guest["userId"]): True, str(anchor["userId"]): False})
            await until(lambda: watching(two, room) == 1)
            await trio.to_thread.run_sync(partial(http, two, "/living/closeLiving", anchor["token"], roomId=room))
            begun = time.monotonic()
            assert (await member.next_event("closed"))["roomId"] == room
            assert time.monotonic() - begun < 0.9  # and not with the next reading of the list
        async with AsyncExitStack() as stack:
            for n in range(3):
                await stack.enter_async_context(await one.log_in(30_000 + n))
            for instance in (one, two):  # each learns within a renewal how many the other has
                told = partial(http, instance, "/im/getImConfig", guest["token"])
                await until(lambda told=told: told()["tcpImServerAddress"] == two.tcp)  # type: ignore[misc]
        rows = [line.split("\t") for line in listed(it).splitlines()]
        assert [row[0] for row in rows] == ["0", "1"]
        assert [row[5] for row in rows] == ["serving"] * 2
        assert [row[8] for row in rows] == ["1"] * 2


async def count(peer: RawTcpClient, online: int, likes: int = 0) -> None:
    with trio.fail_after(20):
        while True:
            event = await peer.next_event("count")
            if (event["online"], event["goodNum"]) == (online, likes):
                return


def listed(it: Installation) -> str:
    return qiyu("instances", QIYU_DATABASE__URL=it.database, QIYU_REDIS__URL=it.redis.url)


def qiyu(*words: str, **environ: str) -> str:
    command = [sys.executable, "-m", "qiyu", *words]
    return subprocess.run(command, env=os.environ | environ, check=True, capture_output=True, text=True).stdout


def watching(instance: Instance, room: int) -> int:
    rooms = instance.post("/living/list", type=1, page=1, pageSize=10)["list"]
    return next((int(each["watchNum"]) for each in rooms if each["id"] == room), -1)


async def test_the_secrets_are_in_no_log_and_a_wrong_one_opens_nothing(fresh: Installation) -> None:
    (one,) = fresh.start(1)
    stranger = fresh.add()
    stranger._environ["QIYU_CLUSTER__SECRET"] = "another secret altogether"
    await trio.to_thread.run_sync(stranger.start)
    await until(lambda: "the proof is wrong" in one.log.read_text() + stranger.log.read_text())
    assert one.metric("links") == 0
    for secret in ("another secret altogether", "what all instances of a test know"):
        assert secret not in one.log.read_text() + stranger.log.read_text()


async def test_a_second_instance_needs_a_database_server_and_the_secret(fresh: Installation) -> None:
    for name, expected in (
        ("QIYU_CLUSTER__SECRET", "cluster.secret is empty"),
        ("QIYU_DATABASE__URL", "database.url is not that of a database server"),
    ):
        instance = fresh.add()
        instance._environ[name] = ""
        instance.spawn()
        assert await trio.to_thread.run_sync(instance.end) == 2
        assert expected in instance.log.read_text()
