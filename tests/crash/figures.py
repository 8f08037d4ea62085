"""What several instances cost, and how long a killed one is missed: `python -m crash.figures`, with tests/ on the path.

Three instances, Redis and PostgreSQL on this machine, and clients in this process: directions, and no promises.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import trio

from installation import Installation, Instance, installation
from raw_clients import ACK, BIZ, LOGIN, ROOM, ROOM_CHAT, RawTcpClient, body_of, frame

ROOM_ID: Final = 7


def echo(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def commands(it: Installation) -> int:
    """That Redis has executed so far; what a script calls is not one of its own."""
    stats: dict[str, Any] = it.redis.client.info("commandstats")
    within = {"hget", "hset", "hdel", "hgetall", "time"}
    return sum(
        int(each["calls"]) for name, each in stats.items() if name.removeprefix("cmdstat_") not in within | {"info"}
    )


async def per_second(it: Installation, seconds: float) -> float:
    before, begun = commands(it), time.monotonic()
    await trio.sleep(seconds)
    return (commands(it) - before) / (time.monotonic() - begun)


async def failover(it: Installation, rounds: int) -> None:
    """Kill the home of a room, and see when its users are back, and when the room takes messages again."""
    users, rooms = [], []
    for n in range(rounds):
        home, other, third = (it.instances[(n + k) % 3] for k in range(3))
        async with (
            await home.say_hello(40_001),
            await other.say_hello(40_002) as member,
            await third.say_hello(40_003) as speaker,
        ):
            room = 1000 + n
            for instance, user in ((home, 40_001),):
                peer = await instance.say_hello(user)
                await peer.send(ROOM, data={"roomId": room})
                await peer.expect(ROOM)
            for each in (member, speaker):
                await each.send(ROOM, data={"roomId": room})
                await each.expect(ROOM)
            home.kill()
            begun = time.monotonic()

            async def back(other: Instance = other, begun: float = begun) -> None:
                async with await other.say_hello(40_001) as again:
                    users.append(time.monotonic() - begun)
                    await again.send(LOGIN)

            async def taken(speaker: RawTcpClient = speaker, room: int = room, begun: float = begun) -> None:
                number = 0
                while True:
                    number += 1
                    data = {"roomId": room, "content": "x"}
                    await speaker.send(BIZ, bizCode=ROOM_CHAT, data=data, clientMsgId=f"{room}-{number}")
                    code, _ = await speaker.next_packet()
                    if code == ACK:
                        rooms.append(time.monotonic() - begun)
                        return
                    await trio.sleep(0.02)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(back)
                nursery.start_soon(taken)
            await trio.aclose_forcefully(peer.stream)
        await trio.to_thread.run_sync(home.start)
        await trio.to_thread.run_sync(it.wait_for_links)
    for name, seconds in (("users back", users), ("room accepts", rooms)):
        echo(f"{name:24} p50 {statistics.median(seconds):.2f} s, max {max(seconds):.2f} s, of {len(seconds)} kills")


async def idle(it: Installation, number: int, stack: AsyncExitStack) -> None:
    limit = trio.CapacityLimiter(50)

    async def log_in(n: int) -> None:
        async with limit:
            await stack.enter_async_context(await it.instances[n % 3].log_in(50_000 + n))

    before = commands(it)
    async with trio.open_nursery() as nursery:
        for n in range(number):
            nursery.start_soon(log_in, n)
    await trio.sleep(3)
    echo(f"{number} logins                {(commands(it) - before) / number:.2f} Redis commands each")
    echo(f"{number} idle users            {await per_second(it, 15):.1f} Redis commands/s")


async def logins(it: Installation) -> None:
    """A hundred a second, each of which leaves again."""
    seconds = 10

    async def come_and_go(n: int) -> None:
        async with await it.instances[n % 3].log_in(70_000 + n):
            await trio.sleep(0.5)

    before, begun = commands(it), time.monotonic()
    async with trio.open_nursery() as nursery:
        for n in range(100 * seconds):
            nursery.start_soon(come_and_go, n)
            await trio.sleep_until(trio.current_time() + 0.01)
    elapsed = time.monotonic() - begun
    rate = 100 * seconds / elapsed
    echo(f"{rate:.0f} logins and logouts/s     {(commands(it) - before) / elapsed:.0f} Redis commands/s")


async def room_messages(it: Installation, members: int, messages: int) -> None:
    """Said on each of three instances, in one room with so many members on each."""
    async with AsyncExitStack() as stack:
        peers = []
        for n in range(3 * members):
            peer = await stack.enter_async_context(await it.instances[n % 3].log_in(80_000 + n))
            await peer.send(ROOM, data={"roomId": ROOM_ID})
            await peer.expect(ROOM)
            peers.append(peer)
        read: Callable[[str], list[int]] = lambda name: [each.metric(name) for each in it.instances]  # noqa: E731
        await trio.sleep(2)
        before = {
            name: read(name) for name in ("link_packets_sent_total", "room_messages_sent_on_total", "deliveries_total")
        }
        redis, begun = commands(it), time.monotonic()

        async def drain(peer: RawTcpClient) -> None:
            while await peer.stream.receive_some(65536):
                pass

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(drain, peer)
            for n in range(messages):
                peer = peers[n % 3]
                body = body_of(bizCode=ROOM_CHAT, data={"roomId": ROOM_ID, "content": "x" * 30}, clientMsgId=f"m{n}")
                await peer.stream.send_all(frame(BIZ, body))
                await trio.sleep_until(begun_at(begun, n))
            with trio.move_on_after(30):
                while sum(read("receipts_total")) < messages:  # noqa: ASYNC110
                    await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        elapsed = time.monotonic() - begun
        after = {name: read(name) for name in before}
        sent = [
            two - one
            for one, two in zip(before["link_packets_sent_total"], after["link_packets_sent_total"], strict=True)
        ]
        on = sum(after["room_messages_sent_on_total"]) - sum(before["room_messages_sent_on_total"])
        echo(f"{messages / elapsed:.0f} room messages/s        {(commands(it) - redis) / elapsed:.1f} Redis commands/s")
        echo(
            f"  {members} members on each of 3   {on / messages:.2f} copies of a message over links, "
            f"{sum(sent) / messages:.2f} packets of any kind"
        )


def begun_at(begun: float, n: int) -> float:
    """A thousand a second."""
    return trio.current_time() + max(begun + n / 1000 - time.monotonic(), 0)


async def measure(options: argparse.Namespace, folder: Path) -> None:
    with installation(folder, limits__connections_per_address="0") as it:
        await trio.to_thread.run_sync(it.start, 3)
        async with AsyncExitStack() as stack:
            echo(f"nobody                   {await per_second(it, 10):.1f} Redis commands/s")
            await idle(it, options.idle, stack)
        await logins(it)
        await room_messages(it, options.members, options.messages)
        await failover(it, options.kills)


def main() -> None:
    parser = argparse.ArgumentParser(prog="crash.figures", description=__doc__)
    parser.add_argument("--idle", type=int, default=5000, help="users")
    parser.add_argument("--members", type=int, default=20, help="of a room, on each instance")
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qiyu-figures-") as folder:
        trio.run(measure, options, Path(folder), strict_exception_groups=True)


if __name__ == "__main__":
    main()
