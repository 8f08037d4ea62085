from __future__ import annotations

import pytest
from structlog.testing import capture_logs
from werkzeug.exceptions import MethodNotAllowed, NotFound

from qiyu.accounts.throttle import TooSoon
from qiyu.errors import CallRefused, DatabaseUnavailable
from qiyu.web.responses import (
    ResponseData,
    on_database_unavailable,
    on_http_error,
    on_refused,
    on_unknown_error,
    reply,
    success,
)


class Told(ResponseData):
    user_id: int
    nick_name: str


async def test_data_is_in_camel_case_in_the_envelope() -> None:
    response = success(Told(user_id=10_000, nick_name="小明"))
    assert response.content_type == "application/json"
    assert await response.get_data(as_text=True) == (
        '{"code":200,"msg":"success","data":{"userId":10000,"nickName":"小明"}}'
    )
    assert await success().get_data(as_text=True) == '{"code":200,"msg":"success","data":null}'


@pytest.mark.parametrize(("code", "status"), [(400, 400), (401, 401), (404, 404), (501, 409), (503, 503)])
async def test_a_refusal_has_its_code_and_the_status_that_http_has_for_it(code: int, status: int) -> None:
    response = await on_refused(CallRefused(code, "why"))
    assert response.status_code == status
    assert await response.get_json() == {"code": code, "msg": "why", "data": None}
    assert response.headers.get("Retry-After") == ("2" if code == 503 else None)


async def test_who_comes_too_soon_is_told_when_to_come_again() -> None:
    response = await on_refused(TooSoon(7))
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")


async def test_without_the_database_it_is_not_told_why() -> None:
    with capture_logs() as logs:
        response = await on_database_unavailable(DatabaseUnavailable("password of db.internal is wrong"))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
    assert "db.internal" not in await response.get_data(as_text=True)
    assert [entry["reason"] for entry in logs] == ["password of db.internal is wrong"]


async def test_what_http_itself_has_against_it() -> None:
    response = await on_http_error(MethodNotAllowed(["POST", "OPTIONS"]))
    assert (response.status_code, response.headers["Allow"]) == (405, "OPTIONS, POST")
    response = await on_http_error(NotFound())
    assert await response.get_json() == {"code": 404, "msg": "Not Found", "data": None}


async def test_of_a_bug_it_is_told_a_number_that_the_log_has_too() -> None:
    with capture_logs() as logs:
        response = await on_unknown_error(RuntimeError("the inside"))
    text = await response.get_data(as_text=True)
    assert response.status_code == 500
    assert "inside" not in text
    assert logs[0]["request_id"] in text


async def test_headers_are_those_that_were_asked_for() -> None:
    response = reply(404, "none", [1], headers={"X-Y": "z"})
    assert (response.status_code, response.headers["X-Y"]) == (404, "z")
    assert await response.get_json() == {"code": 404, "msg": "none", "data": [1]}
