from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest

from qiyu.accounts.accounts import AccountRules
from qiyu.storage.database import Database
from web.sites import PASSWORD, Answered, Site, bearer

ANN = {"name": "ann", "password": PASSWORD}


def cookie_of(answer: Answered) -> dict[str, str]:
    """The value and the attributes of the one cookie that was set."""
    [line] = answer.headers.getlist("Set-Cookie")
    [morsel] = SimpleCookie(line).values()
    assert morsel.key == ("__Host-qytk" if morsel["secure"] else "qytk")
    return {"value": morsel.value} | {name: value for name, value in morsel.items() if value}


@pytest.mark.parametrize("how", ["form", "json", "query_string"])
async def test_registering_logs_in(site: Site, how: str) -> None:
    caller = site.caller()
    answer = await caller.post("/user/register", **{how: ANN | {"nickName": "Ann 🙂", "avatar": "/ann.png"}})
    assert sorted(answer.data) == ["token", "userId"]
    assert cookie_of(answer)["value"] == answer.data["token"]
    page = (await caller.post("/home/initPage")).data
    assert (page["loginStatus"], page["userId"], page["nickName"]) == (True, answer.data["userId"], "Ann 🙂")


async def test_too_many_logins_from_one_address_are_told_when_to_come_again(database: Database) -> None:
    tried: list[bytes] = []

    def takes_login(address: bytes, _now: object) -> bool:
        tried.append(address)
        return len(tried) <= 1

    caller = Site(database, takes_login=takes_login).caller()
    assert (await caller.post("/user/register", form=ANN)).status == 200
    for path in ("/user/login", "/user/register"):
        answer = await caller.post(path, form=ANN)
        assert (answer.refusal[0], answer.headers["Retry-After"]) == (429, "1")
    assert tried == [bytes([192, 0, 2, 1])] * 3


async def test_the_cookie_is_for_http_alone_and_for_this_site_alone(database: Database) -> None:
    site = Site(database, session_seconds=1000)
    cookie = cookie_of(await site.caller().post("/user/register", form=ANN))
    del cookie["value"], cookie["expires"]
    assert cookie == {"path": "/", "max-age": "1000", "httponly": True, "samesite": "Lax"}


@pytest.mark.parametrize(("same_site", "secure"), [("lax", False), ("strict", False), ("none", True)])
async def test_a_cookie_that_pages_of_other_sites_send_is_for_tls_alone(
    database: Database, same_site: str, secure: bool
) -> None:
    site = Site(database, same_site=same_site)
    cookie = cookie_of(await site.caller().post("/user/register", form=ANN))
    assert cookie["samesite"] == same_site.title()
    assert ("secure" in cookie) is secure


@pytest.mark.parametrize(("scheme", "secure_cookies"), [("https", False), ("http", True)])
async def test_behind_tls_the_cookie_is_for_tls_alone(database: Database, scheme: str, secure_cookies: bool) -> None:
    site = Site(database, secure_cookies=secure_cookies)
    assert "secure" in cookie_of(await site.caller(scheme=scheme).post("/user/register", form=ANN))


async def test_what_is_wrong_with_a_registration(site: Site) -> None:
    caller = site.caller()
    code, msg = (await caller.post("/user/register", json={"name": "x", "password": "hunter2"})).refusal
    assert code == 400
    assert msg == "name = x: expected 2 to 30 characters that can be seen; password: expected 8 to 128 characters"
    code, msg = (await caller.post("/user/register", json={"name": 12, "avatar": "javascript:alert(1)"})).refusal
    assert code == 400
    assert [part.split(":")[0] for part in msg.split("; ")] == ["name = 12", "password", 'avatar = "javascript']
    await caller.post("/user/register", form=ANN)
    assert (await caller.post("/user/register", form=ANN | {"name": "ANN"})).refusal == (501, "the name 'ANN' is taken")


async def test_logging_in(site: Site) -> None:
    ann = await site.user("ann")
    caller = site.caller()
    answer = await caller.post("/user/login", json=ANN)
    assert answer.data["userId"] == ann.user_id
    assert answer.data["token"] != ann.token
    assert (await caller.post("/home/initPage")).data["userId"] == ann.user_id
    assert (await caller.post("/user/login")).refusal == (
        400,
        "name: missing, expected a text; password: missing, expected a text",
    )


async def test_a_wrong_password_and_a_wrong_name_are_the_same(site: Site) -> None:
    await site.user("ann")
    refusals = {
        (await site.caller().post("/user/login", form=form)).refusal
        for form in (ANN | {"password": "wrong horse"}, ANN | {"name": "bob"}, ANN | {"name": "\x00"})
    }
    assert refusals == {(401, "the name or the password is wrong")}


async def test_guessing_is_slowed_down(site: Site) -> None:
    await site.user("ann")
    caller = site.caller()
    for _ in range(5):
        assert (await caller.post("/user/login", form=ANN | {"password": "wrong horse"})).status == 401
    answer = await caller.post("/user/login", form=ANN)
    assert answer.refusal == (429, "too many attempts: try again in 1 s")
    assert answer.headers["Retry-After"] == "1"
    site.now = site.now._replace(monotonic=site.now.monotonic + 1)
    assert (await caller.post("/user/login", form=ANN)).status == 200


async def test_each_address_is_slowed_down_for_itself(database: Database) -> None:
    site = Site(database, AccountRules(address_registrations=1))
    assert (await site.caller().post("/user/register", form=ANN)).status == 200
    assert (await site.caller().post("/user/register", form=ANN | {"name": "bob"})).status == 429
    assert (await site.caller(address="192.0.2.2").post("/user/register", form=ANN | {"name": "bob"})).status == 200


async def test_logging_out_ends_the_session(site: Site) -> None:
    ann = await site.user("ann")
    answer = await ann.post("/user/logout")
    assert answer.data is None
    cookie = cookie_of(answer)
    assert (cookie["value"], cookie["max-age"]) == ("", "0")
    assert not (await ann.post("/home/initPage")).data["loginStatus"]
    assert not (await site.caller().post("/home/initPage", headers=bearer(ann.token))).data["loginStatus"]
    assert (await ann.post("/user/logout")).status == 200, "there is nothing to do"


async def test_logging_out_with_the_header_ends_that_session(site: Site) -> None:
    ann = await site.user("ann")
    other = (await site.caller().post("/user/login", form=ANN)).data["token"]
    await ann.post("/user/logout", headers=bearer(other))
    assert (await ann.post("/home/initPage", headers=bearer(ann.token))).data["loginStatus"]
    assert not (await site.caller().post("/home/initPage", headers=bearer(other))).data["loginStatus"]


async def test_where_registration_is_closed_accounts_are_made_by_whoever_runs_the_server(database: Database) -> None:
    site = Site(database, is_registration_open=False)
    answer = await site.caller().post("/user/register", form={"name": "ann", "password": PASSWORD})
    assert answer.refusal == (403, "registration is closed here: whoever runs the server makes the accounts")
    assert "Set-Cookie" not in answer.headers
    assert (await site.caller().post("/home/initPage")).data["registrationOpen"] is False
    await site.accounts.add("ann", PASSWORD, "", "", now=site.now)
    assert (await site.caller().post("/user/login", form={"name": "ann", "password": PASSWORD})).data["userId"]


@pytest.mark.parametrize(
    ("fields", "scheme", "name"),
    [
        ({}, "http", "qytk"),
        ({}, "https", "__Host-qytk"),
        ({"secure_cookies": True}, "http", "__Host-qytk"),
        ({"same_site": "none"}, "http", "__Host-qytk"),
        ({"path": "/live"}, "https", "qytk"),
    ],
)
async def test_over_tls_the_cookie_is_of_this_very_host(
    database: Database, fields: dict[str, Any], scheme: str, name: str
) -> None:
    caller = Site(database, **fields).caller(scheme=scheme, use_cookies=False)
    form = {"name": "ann", "password": PASSWORD}
    set_cookie = (await caller.post("/user/register", form=form)).headers["Set-Cookie"]
    assert set_cookie.startswith(f"{name}=")
    assert ("Secure" in set_cookie) == (name != "qytk" or "path" in fields)
    assert "Domain" not in set_cookie
    assert "HttpOnly" in set_cookie
    value = set_cookie.partition("=")[2].partition(";")[0]
    for sent, counts in ((name, True), ({"qytk": "__Host-qytk", "__Host-qytk": "qytk"}[name], False)):
        answer = await caller.post("/home/initPage", headers={"Cookie": f"{sent}={value}"})
        assert answer.data["loginStatus"] is counts, "one from a neighbour in the domain is nobody's"
