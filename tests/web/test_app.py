from __future__ import annotations

import json

from quart import request
from structlog.testing import capture_logs

from qiyu.web.app import MAX_REQUEST_BYTES, make_app


async def test_healthz_answers_in_the_envelope() -> None:
    answer = await make_app().test_client().get("/healthz")
    assert answer.status_code == 200
    assert await answer.get_json() == {"code": 200, "msg": "success", "data": {"status": "ok"}}


async def test_what_is_not_there_is_said_in_the_envelope() -> None:
    client = make_app().test_client()
    for path, code in (("/nowhere", 404), ("/healthz", 405)):
        answer = await client.post(path)
        assert answer.status_code == code
        assert answer.content_type == "application/json"
        assert (await answer.get_json())["code"] == code


async def test_an_unknown_error_tells_a_number_and_nothing_else() -> None:
    app = make_app()

    @app.get("/broken")
    async def broken() -> str:
        raise RuntimeError("the inside")

    with capture_logs() as logs:
        answer = await app.test_client().get("/broken")
    text = await answer.get_data(as_text=True)
    assert answer.status_code == 500
    assert "inside" not in text
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["request_id"] in json.loads(text)["msg"]
    assert "the inside" in str(entry["exc_info"])


async def test_a_request_that_is_too_long_is_refused() -> None:
    app = make_app()

    @app.post("/echo")
    async def echo() -> str:
        return str(await request.get_data(as_text=True))

    answer = await app.test_client().post("/echo", data=b"x" * (MAX_REQUEST_BYTES + 1))
    assert answer.status_code == 413
