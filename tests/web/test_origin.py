from __future__ import annotations

import ipaddress

import pytest

from qiyu.services.origins import Origins
from qiyu.storage.database import Database
from web.sites import HOST, PASSWORD, Answered, Caller, Site, bearer

OURS = "https://app.example.com"
THEIRS = "https://evil.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
ANN = {"name": "ann", "password": PASSWORD}


def cors_headers(answer: Answered) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("access-control")}


async def is_logged_in(caller: Caller, **headers: str) -> bool:
    """Whether the call is made, and as whoever the cookie is of."""
    answer = await caller.post(
        "/home/initPage", headers={name.replace("_", "-"): each for name, each in headers.items()}
    )
    return answer.status == 200 and bool(answer.data["loginStatus"])


async def is_refused(caller: Caller, **headers: str) -> bool:
    answer = await caller.post(
        "/home/initPage", headers={name.replace("_", "-"): each for name, each in headers.items()}
    )
    return answer.refusal[0] == 403


# Cookies


async def test_pages_of_this_host_may_use_the_cookie(site: Site) -> None:
    ann = await site.user()
    assert await is_logged_in(ann)
    assert await is_logged_in(ann, Origin=f"http://{HOST}")
    assert await is_logged_in(ann, Origin=f"https://{HOST}"), "TLS may have ended at a proxy"
    assert await is_logged_in(ann, Origin=f"https://{HOST}", Host=f"{HOST}:443")
    assert await is_logged_in(ann, Origin="http://[::1]", Host="[::1]:80")
    assert await is_logged_in(ann, Origin="http://[::1]:8080", Host="[::1]:8080")
    assert await is_logged_in(ann, Origin=f"https://{HOST}", Host=HOST.upper())
    assert await is_logged_in(ann, Sec_Fetch_Site="same-origin", Origin="http://localhost:5173")
    assert await is_logged_in(ann, Sec_Fetch_Site="none")


@pytest.mark.parametrize(
    "origin",
    [
        THEIRS,
        f"https://{HOST}:8443",
        f"https://{HOST}.evil.example",
        f"https://evil.{HOST}",
        "null",
        "",
        "*",
        HOST,
        "ä",
    ],
)
async def test_pages_of_other_hosts_may_not(site: Site, origin: str) -> None:
    ann = await site.user()
    assert await is_refused(ann, Origin=origin)


@pytest.mark.parametrize("fetched", ["cross-site", "same-site", "", "nonsense"])
async def test_what_the_browser_says_of_itself_goes_first(site: Site, fetched: str) -> None:
    ann = await site.user()
    assert await is_refused(ann, Sec_Fetch_Site=fetched)
    assert await is_refused(ann, Sec_Fetch_Site=fetched, Origin=f"http://{HOST}")


async def test_every_call_is_checked_and_nothing_is_done(site: Site) -> None:
    ann = await site.user(vip=True)
    theirs = {"Origin": THEIRS}
    for path in ("/user/login", "/user/register", "/user/logout", "/living/startingLiving", "/im/getImConfig"):
        answer = await ann.post(path, form={"type": 1} | ANN | {"name": "bob"}, headers=theirs)
        assert answer.refusal[0] == 403
        assert "Set-Cookie" not in answer.headers
    assert await is_logged_in(ann)
    assert (await ann.post("/living/list", form={"type": 1, "page": 1, "pageSize": 1})).data["list"] == []


async def test_the_header_needs_no_check(site: Site) -> None:
    ann = await site.user()
    for headers in ({"Origin": THEIRS}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await site.caller().post("/home/initPage", headers=headers | bearer(ann.token))
        assert answer.data["loginStatus"]
    answer = await ann.post("/home/initPage", headers={"Origin": THEIRS, "Authorization": "Bearer x"})
    assert not answer.data["loginStatus"], "the cookie does not count"


async def test_the_refusal_says_what_to_do(site: Site) -> None:
    code, msg = (await site.caller().post("/home/initPage", headers={"Origin": THEIRS + "/\x1b"})).refusal
    assert (code, "[http] cors_origins" in msg, "\x1b" in msg) == (403, True, False)


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_page_that_came_without_tls_is_not_one_of_ours_to_a_call_that_has_it(
    database: Database, proxied: bool
) -> None:
    if proxied:
        site = Site(database, trusted_proxies=(ipaddress.ip_network("192.0.2.0/24"),))
        caller = site.caller(headers={"X-Forwarded-Proto": "https"})
    else:
        site = Site(database)
        caller = site.caller(scheme="https")
    assert await is_refused(caller, Origin=f"http://{HOST}")
    assert await is_refused(caller, Origin=f"http://{HOST}:443")
    assert (await caller.post("/home/initPage", headers={"Origin": f"https://{HOST}"})).status == 200
    assert (await site.caller().post("/home/initPage", headers={"Origin": f"https://{HOST}"})).status == 200, (
        "a proxy that says nothing may have ended TLS"
    )


async def test_where_cookies_are_for_tls_every_page_is_to_have_come_with_it(database: Database) -> None:
    site = Site(database, secure_cookies=True)
    assert await is_refused(site.caller(), Origin=f"http://{HOST}")
    assert (await site.caller().post("/home/initPage", headers={"Origin": f"https://{HOST}"})).status == 200


LOCAL = {"Origin": "http://localhost:5173", "Sec-Fetch-Site": "same-site"}


async def test_pages_of_this_machine_may_call_a_server_of_this_machine(site: Site) -> None:
    """The rule of WebSockets as well."""
    ann = await site.user()
    for host in ("localhost:8080", "127.0.0.1:8080", "[::1]", "LOCALHOST"):
        answer = await ann.post("/home/initPage", headers=LOCAL | {"Host": host})
        assert answer.data["loginStatus"]
        assert answer.headers["Access-Control-Allow-Origin"] == LOCAL["Origin"]
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert answer.headers["Vary"] == "Origin"
    for host in (HOST, "localhost.example.com", "10.0.0.1:8080"):
        assert (await ann.post("/home/initPage", headers=LOCAL | {"Host": host})).refusal[0] == 403


async def test_a_list_takes_the_place_of_this_machine(database: Database) -> None:
    site = Site(database, origins=Origins([OURS]))
    ann = await site.user()
    answer = await ann.post("/home/initPage", headers=LOCAL | {"Host": "localhost:8080"})
    assert answer.refusal[0] == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_call_with_no_origin_is_said_to_have_none(site: Site) -> None:
    _, msg = (await site.caller().post("/home/initPage", headers={"Sec-Fetch-Site": "cross-site"})).refusal
    assert msg.startswith("Origin is absent: ")


# CORS


@pytest.fixture
def cors_site(database: Database) -> Site:
    return Site(database, origins=Origins([OURS, "capacitor://localhost"]))


async def test_listed_pages_may_call_with_their_cookies(cors_site: Site) -> None:
    ann = await cors_site.user()
    for origin in (OURS, "capacitor://localhost"):
        for fetched in ("same-site", "cross-site"):
            answer = await ann.post("/home/initPage", headers={"Origin": origin, "Sec-Fetch-Site": fetched})
            assert answer.data["loginStatus"]
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert answer.headers["Access-Control-Allow-Credentials"] == "true"
            assert answer.headers["Vary"] == "Origin"


async def test_listed_pages_may_read_what_went_wrong(cors_site: Site) -> None:
    for path in ("/im/getImConfig", "/nowhere"):
        answer = await cors_site.caller().post(path, headers={"Origin": OURS})
        assert answer.status >= 400
        assert answer.headers["Access-Control-Allow-Origin"] == OURS


async def test_other_pages_may_read_nothing(cors_site: Site) -> None:
    assert await is_refused(await cors_site.user(), Origin=THEIRS)
    answer = await cors_site.caller().get("/healthz", headers={"Origin": THEIRS})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert answer.headers["Vary"] == "Origin", "or a cache would give it to a page that may"


async def test_a_preflight(cors_site: Site) -> None:
    answer = await cors_site.caller().open("/im/online", method="OPTIONS", headers={"Origin": OURS} | PREFLIGHT)
    assert (answer.status, answer.text) == (204, "")
    assert cors_headers(answer) == {
        "access-control-allow-origin": OURS,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, POST",
        "access-control-allow-headers": "Authorization, Content-Type",
        "access-control-max-age": "600",
        "access-control-expose-headers": "Retry-After",
    }


@pytest.mark.parametrize("origin", [THEIRS, "null", "*"])
async def test_a_preflight_of_another_page(cors_site: Site, origin: str) -> None:
    answer = await cors_site.caller().open("/im/online", method="OPTIONS", headers={"Origin": origin} | PREFLIGHT)
    assert not cors_headers(answer)


async def test_without_cors_nothing_is_said_of_it(site: Site) -> None:
    answer = await site.caller().open("/im/online", method="OPTIONS", headers={"Origin": OURS} | PREFLIGHT)
    assert not cors_headers(answer)
    answer = await site.caller().open("/im/online", method="OPTIONS")
    assert answer.status == 200


@pytest.fixture
def open_site(database: Database) -> Site:
    return Site(database, origins=Origins(["*", OURS]))


async def test_any_page_may_call_without_cookies(open_site: Site) -> None:
    ann = await open_site.user()
    answer = await ann.post("/home/initPage", headers={"Origin": THEIRS, "Sec-Fetch-Site": "cross-site"})
    assert not answer.data["loginStatus"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    answer = await open_site.caller().post("/home/initPage", headers={"Origin": THEIRS} | bearer(ann.token))
    assert answer.data["loginStatus"]


async def test_any_page_may_log_in_but_gets_no_cookie(open_site: Site) -> None:
    await open_site.user()
    answer = await open_site.caller().post("/user/login", form=ANN, headers={"Origin": THEIRS})
    assert answer.data["token"]
    assert "Set-Cookie" not in answer.headers


async def test_listed_pages_keep_their_cookies_where_any_may_call(open_site: Site) -> None:
    ann = await open_site.user()
    answer = await ann.post("/home/initPage", headers={"Origin": OURS, "Sec-Fetch-Site": "cross-site"})
    assert answer.data["loginStatus"]
    assert answer.headers["Access-Control-Allow-Origin"] == OURS
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert (await ann.post("/home/initPage", headers={"Origin": "*"})).data["loginStatus"] is False
