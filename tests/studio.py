"""Encoders and viewers of a `Harness`: no socket, no ffmpeg."""

from __future__ import annotations

from typing import cast

from harness import ADDRESS, LOGIN, Harness, WsClient
from mp4 import H264_RECORD
from qiyu.handlers.registry import rtmp_door
from qiyu.protocol.rtmp import RtmpLimits
from qiyu.protocol.rtmp.amf0 import encode
from qiyu.services.publishers import Publisher
from rtmp_encoder import Encoder, commands, read_answers

METADATA = encode(["@setDataFrame", "onMetaData", {"videocodecid": 7}])


class EncoderPeer:
    """An encoder, and the connection to it."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.outbox = harness.node.outboxes.open(harness.wake, self)
        door = rtmp_door(harness.node, RtmpLimits())
        self.publisher = cast("Publisher", harness.dispatcher.opened(door, self.outbox, ADDRESS, harness.now))
        self.encoder = Encoder()
        self._received = b""
        self._timestamp = 0

    def write(self, data: bytes) -> None:
        self.harness.dispatcher.received(self.publisher, data, self.harness.now)

    def publish(self, room: int, key: str = "") -> None:
        """Ask to push to the room, with its own key or another."""
        name = key or self.harness.node.stream_keys.issue(room, self.harness.now.unix_ms)
        self.write(self.encoder.publish(name).take())

    def show(self, *frames: str) -> None:
        """A picture each; before the first, what a decoder must know. One with a star is a key frame."""
        if not self._timestamp:
            self.encoder.data(0, METADATA).video(0, b"\x17\0\0\0\0" + H264_RECORD)
        for frame in frames:
            head = b"\x17" if frame.startswith("*") else b"\x27"
            self.encoder.video(self._timestamp, head + b"\1\0\0\0" + frame.lstrip("*").encode())
            self._timestamp += 40
        self.write(self.encoder.take())

    def unpublish(self) -> None:
        self.write(self.encoder.call("deleteStream", 0, None, 1).take())
        self._timestamp = 0

    def hang_up(self) -> None:
        """The end of what comes, then the end."""
        self.harness.dispatcher.eof(self.publisher, self.harness.now)
        self.harness.dispatcher.closed(self.publisher)

    @property
    def last_words(self) -> str:
        """The description of the last answer."""
        self._received += self.outbox.take(2**20)
        return str(commands(read_answers(self._received))[-1][-1]["description"])

    @property
    def is_shut(self) -> bool:
        return self.outbox.finished


class ViewerPeer(WsClient):
    """Somebody who watches over WebSocket."""

    def watch(self, room: int, user: int = 10_001, token: str | None = None) -> None:
        """Upgrade and log in."""
        self.upgrade(f"/live/{room}")
        self.send(LOGIN, appId=10_001, userId=user, token=self.harness.token(user) if token is None else token)

    def seen(self) -> list[str]:
        """What has come: a text in quotes, `init`, or the data of a frame. A close frame is its code."""
        self.flush()
        if not self.http:
            self._take_http()
        told = []
        for opcode, payload in self._frames():
            if opcode == 1:
                told.append(repr(payload.decode()))
            elif opcode == 2:
                is_init = payload[4:8] == b"ftyp"
                told.append("init" if is_init else payload[payload.index(b"mdat") + 4 :].decode())
            elif opcode == 8:
                self.close_code = int.from_bytes(payload[:2])
                told.append(f"{self.close_code} {payload[2:].decode()}")
            else:
                told.append({9: "ping", 10: "pong"}[opcode])
        return told


MIME = repr('video/mp4; codecs="avc1.64000C"')
