"""One seed: a cluster lives, everything goes wrong that can, all is well again, and the record is judged."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import count

from history.judge import Kind, judge
from history.record import History, Sent
from history.record import User as To
from qiyu.errors import PresenceUnavailable
from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import FindPins, User
from qiyu.services.homes import RoomKey
from simulate.database import Database
from simulate.network import Network
from simulate.people import APP, Person
from simulate.server import Cluster, Server
from simulate.world import World, told

PLANTS = ("unpin without compare", "no fence", "answer before the subscription", "inbox before the pin")
HEALED_SECONDS = 45.0


@dataclass
class Verdict:
    """What came of a seed."""

    seed: int
    faults: list[str]
    summary: dict[str, int]
    happened: Counter[str]
    log: list[str]


class Run:
    def __init__(self, seed: int, plant: str = "", *, seconds: float = 40.0, servers: int = 3, people: int = 8) -> None:
        self.seed = seed
        self.seconds = seconds
        self.world = World(seed)
        self.history = History()
        self.happened: Counter[str] = Counter()
        self.cluster = Cluster(
            self.world,
            MemoryPresence(lambda: int(self.world.now * 1000)),
            Database(self.world, is_fencing=plant != "no fence"),
            Network(self.world),
            plant,
            count(1),
        )
        self.cluster.servers = [Server(self.cluster, host) for host in range(servers)]
        rooms = [RoomKey(APP, 1), RoomKey(APP, 2)]
        users = [User(APP, 20_000 + n) for n in range(people)]
        self.people = [
            Person(self.cluster, self.history, user, rooms[n % 2], [other for other in users if other != user], n == 0)
            for n, user in enumerate(users)
        ]

    def run(self) -> Verdict:
        world = self.world
        with told(world):
            for server in self.cluster.servers:
                server.start()
            for person in self.people:
                world.after(world.random.uniform(0.1, 3.0), person.start)
            world.after(world.random.uniform(4.0, 8.0), self._trouble)
            world.run(self.seconds)
            self._heal()
            world.run(self.seconds + HEALED_SECONDS)
        return Verdict(self.seed, self._judge(), self.history.summary(), self.happened, world.log)

    def _trouble(self) -> None:
        if self.world.now >= self.seconds:
            return
        name = self.world.random.choice(
            [
                "kill", "pause", "stop", "cut", "blind", "presence emptied", "presence away", "database away",
                "commits unknown", "hang up", "log in twice", "hang up", "log in twice",
            ]
        )  # fmt: skip
        self.happened[name] += 1
        getattr(self, "_" + name.replace(" ", "_"))()
        self.world.after(self.world.random.choice([0.1, 1.0, 3.0, 6.0]), self._trouble)

    def _pick(self) -> Server:
        return self.world.random.choice(self.cluster.servers)

    def _for_a_while(self) -> float:
        return self.world.random.choice([0.2, 2.0, 6.0, 14.0, 20.0])

    def _kill(self) -> None:
        server = self._pick()
        if server.is_alive:
            server.kill()
            self.world.after(self._for_a_while(), lambda: self._start(server))

    def _stop(self) -> None:
        server = self._pick()
        if server.is_alive and not server.is_paused:
            self.world.say(f"stop {server.node and server.node.me}")
            server.stop()
            self.world.after(self._for_a_while() + 5.0, lambda: self._start(server))

    def _start(self, server: Server) -> None:
        if not server.is_alive:
            server.start()

    def _pause(self) -> None:
        server = self._pick()
        if server.is_alive and not server.is_paused:
            server.pause()
            self.world.after(self._for_a_while(), server.resume)

    def _cut(self) -> None:
        one, other = self.world.random.sample(range(len(self.cluster.servers)), 2)
        pair = frozenset((one, other))
        self.world.say(f"cut hosts {one} and {other}")
        self.cluster.network.cuts.add(pair)
        self.world.after(self._for_a_while(), lambda: self._mend(pair))

    def _mend(self, pair: frozenset[int]) -> None:
        self.world.say(f"mend hosts {sorted(pair)}")
        self.cluster.network.cuts.discard(pair)

    def _blind(self) -> None:
        server = self._pick()
        server.is_blind = True
        self.world.say(f"blind host {server.host}")

        def see() -> None:
            server.is_blind = False

        self.world.after(self._for_a_while(), see)

    def _presence_emptied(self) -> None:
        self.world.say("presence emptied")
        self.cluster.presence.empty()

    def _presence_away(self) -> None:
        self.world.say("presence away")
        self.cluster.presence.failure = PresenceUnavailable("away")

        def back() -> None:
            self.world.say("presence back")
            self.cluster.presence.failure = None

        self.world.after(self._for_a_while(), back)

    def _database_away(self) -> None:
        self.world.say("database away")
        self.cluster.database.is_away = True

        def back() -> None:
            self.cluster.database.is_away = False

        self.world.after(self.world.random.choice([0.2, 2.0, 5.0]), back)

    def _commits_unknown(self) -> None:
        self.cluster.database.unknown = 0.3

        def over() -> None:
            self.cluster.database.unknown = 0.0

        self.world.after(self._for_a_while(), over)

    def _hang_up(self) -> None:
        self.world.random.choice(self.people).hang_up()

    def _log_in_twice(self) -> None:
        self.world.random.choice(self.people).log_in_again()

    def _heal(self) -> None:
        self.world.say("all is well")
        cluster = self.cluster
        cluster.network.cuts.clear()
        cluster.presence.failure = None
        cluster.database.is_away = False
        cluster.database.unknown = 0.0
        for server in cluster.servers:
            server.is_blind = False
            server.resume()
            if not server.is_alive:
                server.start()
        for person in self.people:
            person.is_quiet = True

    def _came_by_two_ways(self, text: str) -> bool:
        """A direct message that was sent again on another connection counts as sent there.

        With one server that makes no difference. Here the connection may lead to another one, and what that one stores
        may reach the receiver before what waits for a link between the first and the receiver.
        """
        earlier, later = re.findall(r"'(\d+-\d+)' \(", text)
        sends = [event for event in self.history.events if isinstance(event, Sent)]
        where = {key: {event.connection for event in sends if event.key == key} for key in (earlier, later)}
        is_direct = any(event.key == earlier and isinstance(event.target, To) for event in sends)
        return is_direct and len(where[earlier] | where[later]) > 1

    def _judge(self) -> list[str]:
        faults = list(self.cluster.database.broken)
        faults += [
            f"{fault.at:.3f} {fault.kind.name}: {fault.text}"
            for fault in judge(self.history, retry_seconds=0.0)
            if fault.kind is not Kind.OUT_OF_ORDER or not self._came_by_two_ways(fault.text)
        ]
        nodes = [server.node for server in self.cluster.servers if server.node is not None]
        for person in self.people:
            where = [(node.me, node.sessions[person.user].number) for node in nodes if person.user in node.sessions]
            [[pin]] = self.cluster.presence.execute([FindPins((person.user,))])  # type: ignore[misc]
            pinned = None if pin is None else (pin.instance, pin.session)
            if where != [pinned]:
                faults.append(f"user {person.user.user_id} has the sessions {where}, and is pinned at {pinned}")
            if person.unanswered:
                faults.append(f"user {person.user.user_id} has no answer to {list(person.unanswered)}")
        return faults
