from __future__ import annotations

import json
from typing import Any

import pytest

from qiyu.web.app import MAX_FORM_PARTS
from qiyu.web.params import MAX_FIELDS
from web.sites import Site

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PAGE = {"type": "1", "page": "1", "pageSize": "10"}


async def refusal(site: Site, **how: Any) -> tuple[int, str]:
    return (await site.caller().post("/living/list", **how)).refusal


async def is_accepted(site: Site, **how: Any) -> bool:
    return (await site.caller().post("/living/list", **how)).status == 200


@pytest.mark.parametrize(
    "how",
    [
        {"form": PAGE},
        {"json": PAGE},
        {"json": {"type": 1, "page": 1.0, "pageSize": 10}},
        {"query_string": PAGE},
        {"query_string": {"type": "1"}, "json": {"page": 1, "pageSize": 10}},
        {"query_string": {"type": "9"}, "json": PAGE},
        {"data": "type=1&page=1&pageSize=10", "headers": FORM},
        {"data": json.dumps(PAGE), "headers": {"Content-Type": "application/json; charset=utf-8"}},
        {"json": PAGE | {"unknown": {"a": [None]}}},
        {"query_string": PAGE, "data": "", "headers": JSON},
        {"query_string": PAGE, "data": "null", "headers": JSON},
        {"query_string": PAGE, "data": '{"type": null}', "headers": JSON},
    ],
)
async def test_parameters_come_from_anywhere(site: Site, how: dict[str, Any]) -> None:
    assert await is_accepted(site, **how)


async def test_multipart_forms(site: Site) -> None:
    body = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in PAGE.items()
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert await is_accepted(site, data=f"{body}--x--\r\n", headers=headers)
    for broken in ("", "--x", "x" * 1000, "--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--"):
        assert (await refusal(site, data=broken, headers=headers))[0] == 400
    assert (await refusal(site, data=body, headers={"Content-Type": "multipart/form-data"}))[0] == 400


async def test_so_many_fields_and_not_one_more(site: Site) -> None:
    fields = "type=1&page=1&pageSize=10" + "&x=1" * (MAX_FIELDS - 3)
    assert await is_accepted(site, data=fields, headers=FORM)
    too_many = (400, f"form: expected at most {MAX_FIELDS} fields; a list may stand in one, or in JSON")
    assert await refusal(site, data=f"{fields}&x=1", headers=FORM) == too_many
    assert await is_accepted(site, query_string=PAGE | {"x": [1] * (MAX_FIELDS - 3)})
    answer = await refusal(site, query_string=PAGE | {"x": [1] * (MAX_FIELDS - 2)})
    assert answer[1].startswith("query: expected at most ")


async def test_so_many_parts_and_not_one_more(site: Site) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    body = "".join(part.format(name, value) for name, value in PAGE.items())
    body += part.format("x", "1") * (MAX_FORM_PARTS - len(PAGE))
    assert await is_accepted(site, data=f"{body}--x--\r\n", headers=headers)
    assert (await refusal(site, data=body + part.format("x", "1") + "--x--\r\n", headers=headers))[0] == 413


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"x"',
        b"1",
        b"{",
        b"x",
        b"\xff",
        b'{"type": "\xed\xa0\x80"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"\0",
        b"NaN",
    ],
)
async def test_a_body_that_is_no_json_object(site: Site, body: bytes) -> None:
    assert await refusal(site, data=body, headers=JSON) == (400, "body: expected a JSON object in UTF-8")


async def test_a_body_of_a_kind_that_is_not_read(site: Site) -> None:
    for kind in ("text/plain", "application/xml", "nonsense", ""):
        code, msg = await refusal(site, data=json.dumps(PAGE), headers={"Content-Type": kind})
        assert (code, msg.split(":")[0]) == (400, "Content-Type")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-1, "-1"),
        (1.5, "1.5"),
        ("", '""'),
        (" 1", '" 1"'),
        ("١", '"\\u0661"'),
        ("1_0", "1_0"),
        ("<script>", '"<script>"'),
        ("a\n\x1b[2J", '"a\\n\\u001b[2J"'),
        ("9" * 5000, "9" * 39 + "…"),
        (10**25, "a number"),
        (1e300, "a number"),
        (False, "false"),
        ([1], "a list"),
        ({"a": 1}, "a JSON object"),
    ],
)
async def test_a_wrong_value_is_shown_short_and_harmless(site: Site, value: Any, shown: str) -> None:
    assert await refusal(site, json=PAGE | {"page": value}) == (
        400,
        f"page = {shown}: expected a whole number from 1 to 1000000",
    )


async def test_a_number_that_no_number_can_hold(site: Site) -> None:
    for digits in (25, 400, 5000):
        body = f'{{"type": 1, "page": {"9" * digits}, "pageSize": 1}}'
        assert (await refusal(site, data=body, headers=JSON))[0] == 400


async def test_a_form_that_is_not_utf8(site: Site) -> None:
    gbk = "name=ann&password=" + "".join(f"%{byte:02X}" for byte in "一二三四五六七八".encode("gbk"))
    answer = await site.caller().post("/user/register", data=gbk, headers=FORM)
    assert answer.refusal == (400, "password: expected text in UTF-8")


async def test_a_field_given_twice(site: Site) -> None:
    code, msg = await refusal(site, data="type=1&type=2&page=1&pageSize=1", headers=FORM)
    assert (code, msg) == (400, "type = a list: expected 1 (normal) or 2 (PK)")


async def test_a_password_is_never_shown(site: Site) -> None:
    for password in ("short", 12345678, ["a secret"], "long" * 1000):
        answer = await site.caller().post("/user/register", json={"name": "ann", "password": password})
        assert answer.refusal == (400, "password: expected 8 to 128 characters")
