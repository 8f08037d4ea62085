from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.bodies import BizBody, ChatData, LoginBody, RoomData
from qiyu.protocol.envelope import Envelope
from qiyu.protocol.numbers import decode_digits, json_fault, numbers_of

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ESCAPES = st.lists(
    st.sampled_from(["\\\\", "\\n", "x"]) | st.integers(0xD780, 0xE080).map(lambda unit: f"\\u{unit:04x}")
)


def test_the_numbers_of_a_struct() -> None:
    assert numbers_of(LoginBody) == {"appId", "userId"}
    assert numbers_of(BizBody) == {"bizCode"}
    assert numbers_of(ChatData) == {"roomId", "objectId", "type"}
    assert numbers_of(RoomData) == {"roomId"}
    assert numbers_of(Envelope) == {"magic", "code"}
    assert numbers_of(list[str]) == set()


@pytest.mark.property
@given(
    st.dictionaries(
        st.sampled_from(["roomId", "objectId", "type", "content", "x"]),
        st.none() | st.integers(0, 10**20 - 1) | st.booleans() | st.text(max_size=8) | st.floats(),
    )
)
def test_digits_are_numbers_and_nothing_else_changes(fields: dict[str, Any]) -> None:
    """With its numbers written as strings, a text means what it meant before, or is refused as it was before."""
    as_text = {
        name: str(value) if type(value) is int and name in numbers_of(ChatData) else value
        for name, value in fields.items()
    }
    assert outcome(as_text) == outcome(fields)


def outcome(fields: dict[str, Any]) -> Any:
    text = json.dumps(fields)
    try:
        return decode_digits(text, ChatData, numbers_of(ChatData))
    except msgspec.ValidationError:
        return msgspec.ValidationError
    except msgspec.DecodeError:  # NaN
        return msgspec.DecodeError


@pytest.mark.property
@given(ESCAPES.map("".join))
def test_half_a_character_is_found_where_there_is_one(escapes: str) -> None:
    """A JSON string can be read exactly where there is none of it."""
    text = f'"{escapes}"'
    try:
        json.loads(text).encode()
    except UnicodeEncodeError:
        assert "is half of a surrogate pair" in json_fault(text, ValueError("another"))
    else:
        assert json_fault(text, ValueError("another")) == "another"


@pytest.mark.property
@given(TEXT | st.binary(max_size=40))
def test_a_fault_of_any_text_can_be_told(text: str | bytes) -> None:
    json_fault(text, ValueError("what")).encode()
