"""The HTTP application over a real database, with time in the test's hand and no socket; and who makes calls there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar, cast

import trio
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from werkzeug.datastructures import Headers

from qiyu.accounts.accounts import AccountRules, Accounts
from qiyu.accounts.passwords import Passwords
from qiyu.living.directory import RoomDirectory
from qiyu.living.engines import Engines
from qiyu.living.events import RoomEvents
from qiyu.living.history import History
from qiyu.living.moderation import Moderation
from qiyu.living.restrictions import Restrictions
from qiyu.living.rooms import LivingRooms
from qiyu.living.stream_keys import StreamKeys
from qiyu.living.streams import StreamRules, Streams
from qiyu.metrics import Gauge, Metrics
from qiyu.model import Instant
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import Outboxes, OutboxLimits
from qiyu.routing.router import Router
from qiyu.services.tokens import Tokens
from qiyu.storage.database import Database
from qiyu.storage.users import VIP
from qiyu.web.app import make_app
from qiyu.web.context import WebContext

T = TypeVar("T")

HOST = "live.example.com"
PASSWORD = "correct horse"
NO_DATABASE: Final = cast("Database", None)
"""For a test whose calls ask nothing of one."""


async def at_once(work: Callable[[], T]) -> T:
    """Runs it in no thread at all."""
    await trio.lowlevel.checkpoint()
    return work()


class Answered(NamedTuple):
    """What came back."""

    status: int
    headers: Headers
    text: str

    @property
    def body(self) -> Any:
        """The envelope."""
        return json.loads(self.text)

    @property
    def data(self) -> Any:
        """Of a call that was done."""
        assert self.status == 200, self.text
        assert self.body["code"] == 200
        return self.body["data"]

    @property
    def refusal(self) -> tuple[int, str]:
        """The code and the reason of a call that was not done."""
        assert self.body["data"] is None
        assert self.status == {501: 409}.get(self.body["code"], self.body["code"])
        return self.body["code"], self.body["msg"]


class Site:
    """One instance, seen from HTTP. Keyword arguments are fields of `WebContext`."""

    def __init__(
        self, database: Database, rules: AccountRules | None = None, *, history_ms: int = 0, **fields: Any
    ) -> None:
        self.database = database
        self.now = Instant(1000.0, 1_700_000_000_000)
        metrics = Metrics()
        in_flight = InFlight(1024, metrics)
        self.hub = Hub(in_flight)
        router = Router(Outboxes(OutboxLimits(2**20, 2**22)), in_flight, metrics)
        events = RoomEvents(self.hub, router, deliveries=0, send_events=False)
        restrictions = Restrictions(events)
        directory = RoomDirectory(self.hub, events, restrictions, require_open_room=True)
        self.tokens = Tokens("a secret for tests alone", 300)
        self.accounts = Accounts(database, Passwords(at_once, PasswordHasher.from_parameters(CHEAPEST)), rules)
        self.streams = Streams(StreamRules(), metrics, lambda *_: None)
        self.context = WebContext(
            accounts=self.accounts,
            living_rooms=LivingRooms(database, directory),
            room_directory=directory,
            restrictions=restrictions,
            moderation=Moderation(database, restrictions),
            history=History(database, self.hub, history_ms),
            tokens=self.tokens,
            stream_keys=StreamKeys("a secret for tests alone", 86_400),
            streams=self.streams,
            engine_pushes=Engines(self.streams),
            hub=self.hub,
            metrics=metrics,
            gauges={"sessions": Gauge("Users who are logged in.", lambda: len(self.hub))},
            clock=lambda: self.now,
            ping=lambda: database.read(lambda _connection: []),
            tcp_port=8085,
            ws_port=8086,
            rtmp_port=1935,
        )
        self.context = replace(self.context, **fields)
        self.app = make_app(self.context)

    def caller(self, **how: Any) -> Caller:
        """Somebody who is not logged in; `how` are arguments of `Caller`."""
        return Caller(self, **how)

    async def user(self, name: str = "ann", *, vip: bool = False, **profile: str) -> Caller:
        """Somebody with an account, logged in with the cookie."""
        caller = self.caller()
        data = (await caller.post("/user/register", form={"name": name, "password": PASSWORD} | profile)).data
        caller.user_id, caller.token = data["userId"], data["token"]
        if vip:
            await self.accounts.tag(caller.user_id, VIP)
        return caller


class Caller:
    """A browser or a program, at one address."""

    def __init__(
        self,
        site: Site,
        *,
        address: str = "192.0.2.1",
        scheme: str = "http",
        headers: dict[str, str] | None = None,
        use_cookies: bool = True,
    ) -> None:
        self.user_id = 0
        self.token = ""
        self._client = site.app.test_client(use_cookies)
        self._address = address
        self._scheme = scheme
        self._headers = {"Host": HOST} | (headers or {})

    async def post(self, path: str, **how: Any) -> Answered:
        """Make a call; `how` are arguments of quart's client: form, json, query_string, data, headers."""
        return await self.open(path, method="POST", **how)

    async def get(self, path: str, **how: Any) -> Answered:
        """Ask for a page."""
        return await self.open(path, method="GET", **how)

    async def open(self, path: str, *, headers: dict[str, str] | None = None, **how: Any) -> Answered:
        """Make any request."""
        answer = await self._client.open(
            path,
            headers=self._headers | (headers or {}),
            scheme=self._scheme,
            scope_base={"client": (self._address, 50_000)},
            **how,
        )
        return Answered(answer.status_code, answer.headers, await answer.get_data(as_text=True))


def bearer(token: str) -> dict[str, str]:
    """The session in the header."""
    return {"Authorization": f"Bearer {token}"}
