from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qiyu.errors import ErrorCode, ProtocolViolation, Refused, WsClose
from qiyu.protocol.bodies import (
    AckBody,
    BizBody,
    BodyDecoder,
    ChatData,
    DataBody,
    ImMsgBody,
    LikeData,
    LoginBody,
    RoomAnswer,
    RoomData,
    answer,
    checked_id,
    checked_room_id,
    client_msg_id_of,
    decode_ack,
    decode_ack_data,
    decode_biz,
    decode_chat_data,
    decode_data,
    decode_like_data,
    decode_login,
    decode_room_data,
    encode_json,
)
from qiyu.protocol.packet import MAX_ID, MIN_ID

BODY_DECODERS: list[BodyDecoder[Any]] = [decode_login, decode_biz, decode_ack, decode_data]
DATA_DECODERS: list[Any] = [decode_chat_data, decode_like_data, decode_room_data, decode_ack_data]
FIELDS = ["appId", "userId", "token", "bizCode", "data", "msgId", "clientMsgId"]
DATA_FIELDS = ["roomId", "objectId", "type", "content", "afterMsgId", "userId"]

DEEP = 100_000
ANY_TEXT = st.text(st.characters(exclude_categories=()))  # surrogates as well
FIELD_NAMES = dict(zip(ImMsgBody.__struct_fields__, FIELDS, strict=True))


def values(text: st.SearchStrategy[str], floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    scalars = st.one_of(st.none(), st.booleans(), st.integers(), floats, text)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=8
    )


def objects(text: st.SearchStrategy[str], floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.one_of(st.sampled_from(FIELDS + DATA_FIELDS), text), values(text, floats), max_size=6)


VALUES, OBJECTS = values(ANY_TEXT, st.floats()), objects(ANY_TEXT, st.floats())
GOOD_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
GOOD_VALUES, GOOD_OBJECTS = values(st.text(), GOOD_FLOATS), objects(st.text(), GOOD_FLOATS)


def read(decode: BodyDecoder[Any], body: bytes) -> Any:
    """What is decoded, or None for a documented error; any other one is a failure."""
    try:
        return decode(body)
    except Refused as refused:
        assert refused.code is ErrorCode.MALFORMED
        refused.reason.encode()  # can be sent
    except ProtocolViolation as violation:
        assert violation.code is ErrorCode.MALFORMED
        assert violation.ws_close in {WsClose.INVALID_DATA, WsClose.POLICY_VIOLATION}
        violation.reason.encode()
    return None


@pytest.mark.property
@given(st.binary(max_size=200))
@example(b'{"data":"\\ud800"}')
@example(b'{"data":"\xed\xa0\x80"}')
@example(b'{"clientMsgId":"\xff"}')
@example(b'{"bizCode":1e400}')
@example(b'{"bizCode":' + b"9" * 5000 + b"}")
@example(b'{"x":' * DEEP)
@example(b"[" * DEEP)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Whatever the bytes, there comes a body, a `Refused` or a `ProtocolViolation`; and what comes can be sent on."""
    for decode in BODY_DECODERS:
        decoded = read(decode, body)
        if decoded is not None:
            encode_json(decoded)
    encode_json(client_msg_id_of(body))


@pytest.mark.property
@given(st.one_of(OBJECTS, VALUES), st.booleans())
def test_almost_json_is_read_or_refused(value: Any, escaped: bool) -> None:
    """JSON with lone surrogates, escaped or not, and NaN in it: read, `Refused`, or a `ProtocolViolation`."""
    body = json.dumps(value, ensure_ascii=escaped).encode(errors="surrogatepass")
    for decode in BODY_DECODERS:
        decoded = read(decode, body)
        if decoded is not None:
            assert isinstance(value, dict)
            encode_json(decoded)
    encode_json(client_msg_id_of(body))


@pytest.mark.property
@given(st.one_of(GOOD_OBJECTS, GOOD_VALUES), st.booleans())
def test_json_never_closes_the_connection(value: Any, escaped: bool) -> None:
    """Whatever a body of JSON in UTF-8 holds, it is read, if it is an object with the right types, or `Refused`."""
    body = json.dumps(value, ensure_ascii=escaped).encode()
    for decode in BODY_DECODERS:
        try:
            decoded = decode(body)
        except Refused as refused:
            assert refused.reason.startswith("body: ")
            continue
        for field in decoded.__struct_fields__:
            got, sent = getattr(decoded, field), value.get(FIELD_NAMES[field])
            assert got == (int(sent) if isinstance(got, int) and isinstance(sent, str) else sent)


@pytest.mark.property
@given(st.one_of(ANY_TEXT, OBJECTS.map(json.dumps), VALUES.map(json.dumps)))
@example("[" * DEEP)
@example('{"a":' * DEEP)
@example("\ud800")
@example('"\\ud800"')
@example("NaN")
@example('{"roomId":' + "9" * 5000 + "}")
def test_any_data_is_read_or_refused(data: str) -> None:
    """`data` is never a reason to close: whatever the text, it is read or refused, and what is read can be sent on."""
    for decode in DATA_DECODERS:
        try:
            decoded = decode(data)
        except Refused as refused:
            assert refused.code is ErrorCode.MALFORMED
            refused.reason.encode()
        else:
            encode_json(decoded)


@pytest.mark.property
@given(
    st.builds(
        ImMsgBody,
        app_id=st.integers(0, MAX_ID),
        user_id=st.integers(0, MAX_ID),
        token=st.text(),
        biz_code=st.integers(-(2**31), 2**31 - 1),
        data=st.text(),
        msg_id=st.text(),
        client_msg_id=st.text(max_size=64),
    )
)
def test_what_a_client_writes_the_server_reads(body: ImMsgBody) -> None:
    """Every field that a kind of packet has arrives as it was written; one left out is as good as an empty one."""
    encoded = encode_json(body)
    assert msgspec.json.decode(encoded, type=ImMsgBody) == body
    login = decode_login(encoded)
    assert (login.app_id or 0, login.user_id or 0) == (body.app_id, body.user_id)
    assert (login.token or "", login.data or "") == (body.token, body.data)
    biz = decode_biz(encoded)
    assert (biz.biz_code or 0, biz.data or "") == (body.biz_code, body.data)
    assert (biz.client_msg_id or "") == client_msg_id_of(encoded) == body.client_msg_id
    ack = decode_ack(encoded)
    assert (ack.msg_id or "", ack.data or "") == (body.msg_id, body.data)
    assert (decode_data(encoded).data or "") == body.data


@pytest.mark.parametrize("body", [b"{}", b" {} ", b'{"data":null,"bizCode":null,"msgId":null}', b'{"unknown":[{}]}'])
def test_absent_and_null_fields_are_nothing_and_unknown_ones_ignored(body: bytes) -> None:
    assert decode_login(body) == LoginBody()
    assert decode_biz(body) == BizBody()
    assert decode_ack(body) == AckBody()
    assert decode_data(body) == DataBody()


def test_java_nulls() -> None:
    body = b'{"appId":10001,"userId":10000,"token":null,"bizCode":null,"data":null,"msgId":null,"clientMsgId":null}'
    assert decode_login(body) == LoginBody(app_id=10001, user_id=10000)
    assert client_msg_id_of(body) == ""


def test_a_body_in_a_read_buffer() -> None:
    buffer = bytearray(b'{"data":"kept"}')
    body = decode_data(memoryview(buffer))
    buffer[:] = b"\xee" * len(buffer)
    assert body.data == "kept"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"bizCode":"5555 "}', "bizCode"),
        (b'{"bizCode":"-5555"}', "bizCode"),
        (b'{"bizCode":""}', "bizCode"),
        (b'{"bizCode":"0x15b3"}', "bizCode"),
        ('{"bizCode":"５５５５"}'.encode(), "bizCode"),
        (b'{"bizCode":"123456789012345678901"}', "bizCode"),
        (b'{"bizCode":"5555","data":7}', "data"),
        (b'{"bizCode":5555.0}', "bizCode"),
        (b'{"bizCode":true}', "bizCode"),
        (b'{"data":{"roomId":1}}', "data"),
        (b'{"clientMsgId":7}', "clientMsgId"),
    ],
)
def test_a_wrong_type_refuses_the_packet_and_names_the_field(body: bytes, field: str) -> None:
    with pytest.raises(Refused, match=rf"\$\.{field}") as refused:
        decode_biz(body)
    assert refused.value.code is ErrorCode.MALFORMED


def test_whole_numbers_may_be_strings_of_digits() -> None:
    body = b'{"appId":"10001","userId":"9007199254740991","token":"5","data":"7"}'
    assert decode_login(body) == LoginBody(app_id=10001, user_id=2**53 - 1, token="5", data="7")
    assert decode_biz(b'{"bizCode":"05555"}') == BizBody(biz_code=5555)
    assert decode_room_data('{"roomId":"7","afterMsgId":"8"}') == RoomData(room_id=7, after_msg_id="8")
    assert decode_like_data('{"roomId":7,"count":"5"}') == LikeData(room_id=7, count=5)
    chat = '{"roomId":"7","objectId":"10000","type":"1","content":"2","x":"3"}'
    assert decode_chat_data(chat) == ChatData(room_id=7, object_id=10_000, type=1, content="2")


@pytest.mark.parametrize(
    ("text", "half"),
    [
        ('"\\ud800"', r"\ud800"),
        ('"\\uD83D\\uDE00 \\udc00\\ud800"', r"\udc00"),
        ('"\\uD83Dx\\uDE00"', r"\uD83D"),
        ('"\\ud800\\ud800\\udc00"', r"\ud800"),
        ('"\\\\ud900\\ud800"', r"\ud800"),
    ],
)
def test_half_a_character_is_named_and_what_was_expected(text: str, half: str) -> None:
    with pytest.raises(ProtocolViolation) as violation:
        decode_data(b'{"data":%b}' % text.encode())
    assert violation.value.reason.endswith(f"{half} is half of a surrogate pair: expected a whole character")
    with pytest.raises(Refused) as refused:
        decode_chat_data(f'{{"content":{text}}}')
    assert refused.value.reason == f"data: {half} is half of a surrogate pair: expected a whole character"


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"x"'])
def test_json_that_is_no_object_refuses_the_packet(body: bytes) -> None:
    with pytest.raises(Refused, match="Expected `object`"):
        decode_biz(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xef\xbb\xbf{}",
        b'{"data":"\x01"}',
        b'{"data":"\\ud800"}',
        b'{"data":"\\udc00\\ud800"}',
        b"{'data':1}",
        b'{"data":NaN}',
        b"\x00" * 8,
        b'{"unknown":' * DEEP,
    ],
)
def test_what_is_no_json_closes_the_connection(body: bytes) -> None:
    with pytest.raises(ProtocolViolation) as violation:
        decode_data(body)
    assert violation.value.code is ErrorCode.MALFORMED
    assert violation.value.ws_close is WsClose.POLICY_VIOLATION


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe5\xa5"])
def test_bad_utf8_closes_the_connection(text: bytes) -> None:
    with pytest.raises(ProtocolViolation) as violation:
        decode_data(b'{"data":"' + text + b'"}')
    assert violation.value.ws_close is WsClose.INVALID_DATA


@pytest.mark.parametrize("data", [None, ""])
def test_no_data_is_an_empty_object(data: str | None) -> None:
    assert decode_chat_data(data).content is None
    assert decode_room_data(data).room_id is msgspec.UNSET


def test_null_and_no_room_differ() -> None:
    assert decode_room_data('{"roomId":null}').room_id is None
    assert decode_room_data("{}").room_id is msgspec.UNSET
    assert decode_room_data('{"roomId":7,"afterMsgId":null}').after_msg_id is None


@pytest.mark.parametrize("data", ["{}", "[1]", "[null]", '"1"', "null", "[", '["1"'])
def test_ack_data_is_a_list_of_texts(data: str) -> None:
    with pytest.raises(Refused):
        decode_ack_data(data)
    assert decode_ack_data('["1","2"]') == ["1", "2"]


@pytest.mark.parametrize(
    ("body", "client_msg_id"),
    [
        (b'{"clientMsgId":"a"}', "a"),
        (b'{"clientMsgId":"%b"}' % (b"x" * 64), "x" * 64),
        (b'{"clientMsgId":"%b"}' % (b"x" * 65), ""),
        ('{"clientMsgId":"鱼"}'.encode(), "鱼"),
        (b'{"clientMsgId":"\\ud83d\\ude00","data":1}', "\U0001f600"),
        (b'{"clientMsgId":7}', ""),
        (b"[]", ""),
        (b"", ""),
        (b'{"clientMsgId":"\\ud800"}', ""),
    ],
)
def test_the_senders_own_id_of_a_refused_packet(body: bytes, client_msg_id: str) -> None:
    assert client_msg_id_of(body) == client_msg_id


def test_the_bounds_of_ids() -> None:
    assert checked_id("userId", MIN_ID) == 10_000
    assert checked_id("userId", MAX_ID) == 2**53 - 1
    assert checked_room_id(1) == 1
    assert checked_room_id(MAX_ID) == 2**53 - 1
    for bad in (None, -1, 0, MIN_ID - 1, MAX_ID + 1, 2**200):
        with pytest.raises(Refused, match="userId"):
            checked_id("userId", bad)
    for bad in (None, -1, 0, MAX_ID + 1):
        with pytest.raises(Refused, match="roomId"):
            checked_room_id(bad)


@pytest.mark.property
@given(st.integers(0, MAX_ID), st.integers(MIN_ID, MAX_ID), st.text())
def test_an_answer_is_a_body(user_id: int, app_id: int, data: str) -> None:
    """An answer is the ImMsgBody with exactly appId, userId and data."""
    assert json.loads(answer(user_id, app_id=app_id, data=data)) == {"appId": app_id, "userId": user_id, "data": data}


def test_a_room_answer_leaves_out_only_what_nobody_asked() -> None:
    assert json.loads(encode_json(RoomAnswer(room_id=None, online=0))) == {"roomId": None, "online": 0}
    answer = RoomAnswer(room_id=1, online=2, last_msg_id="", recovered=False)
    assert encode_json(answer) == b'{"roomId":1,"online":2,"lastMsgId":"","recovered":false}'
