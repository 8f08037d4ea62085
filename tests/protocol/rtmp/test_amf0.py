from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.rtmp.amf0 import MAX_DEPTH, MAX_VALUES, AmfError, Value, decode, encode

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
PLAIN = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"), max_size=20)
VALUES: st.SearchStrategy[Value] = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@pytest.mark.property
@given(st.lists(VALUES, max_size=5))
def test_what_was_encoded_is_decoded(values: list[Value]) -> None:
    """Any value that AMF 0 has, nested as far as is read: decoded, it is what was encoded."""
    assert decode(encode(values)) == values


@pytest.mark.property
@given(st.binary(max_size=300) | st.lists(st.sampled_from(range(18)), max_size=60).map(bytes))
def test_whatever_the_bytes_are_it_is_values_or_an_amf_error(data: bytes) -> None:
    """No bytes raise anything but AmfError, and what is decoded is not larger than what it was decoded from."""
    try:
        values = decode(data)
    except AmfError:
        return
    assert len(values) <= len(data)


def test_the_bytes_are_those_of_the_specification() -> None:
    assert encode(["connect", 1, None, True, {"app": "live"}]) == (
        b"\x02\x00\x07connect"
        b"\x00\x3f\xf0\x00\x00\x00\x00\x00\x00"
        b"\x05"
        b"\x01\x01"
        b"\x03\x00\x03app\x02\x00\x04live\x00\x00\x09"
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"\x06", [None], id="undefined"),
        pytest.param(b"\x0d", [None], id="unsupported"),
        pytest.param(b"\x01\x02", [True], id="any byte but 0 is true"),
        pytest.param(b"\x08\x00\x00\x00\x00\x00\x01a\x05\x00\x00\x09", [{"a": None}], id="ECMA array that says 0"),
        pytest.param(b"\x0b" + struct.pack(">dh", 5.0, 0), [5.0], id="date"),
        pytest.param(b"\x0c\x00\x00\x00\x02hi", ["hi"], id="long string"),
        pytest.param(b"\x0f\x00\x00\x00\x03<a>", ["<a>"], id="XML"),
        pytest.param(b"\x10\x00\x01C\x00\x01a\x05\x00\x00\x09", [{"a": None}], id="object of a class"),
        pytest.param(b"\x02\x00\x02\xc4\xe3", ["\ufffd\ufffd"], id="text that is not UTF-8"),
        pytest.param(b"\x03\x00\x00\x09", [{}], id="empty object"),
    ],
)
def test_values_that_are_only_read(data: bytes, expected: list[Value]) -> None:
    assert decode(data) == expected


def test_a_long_text_is_a_long_string() -> None:
    text = "x" * 70_000
    data = encode([text])
    assert data[:5] == b"\x0c\x00\x01\x11\x70"
    assert decode(data) == [text]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x02\x00\x05hi", "5 bytes of a value expected, 2 are there"),
        (b"\x00\x00", "8 bytes of a value expected, 1 are there"),
        (b"\x07\x00\x00", "a value of type 7, which is not one of AMF 0 that RTMP uses"),
        (b"\x11\x00", "a value of type 17, which is not one of AMF 0 that RTMP uses"),
        (b"\x0a\xff\xff\xff\xff\x05", "an array of 4294967295 values in 1 bytes"),
        (b"\x03\x00\x01a\x05", "2 bytes of a value expected, 0 are there"),
        (b"\x0a\x00\x00\x00\x01" * (MAX_DEPTH + 1) + b"\x05", "values nested more than 8 deep"),
        (b"\x05" * (MAX_VALUES + 1), "more than 1024 values"),
    ],
)
def test_what_is_too_much_or_too_little_is_said(data: bytes, reason: str) -> None:
    with pytest.raises(AmfError) as raised:
        decode(data)
    assert str(raised.value) == reason


@pytest.mark.parametrize("name", ["", "x" * 65_536])
def test_a_name_that_would_end_the_object_or_not_fit_is_refused(name: str) -> None:
    with pytest.raises(AmfError, match="expected 1 to 65535"):
        encode([{name: None}])
