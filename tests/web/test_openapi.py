from __future__ import annotations

import re
from typing import Any

from web.sites import Site

UNDESCRIBED = {"/openapi.json", "/docs", "/", "/assets/<version>/<path:name>", "/favicon.ico"}


async def described(site: Site) -> dict[str, Any]:
    schema: dict[str, Any] = (await site.caller().get("/openapi.json")).body
    return schema


async def test_every_call_is_described(site: Site) -> None:
    paths = (await described(site))["paths"]
    rules = [rule for rule in site.app.url_map.iter_rules() if not rule.rule.startswith("/media/")]
    rules = [rule for rule in rules if rule.rule not in UNDESCRIBED]  # and /media is for engines, in their terms
    assert sorted(paths) == sorted(rule.rule for rule in rules)
    for path, operations in paths.items():
        [(method, operation)] = operations.items()
        assert method == ("get" if path in {"/healthz", "/readyz", "/metrics"} else "post")
        assert operation["summary"]


async def test_parameters_are_described_as_they_are_checked(site: Site) -> None:
    operation = (await described(site))["paths"]["/living/list"]["post"]
    contents = operation["requestBody"]["content"]
    assert sorted(contents) == ["application/json", "application/x-www-form-urlencoded"]
    for content in contents.values():
        schema = content["schema"]
        assert schema["required"] == ["type", "page", "pageSize"]
        page_size = schema["properties"]["pageSize"]
        assert (page_size["type"], page_size["minimum"], page_size["maximum"]) == ("integer", 1, 100)
        assert page_size["description"] == "a whole number from 1 to 100"


async def test_where_one_of_two_is_wanted_that_is_described(site: Site) -> None:
    operation = (await described(site))["paths"]["/im/history"]["post"]
    assert operation["requestBody"]["required"] is False, "it may be in the query"
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["oneOf"] == [{"required": ["roomId"]}, {"required": ["objectId"]}]
    assert "required" not in schema
    defaults = {name: each.get("default") for name, each in schema["properties"].items()}
    assert defaults == {"roomId": None, "objectId": None, "beforeMsgId": "", "limit": 50}
    assert schema["properties"]["beforeMsgId"]["type"] == "string"


async def test_answers_are_described_in_their_envelope(site: Site) -> None:
    schema = await described(site)
    responses = schema["paths"]["/living/list"]["post"]["responses"]
    answer = responses["200"]["content"]["application/json"]["schema"]
    assert answer["properties"]["code"] == {"const": 200, "title": "Code", "type": "integer"}
    assert answer["properties"]["data"] == {"$ref": "#/components/schemas/Listed"}
    assert sorted(schema["components"]["schemas"]["ListedRoom"]["properties"]) == [
        "anchorAvatar",
        "anchorId",
        "anchorNickName",
        "covertImg",
        "goodNum",
        "id",
        "onAir",
        "roomName",
        "watchNum",
    ]
    assert responses["default"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Failure"}


async def test_who_must_be_logged_in_is_described(site: Site) -> None:
    schema = await described(site)
    closed = {path for path, each in schema["paths"].items() if "security" in each.get("post", {})}
    of_rooms = {"startingLiving", "closeLiving", "mute", "unmute", "remove", "readmit", "restricted"}
    of_messages = {"getImConfig", "online", "history"}
    assert closed == {f"/living/{name}" for name in of_rooms} | {f"/im/{name}" for name in of_messages}
    assert schema["components"]["securitySchemes"] == {
        "cookie": {"type": "apiKey", "name": "qytk", "in": "cookie"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }


async def test_the_page_loads_nothing_from_elsewhere(site: Site) -> None:
    answer = await site.caller().get("/docs")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "POST /living/startingLiving" in answer.text
    assert "1 (normal) or 2 (PK)" in answer.text
    assert "<script" not in answer.text
    assert not re.findall(r"https?://[^&]*[\"']", answer.text)
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
