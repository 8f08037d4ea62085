"""The numbers are those of docs/protocol.md: clients have them built in."""

from __future__ import annotations

from documents import ROOT, table
from qiyu.protocol.packet import APP_ID, MAX_ID, MAX_LIKES, MAX_MSG_ID, MSG_ID_DIGITS, BizCode, MsgCode


def test_the_codes_are_the_documented_ones() -> None:
    documented = [(int(code), name) for code, name, *_ in table("protocol.md", "### Codes")]
    assert documented == [(code.value, code.name) for code in MsgCode]


def test_the_kinds_of_messages_are_the_documented_ones() -> None:
    assert {int(row[0]) for row in table("protocol.md", "## Messages")} == {code.value for code in BizCode}


def test_the_application_and_the_likes_are_the_documented_ones() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert f"{APP_ID} is qiyu live" in text
    assert f"`count` from 1 to {MAX_LIKES}" in text


def test_the_largest_ids_are_those_that_others_can_count() -> None:
    assert float(MAX_ID) == MAX_ID  # as JavaScript does
    assert float(MAX_ID + 2) == float(MAX_ID + 1)
    assert len(MAX_MSG_ID) == MSG_ID_DIGITS
    assert int(MAX_MSG_ID).to_bytes(8, signed=True)  # as a BIGINT does
