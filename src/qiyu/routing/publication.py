"""One BIZ packet on its way to any number of receivers: encoded once for each kind of wire, not once a receiver.

All that differs between two receivers of a kind is the `userId` in the body, and the lengths that depend on its number
of digits. So a packet is kept as the bytes before and after those digits, one pair for each (kind, digits).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from enum import Enum, auto
from typing import TypeAlias

import msgspec

from qiyu.protocol.bodies import ImMsgBody, encode_json
from qiyu.protocol.packet import MsgCode
from qiyu.protocol.wire import Wire
from qiyu.routing.room_log import RoomLog

Spliced: TypeAlias = tuple[bytes, bytes, int]
"""The bytes before the digits, those after, and the size of the whole packet."""


_decode_biz = msgspec.json.Decoder(ImMsgBody).decode


class Kind(Enum):
    """What becomes of a packet whose receiver is slow (routing/outbox.py has the bounds).

    Answers to a session's own packets are no publications; they are kept.
    """

    KEPT = auto()
    """Owed whatever else is owed, up to the hard bound, which ends the session: direct messages, the end of a room.
    One with a msgId is a direct message."""
    DROPPABLE = auto()
    """Left out above the soft bound, and the receiver is told: room messages. The room's history has them."""
    MERGEABLE = auto()
    """Left out above half the soft bound, and nobody is told, for a later one says the same and more: who enters and
    leaves, counts."""


class Publication:
    """A message or event, ready for delivery. `msg_id` is "" for an event, which nobody acknowledges."""

    __slots__ = ("_after", "_before", "is_direct", "kind", "log", "msg_id", "noted", "number", "on_ack", "spliced")

    def __init__(self, *, app_id: int, biz_code: int, data: bytes, kind: Kind, msg_id: str = "") -> None:
        self.msg_id = msg_id
        self.kind = kind
        self.is_direct = kind is Kind.KEPT and msg_id != ""
        """A direct message: its receiver's inbox has it."""
        self.noted = 0
        """In how many tables of what is in flight it is; `InFlight` counts them."""
        self.log: RoomLog | None = None
        """The log of a room in which it is, as `number`, until it is settled there: it may be in flight in ranges."""
        self.number = 0
        self.on_ack: Callable[[], bool] | None = None
        """While a direct message is not stored yet: its ACK calls this, and need not be stored if that returns True."""
        self.spliced: dict[int, Spliced] = {}
        """By `Session.splice`; filled by `splice`."""
        self._before = b'{"appId":%d,"userId":' % app_id
        ending = b',"msgId":"%b"}' % msg_id.encode() if msg_id else b"}"
        self._after = b',"bizCode":%d,"data":%b%b' % (biz_code, encode_json(data.decode()), ending)

    def __repr__(self) -> str:
        return f"<Publication {self.msg_id or 'event'} {self.kind.name.lower()}>"

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory, a quarter of them or less its own."""
        return 2 * len(self._after) + 600

    @property
    def packet_size(self) -> int:
        """About how many bytes the packet has on the wire."""
        return len(self._before) + len(self._after) + 40

    @property
    def biz(self) -> tuple[int, bytes]:
        """Its bizCode and `data`, read back from the packet: seldom needed, and so not kept."""
        body = _decode_biz(b"{" + self._after[1:])
        return body.biz_code, body.data.encode()

    def twin(self) -> Publication:
        """The same packet, with an account of its own: for receivers who get it later than others did."""
        twin = copy(self)
        twin.noted = 0
        twin.log = None
        return twin

    def splice(self, wire: Wire, width: int, key: int) -> Spliced:
        """Encode for receivers on wires like `wire` whose ids have `width` digits, and remember it under `key`."""
        head, tail = wire.splice(MsgCode.BIZ, self._before, self._after, width)
        spliced = self.spliced[key] = (head, tail, len(head) + width + len(tail))
        return spliced
