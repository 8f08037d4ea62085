from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.errors import ProtocolViolation, WsClose
from qiyu.protocol.envelope import NO_LIMIT, decode, encode, longest_message, splice
from qiyu.protocol.packet import MAGIC, Packet

CODES = st.integers(-(2**31), 2**31 - 1)
BODIES = st.one_of(st.text(max_size=60), st.text(st.sampled_from('ab"\\/\n\t\x00\x7f\u2028你好😀'), max_size=400)).map(
    str.encode
)


def envelope(**fields: object) -> bytes:
    return json.dumps({"magic": MAGIC, "code": 1004, "len": 2, "body": "{}"} | fields).encode()


@pytest.mark.property
@given(CODES, BODIES)
def test_what_is_encoded_is_json_and_decoded(code: int, body: bytes) -> None:
    """Anybody's JSON reads what we write, we read it too, and what anybody's JSON writes."""
    message = encode(code, body)
    assert json.loads(message) == {"magic": MAGIC, "code": code, "len": len(body), "body": body.decode()}
    assert decode(message, NO_LIMIT) == Packet(code, body)
    assert decode(envelope(code=code, body=body.decode()), NO_LIMIT) == Packet(code, body)
    assert len(message) <= longest_message(len(body)) or b"\\u00" in message


@pytest.mark.property
@given(st.integers(0, 2**31 - 1), BODIES)
def test_numbers_may_be_strings_of_digits(code: int, body: bytes) -> None:
    """`magic` and `code` may come so, as `len` may be anything."""
    text = body.decode()
    for fields in ({"code": str(code)}, {"code": str(code), "magic": str(MAGIC)}, {"code": code, "len": "2"}):
        assert decode(envelope(**fields, body=text), NO_LIMIT) == Packet(code, body)


@pytest.mark.property
@given(CODES, BODIES, BODIES, st.integers(10_000, 2**53))
def test_splice_is_encode(code: int, before: bytes, after: bytes, user_id: int) -> None:
    digits = str(user_id).encode()
    head, tail = splice(code, before, after, len(digits))
    assert head + digits + tail == encode(code, before + digits + after)


@pytest.mark.property
@given(
    st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
)
def test_any_message_is_a_packet_or_a_violation(message: bytes | str) -> None:
    """Whatever a message holds, it is a packet with a body within the limit, or `ProtocolViolation` says what it is."""
    try:
        packet = decode(message.encode() if isinstance(message, str) else message, 100)
    except ProtocolViolation as fault:
        assert fault.ws_close in {WsClose.INVALID_DATA, WsClose.POLICY_VIOLATION, WsClose.MESSAGE_TOO_BIG}
    else:
        assert len(packet.body) <= 100


@pytest.mark.parametrize(
    ("message", "reason", "ws_close"),
    [
        (envelope(code="2147483648"), "code", WsClose.POLICY_VIOLATION),
        (envelope(code="-1"), "Expected `int`, got `str`", WsClose.POLICY_VIOLATION),
        (envelope(magic="18674"), "magic", WsClose.POLICY_VIOLATION),
        (b'{"body":"\\udc00"}', "udc00 is half of a surrogate pair", WsClose.POLICY_VIOLATION),
        (b"", "not a packet", WsClose.POLICY_VIOLATION),
        (b"[]", "not a packet", WsClose.POLICY_VIOLATION),
        (envelope(magic=1), "magic is not 18673", WsClose.POLICY_VIOLATION),
        (envelope(code=2**31), "not a packet", WsClose.POLICY_VIOLATION),
        (envelope(body=None), "not a packet", WsClose.POLICY_VIOLATION),
        (b'{"x":' + b"[" * 100_000, "nested too deep", WsClose.POLICY_VIOLATION),
        (b"\xff", "not UTF-8", WsClose.INVALID_DATA),
        (envelope(body="x" * 101), "longer than 100 bytes", WsClose.MESSAGE_TOO_BIG),
    ],
)
def test_what_is_no_packet(message: bytes, reason: str, ws_close: WsClose) -> None:
    with pytest.raises(ProtocolViolation, match=reason) as raised:
        decode(message, 100)
    assert raised.value.ws_close == ws_close


def test_len_is_not_read() -> None:
    for length in (-1, 2**80, "57", None):
        assert decode(envelope(len=length), NO_LIMIT) == Packet(1004, b"{}")
