from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.fakes import OTHER, chat_packet, packet_of
from documents import table
from qiyu.client.messages import Error, EventName, Message, RoomEvent, read_biz
from qiyu.errors import ProtocolViolation, Refused
from qiyu.protocol.packet import MsgCode


def test_a_room_message() -> None:
    msg_id, item = read_biz(chat_packet(7, "hello", room_id=3).body)
    assert msg_id == "7"
    assert item == Message(
        sender_id=OTHER,
        sender_name="ann",
        sender_avatar="",
        content="hello",
        type=1,
        created_ms=5,
        msg_id="7",
        room_id=3,
    )
    assert not item.is_direct


def test_a_direct_message() -> None:
    _, item = read_biz(chat_packet(7, "hello", room_id=None).body)
    assert isinstance(item, Message)
    assert item.is_direct


def test_a_room_event_has_no_msg_id() -> None:
    data = {"roomId": 1, "event": "enter", "userId": OTHER, "senderName": "ann", "online": 4, "goodNum": 0}
    msg_id, item = read_biz(packet_of(MsgCode.BIZ, bizCode=5557, data=data).body)
    assert not msg_id
    assert item == RoomEvent(room_id=1, event=EventName.ENTER, user_id=OTHER, sender_name="ann", online=4, good_num=0)


def test_an_event_of_a_later_server_shows_nothing() -> None:
    assert read_biz(packet_of(MsgCode.BIZ, bizCode=5557, data={"roomId": 1, "event": "danced"}).body) == ("", None)


def test_the_events_are_those_that_are_documented() -> None:
    rows = table("protocol.md", "### Room events")
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row[0])} == set(EventName)


def test_null_fields_are_absent_ones() -> None:
    data = {"userId": OTHER, "roomId": 1, "type": None, "content": None, "senderName": None, "createTime": None}
    _, item = read_biz(packet_of(MsgCode.BIZ, bizCode=5555, msgId=None, data=data).body)
    assert isinstance(item, Message)
    assert (item.content, item.msg_id, item.type) == ("", "", 0)


def test_a_biz_code_of_a_later_server_shows_nothing() -> None:
    assert read_biz(packet_of(MsgCode.BIZ, bizCode=6000, msgId="9", data="?").body) == ("9", None)


@pytest.mark.parametrize("data", ["not json", "[]", '{"content":5}', '{"roomId":"x"}'])
def test_data_that_cannot_be_read_is_shown_as_an_error(data: str) -> None:
    msg_id, item = read_biz(packet_of(MsgCode.BIZ, bizCode=5555, msgId="9", data=data).body)
    assert msg_id == "9"
    assert isinstance(item, Error)


@pytest.mark.property
@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["bizCode", "data", "msgId", "x"]), inner),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_body_raises_anything_undocumented(body: bytes) -> None:
    """Invariant: a body is read, or refused with one of the two documented exceptions."""
    try:
        result: Any = read_biz(body)
    except (Refused, ProtocolViolation):
        return
    assert isinstance(result[0], str)
