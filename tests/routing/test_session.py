from __future__ import annotations

import json
import struct

from qiyu.errors import EndReason, ErrorCode, Refused
from qiyu.handlers.registry import LOGGED_IN
from qiyu.protocol.packet import MAX_ID, MIN_ID, MsgCode
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from qiyu.routing.feed import WIDTH_BITS
from qiyu.routing.outbox import Outboxes, OutboxLimits
from qiyu.routing.session import Session
from sessions import make_session


def session(hard: int = 0) -> Session:
    return make_session(outbox=Outboxes(OutboxLimits(0, hard)).open(lambda _: None))


def packets(of: Session) -> list[tuple[int, dict[str, object]]]:
    """What it is owed."""
    return [(packet.code, json.loads(bytes(packet.body))) for packet in TcpWire(0).receive_data(of.outbox.take(2**62))]


def test_before_the_login_it_is_nobody() -> None:
    nobody = session()
    assert nobody.user_id == 0
    nobody.answer(MsgCode.LOGOUT)
    assert packets(nobody) == [(1002, {"appId": 10_001, "userId": 0, "data": "true"})]


def test_sessions_share_packets_when_kind_and_width_are_the_same() -> None:
    keys = set()
    for wire in (TcpWire(0), WebSocketWire(0)):
        for user_id in (MIN_ID, 99_999, 100_000, MAX_ID):
            each = make_session(wire=wire)
            each.identify(10_001, user_id, "", "")
            assert each.digits == str(user_id).encode()
            assert each.splice & (2**WIDTH_BITS - 1) == len(each.digits)
            keys.add(each.splice)
    assert len(keys) == 6


def test_the_app_of_nearly_all_is_one_object() -> None:
    one, two = session(), session()
    for each in (one, two):
        each.identify(int("10001"), 10_000, "", "")
    assert one.app_id is two.app_id
    one.identify(20_000, 10_000, "", "")
    assert one.app_id == 20_000


def test_an_error_names_the_packet_it_is_about() -> None:
    one = session()
    one.identify(10_001, 10_000, "", "")
    one.send_error(Refused(ErrorCode.CONFLICT, 'a "reason"', client_msg_id='鱼"\\'))
    ((code, body),) = packets(one)
    assert code == 1007
    assert body == {
        "appId": 10_001,
        "userId": 10_000,
        "data": '{"code":409,"reason":"a \\"reason\\""}',
        "clientMsgId": '鱼"\\',
    }


def test_it_ends_once() -> None:
    one = session()
    one.end(EndReason.DRAIN, retry_after_ms=700)
    one.end(EndReason.REPLACED)
    one.close(4003, "banned")
    ((code, body),) = packets(one)
    assert code == 1002
    assert json.loads(str(body["data"])) == {"reason": "drain", "reconnect": True, "retryAfterMs": 700}
    assert one.ended
    assert one.outbox.finished


def test_what_is_owed_is_still_sent_before_the_good_bye() -> None:
    one = session()
    one.answer(MsgCode.HEARTBEAT)
    one.end(EndReason.REPLACED)
    assert [code for code, _ in packets(one)] == [1004, 1002]


def test_a_slow_one_gets_its_last_word_at_once() -> None:
    one = session(hard=100)
    for _ in range(4):
        one.answer(MsgCode.HEARTBEAT)
    assert one.outbox.overflowed
    one.end(EndReason.SLOW)
    assert [code for code, _ in packets(one)] == [1002]


def test_a_slow_one_that_is_replaced_before_it_ends_as_slow_hears_of_that() -> None:
    one = session(hard=100)
    for _ in range(4):
        one.answer(MsgCode.HEARTBEAT)
    one.end(EndReason.REPLACED)
    ((code, body),) = packets(one)
    assert code == 1002
    assert json.loads(str(body["data"])) == {"reason": "replaced", "reconnect": False}


def test_a_gap_is_told_once() -> None:
    one = session()
    one.tell_gap()
    one.tell_gap()
    ((code, body),) = packets(one)
    assert code == 1007
    assert json.loads(str(body["data"]))["code"] == 206
    one.outbox.gap = False
    one.tell_gap()
    assert len(packets(one)) == 1


def test_nothing_is_sent_before_the_upgrade() -> None:
    one = make_session(wire=WebSocketWire(0))
    one.answer(MsgCode.LOGIN)
    one.send_error(Refused(ErrorCode.MALFORMED, "no"))
    one.end(EndReason.DRAIN, retry_after_ms=1)
    assert one.outbox.size == 0
    assert one.outbox.finished


def test_a_header_is_what_the_contract_says() -> None:
    one = session()
    one.answer(MsgCode.HEARTBEAT)
    data = one.outbox.take(1000)
    assert struct.unpack_from(">hii", data) == (18673, 1004, len(data) - 10)


def test_repr_shows_its_state() -> None:
    one = session()
    assert repr(one) == "<Session 1 tcp from nowhere user=10001/0 not logged in <Outbox 0 bytes, open>>"
    one.identify(10_001, 10_000, "", "")
    one.state = LOGGED_IN
    one.address = bytes([192, 0, 2, 7])
    assert "tcp from 192.0.2.7 user=10001/10000 active" in repr(one)
    one.close(1000, "")
    assert "ended" in repr(one)
