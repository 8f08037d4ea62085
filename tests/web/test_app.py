from __future__ import annotations

import pytest
from quart import request
from structlog.testing import capture_logs

from qiyu.web.app import MAX_REQUEST_BYTES
from web.sites import PASSWORD, Site

CALLS = [
    "/user/register",
    "/user/login",
    "/user/logout",
    "/home/initPage",
    "/living/startingLiving",
    "/living/closeLiving",
    "/living/anchorConfig",
    "/living/list",
    "/living/mute",
    "/living/unmute",
    "/living/remove",
    "/living/readmit",
    "/living/restricted",
    "/im/getImConfig",
    "/im/online",
    "/im/history",
]
PAGES = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/"]


async def test_what_is_not_there_is_said_in_the_envelope(site: Site) -> None:
    caller = site.caller()
    for path in (
        "/nowhere",
        "/index.html",
        "/assets/",
        "/user/login/",
        "/user//login",
        "/static/x",
        "/im/../healthz",
        "/%00",
    ):
        for method in ("GET", "POST"):
            answer = await caller.open(path, method=method)
            assert answer.refusal == (404, "Not Found")
            assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", CALLS)
async def test_calls_are_posted(site: Site, path: str) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "NONSENSE"):
        answer = await site.caller().open(path, method=method)
        assert answer.refusal == (405, "Method Not Allowed")
        assert answer.headers["Allow"] == "OPTIONS, POST"


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_got(site: Site, path: str) -> None:
    assert (await site.caller().post(path)).refusal[0] == 405
    assert (await site.caller().open(path, method="HEAD")).status == 200


@pytest.mark.parametrize("path", [*CALLS, *PAGES, "/nowhere"])
async def test_every_answer_has_the_headers_that_keep_it_safe(site: Site, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await site.caller().open(path, method=method)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] in {"no-store", "no-cache"}
        if path in CALLS:
            assert answer.headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_an_unknown_error_tells_a_number_and_nothing_else(site: Site) -> None:
    @site.app.get("/broken")
    async def broken() -> str:
        raise RuntimeError("the inside")

    with capture_logs() as logs:
        answer = await site.caller().get("/broken")
    code, msg = answer.refusal
    assert code == 500
    assert "inside" not in answer.text
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert msg == f"internal error, request {entry['request_id']}"
    assert "the inside" in str(entry["exc_info"])
    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_request_that_is_too_long_is_refused(site: Site) -> None:
    @site.app.post("/echo")
    async def echo() -> str:
        return str(len(await request.get_data()))

    caller = site.caller()
    for path in ("/echo", "/user/login"):
        for kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            body = b"x" * (MAX_REQUEST_BYTES + 1)
            answer = await caller.post(path, data=body, headers={"Content-Type": kind})
            assert answer.refusal[0] == 413


async def test_neither_passwords_nor_tokens_are_logged(site: Site) -> None:
    with capture_logs() as logs:
        ann = await site.user()
        await ann.post("/user/login", form={"name": "ann", "password": PASSWORD + "!"})
        await ann.post("/user/register", form={"name": "", "password": PASSWORD})
        token = (await ann.post("/im/getImConfig")).data["token"]
        await ann.post("/user/logout")
    for secret in (PASSWORD, ann.token, token):
        assert secret not in str(logs)


@pytest.mark.parametrize("host", ["x" * 300, "x" * 64, "a..b", ".a", "a b", "evil.example/path", "a:b:c", "a:65536"])
async def test_a_host_that_is_none_is_refused_and_not_a_bug(site: Site, host: str) -> None:
    with capture_logs() as logs:
        answer = await site.caller().get("/healthz", headers={"Host": host})
    assert answer.refusal[0] == 400
    assert logs == []


@pytest.mark.parametrize(
    "host", ["xn--99999999.example", "xn--a-ecp.ru:8080", "under_score.example", "[::1]", "a.", "a~b"]
)
async def test_a_host_is_what_rfc_3986_lets_it_be(site: Site, host: str) -> None:
    assert (await site.caller().get("/healthz", headers={"Host": host})).status == 200
