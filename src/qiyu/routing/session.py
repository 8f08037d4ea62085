"""A client's endpoint (who it is, which room it is in, what it is owed), and the rooms."""

from __future__ import annotations

from typing import TypeAlias

from qiyu.errors import EndReason, ErrorCode, Refused
from qiyu.model import Address
from qiyu.protocol.bodies import ErrorData, LogoutData, answer, encode_json
from qiyu.protocol.packet import APP_ID, MsgCode
from qiyu.routing.endpoint import Door, Endpoint
from qiyu.routing.feed import WIDTH_BITS, Feed
from qiyu.routing.outbox import Outbox
from qiyu.routing.publication import Publication
from qiyu.routing.room_log import RoomLog

Table: TypeAlias = dict[str, Publication]
"""What a session was sent and has not acknowledged: msgId to message, oldest first. `InFlight` alone changes one."""


class Room:
    """The members of one room on this instance."""

    __slots__ = ("app_id", "feed", "id", "key", "last_msg_id", "log", "members", "messages_due")

    def __init__(self, app_id: int, room_id: int) -> None:
        self.app_id = app_id
        self.id = room_id
        self.key = (app_id, room_id)
        self.members: set[Session] = set()
        self.messages_due = 0.0
        """When what was said in it is paid for (services/limits.py)."""
        self.last_msg_id = ""
        """The newest message that was said in it here, since somebody entered it."""
        self.log = RoomLog()
        self.feed: Feed | None = None
        """What it says in this turn, or said in the last one."""

    def __repr__(self) -> str:
        return f"<Room {self.app_id}/{self.id} members={len(self.members)}>"


class Session(Endpoint):
    """A client, from the accepted connection to its end. Nobody has logged in while `user_id` is 0."""

    __slots__ = (
        "app_id",
        "avatar",
        "digits",
        "direct_in_flight",
        "feed",
        "http_session",
        "late_acks",
        "messages_due",
        "nickname",
        "pinged",
        "range_start",
        "room",
        "room_in_flight",
        "splice",
        "user_id",
    )

    def __init__(self, session_id: int, door: Door, outbox: Outbox, address: Address, now: float) -> None:
        super().__init__(session_id, door, outbox, address, now)
        self.app_id = APP_ID
        self.user_id = 0
        self.nickname = ""
        self.avatar = ""
        self.http_session = 0
        """The number of the HTTP session that it was opened by; 0 for a token that was made otherwise."""
        self.digits = b""
        """The user id as it is spliced into packets."""
        self.splice = 0
        """The kind of wire and the width of `digits`: sessions with the same one share `Publication.spliced`."""
        self.room: Room | None = None
        self.feed: Feed | None = None
        """Up to the end of this feed goes the range of the room's log that is in flight..."""
        self.range_start = 0
        """... and from this message on. Without a feed there is no range."""
        self.room_in_flight: Table | None = None
        """The room messages in flight that are not in the range; they were sent before those."""
        self.direct_in_flight: Table | None = None
        """None until something is in flight; the sweep gives emptied tables back."""
        self.messages_due = 0.0
        """When its messages so far are paid for (services/limits.py)."""
        self.pinged = 0.0
        """The `last_seen` of the silence in which it was last asked for a sign of life: each is asked about once."""
        self.late_acks = False
        """`InFlight` has given up a direct message unacknowledged: an ACK of what is on no table may be that one's."""

    def _place(self) -> str:
        room = f" room={self.room.id}" if self.room else ""
        return f"{super()._place()} user={self.app_id}/{self.user_id}{room}"

    @property
    def range_length(self) -> int:
        """How many room messages are in flight in the range."""
        return self.feed.end - self.range_start if self.feed is not None else 0

    def write_out(self) -> None:
        """Put what is in the range into the table; a member that followed its room's feed is apart from here on."""
        if self.outbox.follower is not None:
            self.outbox.split_off()
        feed, self.feed = self.feed, None
        if feed is None:
            return
        log = feed.log
        start, end = self.range_start - log.base, feed.end - log.base
        if start < end:
            table = self.room_in_flight
            if table is None:
                table = self.room_in_flight = {}
            for publication in log.items[start:end]:
                table[publication.msg_id] = publication
                publication.noted += 1

    def is_in(self, room_id: int) -> bool:
        """Whether it is a member of that room."""
        return self.room is not None and self.room.id == room_id

    def identify(self, app_id: int, user_id: int, nickname: str, avatar: str) -> None:
        """It is logged in from here on."""
        self.app_id = APP_ID if app_id == APP_ID else app_id  # one object for nearly all, and not their tokens' own
        self.user_id = user_id
        self.nickname = nickname
        self.avatar = avatar
        self.digits = b"%d" % user_id
        self.splice = self.wire.kind << WIDTH_BITS | len(self.digits)

    def answer(self, code: MsgCode, data: str = "true") -> None:
        """Send one packet that is for this session alone."""
        self.send(code, answer(self.user_id, app_id=self.app_id, data=data))

    def send_error(self, error: Refused) -> None:
        """See `Endpoint.send_error`: an ERROR packet."""
        self._send_error(ErrorData(code=error.code, reason=error.reason), error.client_msg_id)

    def _send_error(self, error: ErrorData, client_msg_id: str = "") -> None:
        body = answer(self.user_id, app_id=self.app_id, data=encode_json(error).decode())
        if client_msg_id:
            body = body[:-1] + b',"clientMsgId":%b}' % encode_json(client_msg_id)
        self.send(MsgCode.ERROR, body)

    def ask_for_life(self) -> None:
        """Ask a silent peer whether it is there, once; a browser answers by itself, whatever its page is doing."""
        if self.pinged != self.last_seen:
            self.pinged = self.last_seen
            ping = self.wire.ping()
            if ping:
                self.outbox.push(ping)

    def tell_gap(self) -> None:
        """Tell a slow peer, once for each gap and at its very place, that room messages are missing from here on."""
        if not self.outbox.gap:
            self.outbox.gap = True
            reason = "room messages after this one were dropped: read faster"
            last = self.room.last_msg_id if self.room is not None else ""
            self._send_error(ErrorData(code=ErrorCode.DROPPED, reason=reason, last_msg_id=last))

    def send_receipt(self, client_msg_id: str, msg_id: int) -> None:
        """Tell a sender that its message is stored, and as what."""
        body = b'{"appId":%d,"userId":%d,"msgId":"%d","clientMsgId":%b}' % (
            self.app_id,
            self.user_id,
            msg_id,
            encode_json(client_msg_id),
        )
        self.send(MsgCode.ACK, body)

    def end(self, reason: EndReason, *, retry_after_ms: int = 0) -> None:
        """Say LOGOUT with `reason`, once, and close. Whoever calls this also takes it out of the hub."""
        if self.ended:
            return
        self.make_way()
        data = LogoutData(reason=reason.text, reconnect=reason.reconnect, retry_after_ms=retry_after_ms)
        self.answer(MsgCode.LOGOUT, encode_json(data).decode())
        self.close(reason.ws_close, reason.text)
