"""The client's side of each protocol, made to be cheap: the generator must not be what is measured.

What most reads bring is messages, and of a message only its id is wanted. So `scan` walks from header to header and
cuts the id out of where it always stands, at the end of a body; nothing is decoded. `packets` is the slow way, for
those who check content.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, Protocol, TypeAlias

MAGIC: Final = 18673
APP: Final = 10001
LOGIN, LOGOUT, BIZ, HEARTBEAT, ACK, ROOM, ERROR = range(1001, 1008)
MSG_ID_CHARS: Final = 19
"""Every server here makes ids of this length."""

SHORTEST, TUTORIAL, GATHERED = "shortest ACKs", "tutorial's ACKs", "gathered ACKs"
"""How clients acknowledge: with `{"msgId":"…"}`; the same with `appId` and `userId` before it, as the tutorial's client
does; or with one packet for all that a read brought."""

Packet: TypeAlias = tuple[int, bytes]
"""Code and body."""

LoginSteps: TypeAlias = Generator[bytes, bytes, bytes]
"""Yields what is to be sent, is sent what came, and returns the bytes after the answer."""


Scan: TypeAlias = tuple[list[bytes], list[Packet], bytes]
"""Of one read: the ids of its messages (of a room event, which has none, 19 other bytes), other packets, the rest."""


class Wire(Protocol):
    """One protocol; without state, so one object serves all connections."""

    name: str

    def log_in(self, user: int, token: str, room: int | None) -> LoginSteps:
        """Raises `Refused` when the server does not let the user in."""
        ...

    def packet(self, code: int, body: bytes) -> bytes:
        """One packet to the server."""
        ...

    def scan(self, data: bytes) -> Scan:
        """The fast way through a read."""
        ...

    def packets(self, data: bytes) -> tuple[list[Packet], bytes]:
        """Every packet with its body, and the bytes of an unfinished one."""
        ...

    def numbered(self, body: bytes, serial: bytes) -> Callable[[int], bytes]:
        """What makes a BIZ packet with a serial number of ten digits where `serial` stands in the body."""
        ...

    def acks(self, ids: list[bytes], user: int, shape: str = TUTORIAL) -> list[bytes]:
        """An ACK packet for each message of the last `scan`."""
        ...

    def gathered_ack(self, ids: list[bytes]) -> bytes:
        """One ACK packet for all of them, with a list in `data`."""
        ...


class Refused(Exception):
    """The server said no; the text is its own."""


class ProtocolFault(Exception):
    """The server sent what nobody may send."""


def ack_body(user: int, shape: str) -> tuple[bytes, bytes]:
    """What stands before the id in the body of an ACK, and after it."""
    fields = b"" if shape == SHORTEST else b'"appId":%d,"userId":%d,' % (APP, user)
    return b'{%b"msgId":"' % fields, b'"}'


def split_at(packet: bytes, serial: bytes) -> Callable[[int], bytes]:
    """See `Wire.numbered`, for packets in which nothing else depends on the number."""
    head, tail = packet.split(serial)
    return lambda number: b"%b%010d%b" % (head, number, tail)


def gathered_body(ids: list[bytes]) -> bytes:
    """The body that acknowledges many: one in `msgId`, further ones as a JSON list in `data`."""
    if len(ids) == 1:
        return b'{"msgId":"%b"}' % ids[0]
    return b'{"msgId":"%b","data":"[\\"%b\\"]"}' % (ids[0], b'\\",\\"'.join(ids[1:]))


def login_data(room: int | None) -> bytes:
    """`data` of a login, as a member of a JSON object; empty for no room."""
    return b"" if room is None else b',"data":"{\\"roomId\\":%d}"' % room
