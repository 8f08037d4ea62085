"""Administration on a port of its own: what it shows, and that the public one shows nothing of it."""

from __future__ import annotations

import pytest
import trio

from qiyu.errors import DatabaseUnavailable
from qiyu.storage.database import Database
from qiyu.web.app import make_admin_app
from web.sites import Caller, Site


async def away() -> None:
    await trio.lowlevel.checkpoint()
    raise DatabaseUnavailable("connection refused by db.internal")


def admin_of(site: Site) -> Caller:
    public, site.app = site.app, make_admin_app(site.context, site.app)
    caller = site.caller()
    site.app = public
    return caller


async def test_what_is_there_is_there_alone(database: Database) -> None:
    site = Site(database, shows_inside=False, path="/live")
    public, admin = site.caller(), admin_of(site)
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert (await public.get(path)).refusal == (404, "Not Found")
        assert (await admin.get(path)).status == 200
    for path in ("/healthz", "/readyz"):
        assert (await public.get(path)).status == (await admin.get(path)).status == 200
    for path in ("/user/login", "/living/list", "/im/getImConfig", "/media/on_publish"):
        assert (await admin.post(path)).refusal == (404, "Not Found")
    assert (await admin.get("/")).refusal == (404, "Not Found")


async def test_it_describes_the_calls_of_the_public_port(database: Database) -> None:
    site = Site(database, shows_inside=False, path="/live")
    admin = admin_of(site)
    description = (await admin.get("/openapi.json")).body
    assert "/living/list" in description["paths"]
    assert "/metrics" not in description["paths"]
    assert description["servers"] == [{"url": "/live"}]
    assert "/living/list" in (await admin.get("/docs")).text


async def test_why_it_is_not_ready_is_told_there_alone(database: Database) -> None:
    site = Site(database, shows_inside=False, ping=away)
    for caller, why in ((site.caller(), "not ready"), (admin_of(site), "the database does not answer")):
        answer = await caller.get("/readyz")
        assert answer.status == 503
        assert answer.body == {"code": 503, "msg": why, "data": {"status": "unavailable"}}


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/healthz", "/nowhere"])
async def test_its_answers_have_the_headers_that_keep_them_safe(database: Database, path: str) -> None:
    answer = await admin_of(Site(database, shows_inside=False)).get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_without_a_port_of_its_own_all_is_on_the_public_one(site: Site) -> None:
    for path in ("/metrics", "/docs", "/openapi.json"):
        assert (await site.caller().get(path)).status == 200
