from __future__ import annotations

import pytest

from qiyu.protocol.rtmp import RtmpCode, RtmpLimits, RtmpWire
from rtmp_encoder import Encoder, commands, read_answers


def test_what_an_encoder_says_is_packets() -> None:
    wire = RtmpWire(RtmpLimits())
    encoder = Encoder().publish("7?key=x").video(0x01020304, b"picture").audio(5, b"sound").data(6, b"data")
    encoder.call("deleteStream", 0, None, 1)
    packets = [(packet.code, bytes(packet.body)) for packet in wire.receive_data(encoder.take())]
    assert packets == [
        (RtmpCode.PUBLISH, b"7?key=x"),
        (RtmpCode.VIDEO, b"\1\2\3\4picture"),
        (RtmpCode.AUDIO, b"\0\0\0\5sound"),
        (RtmpCode.DATA, b"\0\0\0\6data"),
        (RtmpCode.UNPUBLISH, b""),
    ]
    assert wire.has_output


def test_it_accepts_and_says_good_bye() -> None:
    wire = RtmpWire(RtmpLimits())
    wire.receive_data(Encoder().publish("7").take())
    answers = wire.data_to_send() + wire.accept()
    answers += wire.close(1008, "the room was closed")
    codes = [command[-1].get("code") for command in commands(read_answers(answers))[-2:]]
    assert codes == ["NetStream.Publish.Start", "NetStream.Failed"]
    assert wire.close(1008, "") == b""


def test_a_fault_is_shown_until_the_peer_was_told() -> None:
    wire = RtmpWire(RtmpLimits())
    wire.receive_data(b"GET /")
    assert wire.error is not None
    wire.receive_eof()
    wire.close(1008, wire.error.reason)
    assert wire.error is None
    assert "RtmpWire" in repr(wire)


def test_no_packet_goes_to_an_encoder() -> None:
    assert not RtmpWire.is_open
    with pytest.raises(NotImplementedError):
        RtmpWire.encode(1, b"")
    with pytest.raises(NotImplementedError):
        RtmpWire.splice(1, b"", b"", 5)
