"""One run: the clients chat while the server is killed and its database fails; then all is quiet, and is judged."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from crash.databases import Database, create
from crash.people import LOST, Connection, Manners, Person
from crash.server import Server, ServerProcess, StartFailed
from history.judge import Fault, judge
from history.record import History

FIRST_USER: Final = 10_001
STARTS: Final = 5
"""How often a start is tried: the database may just be failing."""
SETTLE_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 1.0
"""What is judged; the server waits for 4, but a client may read the first copy late."""


@dataclass(frozen=True)
class Options:
    """What to do."""

    seconds: float = 60.0
    kills: int = 20
    clients: int = 30
    rooms: int = 3
    pause: float = 0.15
    """Seconds between two things that one client does, on average."""
    faults: bool = True
    """Let the database fail too."""
    fault_seconds: tuple[float, float] = (0.3, 3.0)
    """For how long, from and to."""
    quiet_seconds: float = 1.0
    """At the end: nothing has come for so long, so nothing will."""
    database: str = "sqlite"
    url: str = ""
    seed: int = 0
    instances: int = 1


@dataclass
class Result:
    """What happened, and what is wrong with it."""

    history: History
    faults: list[Fault] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """All else that is wrong."""
    kills: int = 0
    injected: Counter[str] = field(default_factory=Counter)

    @property
    def is_good(self) -> bool:
        return not self.faults and not self.complaints

    def summary(self) -> str:
        """For people."""
        counts = self.history.summary()
        kinds = Counter(fault.kind.name for fault in self.faults)
        injected = ", ".join(f"{number} × {name}" for name, number in sorted(self.injected.items())) or "none"
        lines = [
            f"kills            {self.kills}",
            f"database faults  {injected}",
            f"connections      {counts['connected']}, entries {counts['entered']} ({counts['recovered']} recovered)",
            f"messages sent    {counts['messages']}, and {counts['resends']} times again",
            f"receipted        {counts['receipted']}, refused {counts['refused']}",
            f"delivered        {counts['received']}, of which doubles {counts['doubles']}",
            f"acknowledged     {counts['acknowledged']} (and their confirmations)",
            f"lost             {kinds['LOST'] + kinds['HOLE']}",
            f"wrong order      {kinds['OUT_OF_ORDER'] + kinds['NOT_GROWING']}",
            f"all faults       {dict(kinds) or 0}",
        ]
        return "\n".join([*lines, *self.complaints, *(str(fault) for fault in self.faults[:20])])


class Run:
    """One run, in a folder of its own."""

    def __init__(self, options: Options, database: Database, folder: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._database = database
        self._server: Server = self._make_server(folder)
        self._say = say
        self._random = random.Random(f"{options.seed} kills")
        self._is_up = False
        self.result = Result(History())

    def _make_server(self, folder: Path) -> Server:
        return ServerProcess(folder, self._database.url)

    async def run(self) -> Result:
        options, result = self._options, self.result
        users = tuple(range(FIRST_USER, FIRST_USER + options.clients))
        rooms = tuple(range(1, options.rooms + 1))
        manners = Manners(options.pause, users, rooms, enter_at_login=options.instances == 1)
        async with trio.open_nursery() as background:
            try:
                await self._start(background)
                people = [
                    Person(user, self._server, result.history, manners, f"{options.seed} {user}", background)
                    for user in users
                ]
                background.start_soon(self._watch)
                async with trio.open_nursery() as chatting:
                    for person in people:
                        chatting.start_soon(person.live)
                    await self._disturb(background)
                    await trio.sleep(min(1.0, options.seconds / options.kills if options.kills else 1.0))
                    chatting.cancel_scope.cancel()
                self._say("the last kill is done: everybody logs in, reads and acknowledges")
                with trio.move_on_after(SETTLE_SECONDS) as settling:
                    await self._settle(people)
                if settling.cancelled_caught:
                    result.complaints.append(f"not everything came to rest in {SETTLE_SECONDS:g} s")
                self._is_up = False
                code = await self._server.stop()
                if code != 0:
                    result.complaints.append(f"at SIGTERM the server ended with {code}")
            finally:
                self._is_up = False
                self._server.kill()
            background.cancel_scope.cancel()
        result.complaints += [f"the server wrote: {line}" for line in self._server.complaints()[:20]]
        self._say("judging")
        several = options.instances > 1
        drained = not settling.cancelled_caught
        result.faults = judge(result.history, retry_seconds=RETRY_SECONDS, drained=drained, several=several)
        return result

    # The server, and what happens to it

    async def _disturb(self, nursery: trio.Nursery) -> None:
        """Kill it so many times in so many seconds, and let the database fail in between."""
        options = self._options
        rounds = max(options.kills, 1)
        for number in range(1, rounds + 1):
            until = trio.current_time() + options.seconds / rounds * self._random.uniform(0.6, 1.4)
            async with trio.open_nursery() as failing:
                if options.faults and self._random.random() < 0.6:
                    failing.start_soon(self._fail)
                await trio.sleep_until(until)
                if options.kills:
                    await self._kill_and_start(nursery)
                    summary = self.result.history.summary()
                    self._say(
                        f"kill {number}: {summary['messages']} messages sent, {summary['receipted']} receipts, "
                        f"{summary['received']} deliveries"
                    )

    async def _fail(self) -> None:
        await trio.sleep(self._random.uniform(0, self._options.seconds / max(self._options.kills, 1) / 2))
        name = self._random.choice(sorted(self._database.faults))
        seconds = self._random.uniform(*self._options.fault_seconds)
        self.result.injected[name] += 1
        await self._database.faults[name](self._server, seconds)

    async def _kill_and_start(self, nursery: trio.Nursery) -> None:
        self._is_up = False
        self.result.history.killed(trio.current_time())
        self._server.kill()
        self.result.kills += 1
        await trio.sleep(self._random.uniform(0, 0.2))
        await self._start(nursery)

    async def _start(self, nursery: trio.Nursery) -> None:
        for _ in range(STARTS - 1):
            try:
                await self._server.start(nursery)
            except StartFailed:
                self._say("the server did not start; the database may just be failing: once more")
                await trio.sleep(1)
            else:
                self._is_up = True
                return
        await self._server.start(nursery)
        self._is_up = True

    async def _watch(self) -> None:
        while True:
            await trio.sleep(0.1)
            if self._is_up and self._server.has_ended:
                self._is_up = False
                self.result.complaints.append("the server ended by itself")

    # The end

    async def _settle(self, people: list[Person]) -> None:
        """Everybody logs in, gets answers to all that was sent, reads and acknowledges all; nothing is left then."""
        gathering = _Gathering(len(people))
        async with trio.open_nursery() as nursery:
            for person in people:
                nursery.start_soon(self._settle_one, person, gathering)

    async def _settle_one(self, person: Person, gathering: _Gathering) -> None:
        while True:
            try:
                async with person.connected() as connection:
                    await person.come_back(connection)
                    await self._quiet(person, connection)
                    await gathering.wait()  # what others resend may still come
                    await self._quiet(person, connection)
                async with person.connected() as connection:
                    await person.come_back(connection)
                    await self._quiet(person, connection)
                    await gathering.wait()  # so that all stays are open when all is over
                    await self._quiet(person, connection)
                    await gathering.wait()
            except LOST:
                self.result.complaints.append(f"{person.user} lost its connection when nothing was done to it")
                await trio.sleep(1)
            else:
                return

    async def _quiet(self, person: Person, connection: Connection) -> None:
        """Return when everything sent was answered, everything received acknowledged, and nothing more comes."""
        while True:
            before = connection.packets
            await connection.acknowledge()
            await trio.sleep(self._options.quiet_seconds)
            if connection.unanswered or person.to_acknowledge or connection.entries or connection.heartbeats:
                continue
            if person.pending:
                await person.repair(connection)
            elif connection.packets <= before + 1:  # the answer to its heartbeat
                return


class _Gathering:
    """Those who wait go on when all have come."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._come = 0
        self._all = trio.Event()

    async def wait(self) -> None:
        self._come += 1
        if self._come == self._number:
            self._come = 0
            self._all.set()
            self._all = trio.Event()
            return
        await self._all.wait()


async def crash(options: Options, say: Callable[[str], None], folder: Path | None = None) -> Result:
    """Do it all. Without a `folder`, in one that is removed at the end."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="qiyu-crash-") as name:
            return await crash(options, say, Path(name))
    database = await create(options.database, options.url)
    try:
        if options.instances == 1:
            return await Run(options, database, folder, say).run()
        from crash.several import SeveralRun  # which is made of what stands here

        return await SeveralRun(options, database, folder, say).run()
    finally:
        with trio.CancelScope(shield=True):
            await database.drop()
