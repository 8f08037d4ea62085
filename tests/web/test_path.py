"""Served below a path that a proxy in front has, be it left there or taken away."""

from __future__ import annotations

import re

import pytest

from qiyu.storage.database import Database
from web.sites import PASSWORD, Site


@pytest.fixture
def below(database: Database) -> Site:
    return Site(database, path="/apps/live")


@pytest.mark.parametrize("prefix", ["/apps/live", ""])
async def test_left_or_taken_away_everything_is_there(below: Site, prefix: str) -> None:
    caller = below.caller()
    for path in ("/", "/healthz", "/docs", "/openapi.json", "/metrics"):
        assert (await caller.get(prefix + path)).status == 200
    assert (await caller.post(f"{prefix}/home/initPage")).data["loginStatus"] is False
    assert (await caller.get(f"{prefix}/nowhere")).refusal == (404, "Not Found")


@pytest.mark.parametrize("path", ["/apps/liver/healthz", "/apps/healthz", "/apps/live/apps/live/healthz", "/other/"])
async def test_other_paths_are_not_there(below: Site, path: str) -> None:
    assert (await below.caller().get(path)).refusal == (404, "Not Found")


async def test_without_the_slash_browsers_are_sent_on(below: Site) -> None:
    answer = await below.caller().get("/apps/live")
    assert (answer.status, answer.headers["Location"]) == (308, "/apps/live/")


async def test_the_cookie_is_for_that_path_alone(below: Site, site: Site) -> None:
    form = {"name": "ann", "password": PASSWORD}
    answer = await below.caller().post("/apps/live/user/register", form=form)
    assert "; Path=/apps/live;" in answer.headers["Set-Cookie"] + ";"
    assert "; Path=/;" in (await site.caller().post("/user/login", form=form)).headers["Set-Cookie"] + ";"


async def test_links_are_relative_and_the_description_names_the_path(below: Site, site: Site) -> None:
    for each in (below, site):
        for page in ("/docs", "/"):
            links = re.findall(r'(?:href|src)="([^"]+)"', (await each.caller().get(page)).text)
            assert links
            assert not [link for link in links if link.startswith("/")]
    assert (await below.caller().get("/openapi.json")).body["servers"] == [{"url": "/apps/live"}]
    assert not (await site.caller().get("/openapi.json")).body.get("servers")
