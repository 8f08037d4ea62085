from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import as_pieces
from qiyu.protocol.rtmp.handshake import PART_BYTES, Handshake

C1 = bytes(range(256)) * 6
C2 = bytes(PART_BYTES)


@pytest.mark.property
@given(st.lists(st.integers(0, 4000), max_size=8), st.binary(max_size=20))
def test_however_it_is_split_it_is_answered_once_and_nothing_is_lost(cuts: list[int], more: bytes) -> None:
    """S0, S1 and S2 come once, S2 is C1, and every byte after C2 is left for what follows."""
    handshake = Handshake()
    answer = rest = b""
    for piece in as_pieces(b"\x03" + C1 + C2 + more, cuts):
        if handshake.done:
            rest += piece
            continue
        handshake.receive_data(piece)
        answer += handshake.data_to_send()
        rest += handshake.rest
    assert handshake.done
    assert rest == more
    assert len(answer) == 1 + 2 * PART_BYTES
    assert answer[0] == 3
    assert answer[1:9] == bytes(8)
    assert answer[1 + PART_BYTES :] == C1


def test_it_answers_when_c1_is_whole_and_not_before() -> None:
    handshake = Handshake()
    handshake.receive_data(b"\x03" + C1[:-1])
    assert handshake.data_to_send() == b""
    handshake.receive_data(C1[-1:])
    assert handshake.data_to_send()
    assert not handshake.done


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"\x16\x03\x01\x02", "this is TLS: connect with rtmp://, or put a proxy that ends TLS in front for rtmps://"),
        (b"\x06", "this is RTMPE: connect with rtmp://"),
        (b"GET / HTTP/1.1", "this is HTTP: this port speaks RTMP"),
        (b"POST /open/1", "this is HTTP: this port speaks RTMP"),
        (b"\x00", "RTMP version 0: expected 3"),
        (b"*", "RTMP version 42: expected 3"),
    ],
)
def test_another_protocol_is_named_at_its_first_byte(first: bytes, reason: str) -> None:
    handshake = Handshake()
    handshake.receive_data(first)
    assert handshake.error is not None
    assert handshake.error.reason == reason
    handshake.receive_data(b"\x03" + C1 + C2)
    assert handshake.data_to_send() == b""
    assert not handshake.done
