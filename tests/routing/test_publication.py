from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.packet import MAX_ID, MIN_ID
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from qiyu.protocol.wire import Wire
from qiyu.routing.publication import Kind, Publication

IDS = st.integers(MIN_ID, MAX_ID)
KEY = 37


def spliced(publication: Publication, wire: Wire, user_id: int) -> bytes:
    digits = b"%d" % user_id
    head, tail, size = publication.splice(wire, len(digits), KEY)
    packet = head + digits + tail
    assert size == len(packet)
    assert publication.spliced[KEY] == (head, tail, size)
    return packet


@pytest.mark.property
@given(IDS, IDS, st.text(), st.sampled_from(["", "3141592653589793238"]))
def test_what_is_spliced_is_what_encode_would_write(app_id: int, user_id: int, content: str, msg_id: str) -> None:
    """For each kind of wire the receiver gets the very bytes of a packet encoded for it alone."""
    data = json.dumps({"content": content}, ensure_ascii=False)
    publication = Publication(app_id=app_id, biz_code=5555, data=data.encode(), kind=Kind.DROPPABLE, msg_id=msg_id)
    body = {"appId": app_id, "userId": user_id, "bizCode": 5555, "data": data} | ({"msgId": msg_id} if msg_id else {})

    frame = spliced(publication, TcpWire(0), user_id)
    (packet,) = TcpWire(0).receive_data(frame)
    assert packet.code == 1003
    assert json.loads(bytes(packet.body)) == body
    assert frame == TcpWire.encode(1003, bytes(packet.body))
    assert spliced(publication, WebSocketWire(0), user_id) == WebSocketWire.encode(1003, bytes(packet.body))


def test_repr() -> None:
    event = Publication(app_id=10_001, biz_code=5557, data=b"{}", kind=Kind.MERGEABLE)
    assert repr(event) == "<Publication event mergeable>"
    direct = Publication(app_id=10_001, biz_code=5556, data=b"{}", kind=Kind.KEPT, msg_id="31")
    assert repr(direct) == "<Publication 31 kept>"


@pytest.mark.parametrize(
    ("kind", "msg_id", "is_direct"),
    [(Kind.KEPT, "1", True), (Kind.KEPT, "", False), (Kind.DROPPABLE, "1", False), (Kind.MERGEABLE, "", False)],
)
def test_what_is_kept_and_acknowledged_is_direct(kind: Kind, msg_id: str, is_direct: bool) -> None:
    publication = Publication(app_id=10_001, biz_code=5555, data=b"{}", kind=kind, msg_id=msg_id)
    assert publication.is_direct is is_direct


def test_a_twin_has_an_account_of_its_own() -> None:
    publication = Publication(app_id=10_001, biz_code=5555, data=b"{}", kind=Kind.DROPPABLE, msg_id="31")
    publication.noted = 3
    twin = publication.twin()
    assert (twin.noted, twin.msg_id, twin.kind, twin.spliced) == (0, "31", Kind.DROPPABLE, publication.spliced)
