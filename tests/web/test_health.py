from __future__ import annotations

import pytest
import trio
import trio.testing

from qiyu.accounts.accounts import Accounts
from qiyu.errors import DatabaseUnavailable
from qiyu.storage.database import Database
from web.sites import Site


async def test_healthz_answers_in_the_envelope(site: Site) -> None:
    answer = await site.caller().get("/healthz")
    assert answer.body == {"code": 200, "msg": "success", "data": {"status": "ok"}}


async def test_readyz_asks_the_database(site: Site) -> None:
    before = site.database.queries
    assert (await site.caller().get("/readyz")).data == {"status": "ok"}
    assert site.database.queries >= before


async def test_readyz_when_the_database_is_away(database: Database) -> None:
    async def away() -> None:
        await trio.lowlevel.checkpoint()
        raise DatabaseUnavailable("connection refused by db.internal")

    answer = await Site(database, ping=away).caller().get("/readyz")
    assert answer.status == 503
    assert answer.body == {
        "code": 503,
        "msg": "the database does not answer",
        "data": {"status": "unavailable"},
    }


async def test_readyz_when_the_database_hangs(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(None, ping=trio.sleep_forever)  # type: ignore[arg-type]  # a database has no place under this clock
    answer = await site.caller().get("/readyz")
    assert answer.status == 503
    assert trio.current_time() == pytest.approx(1, abs=0.1)


async def test_calls_when_the_database_is_away(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_args: object) -> None:
        await trio.lowlevel.checkpoint()
        raise DatabaseUnavailable("connection refused by db.internal")

    ann = await site.user()
    monkeypatch.setattr(Accounts, "user_of", away)
    answer = await ann.post("/home/initPage")
    assert answer.refusal == (503, "the database does not answer: try again in a moment")
    assert answer.headers["Retry-After"] == "2"
    assert (await site.caller().post("/home/initPage")).status == 200
    assert (await ann.post("/living/list", form={"type": 1, "page": 1, "pageSize": 1})).status == 200


async def test_metrics_are_what_prometheus_reads(site: Site) -> None:
    site.context.metrics.deliveries = 12
    answer = await site.caller().get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE qiyu_deliveries_total counter\nqiyu_deliveries_total 12.0\n" in answer.text
    assert "\nqiyu_sessions 0.0\n" in f"\n{answer.text}"
