"""Chat: what a sender may say, and what its receivers get.

Nothing a client says about itself is believed: the sender's id, name and avatar are those of its session, and `data` is
built anew from the fields that are known.
"""

from __future__ import annotations

from qiyu.errors import ErrorCode, Refused
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.bodies import (
    BizBody,
    ChatData,
    DirectChat,
    RoomChat,
    checked_id,
    checked_room_id,
    decode_chat_data,
    encode_json,
)
from qiyu.protocol.packet import CLIENT_MSG_ID_CHARS, BizCode
from qiyu.routing.hub import Hub
from qiyu.routing.msgid import MsgIds
from qiyu.routing.outgoing import Outgoing
from qiyu.routing.router import Router
from qiyu.routing.session import Session

MAX_TYPE = 2**31 - 1


class Chat:
    """Accepts messages and hands them to the router. `content_chars` 0 means no limit."""

    def __init__(self, hub: Hub, router: Router, msg_ids: MsgIds, content_chars: int, metrics: Metrics) -> None:
        self._hub = hub
        self._router = router
        self._msg_ids = msg_ids
        self._content_chars = content_chars
        self._metrics = metrics

    def accept(self, session: Session, body: BizBody, now: Instant) -> None:
        """Deliver a message, or raise `Refused` with what is wrong with it."""
        self._check_client_msg_id(body.client_msg_id or "")
        if body.biz_code == BizCode.ROOM_CHAT:
            chat = self._read(body.data)
            if chat.object_id and not chat.room_id:
                self._to_user(session, chat, now, BizCode.ROOM_CHAT)
            else:
                self._to_room(session, chat, now)
        elif body.biz_code == BizCode.DIRECT:
            self._to_user(session, self._read(body.data), now, BizCode.DIRECT)
        else:
            known = (
                f"{BizCode.ROOM_CHAT:d} (room chat), {BizCode.DIRECT:d} (direct message) or {BizCode.LIKE:d} (likes)"
            )
            raise Refused(ErrorCode.MALFORMED, f"bizCode {body.biz_code}: expected {known}")
        self._metrics.messages_accepted += 1

    def _to_room(self, session: Session, chat: ChatData, now: Instant) -> None:
        room_id = checked_room_id(chat.room_id)
        room = session.room
        if room is None or room.id != room_id:
            where = f"in room {room.id}" if room else "in no room"
            raise Refused(ErrorCode.FORBIDDEN, f"roomId {room_id}: you are {where}; enter the room first")
        data = RoomChat(
            user_id=session.user_id,
            room_id=room.id,
            type=chat.type or 0,
            content=chat.content or "",
            sender_name=session.nickname,
            sender_avatar=session.avatar,
            create_time=now.unix_ms,
        )
        outgoing = Outgoing(
            app_id=session.app_id,
            biz_code=BizCode.ROOM_CHAT,
            data=encode_json(data),
            msg_id=self._msg_ids.next(now.unix_ms),
        )
        self._router.to_room(room, outgoing, session)

    def _to_user(self, session: Session, chat: ChatData, now: Instant, biz_code: BizCode) -> None:
        object_id = checked_id("objectId", chat.object_id)
        receiver = self._hub.find(session.app_id, object_id)
        if receiver is None:
            # There is no inbox yet to keep it in, and what is accepted is never lost: so it is not accepted.
            raise Refused(ErrorCode.UNAVAILABLE, f"user {object_id} is not connected; send it again later")
        data = DirectChat(
            user_id=session.user_id,
            object_id=object_id,
            type=chat.type or 0,
            content=chat.content or "",
            sender_name=session.nickname,
            sender_avatar=session.avatar,
            create_time=now.unix_ms,
        )
        encoded = encode_json(data)
        if biz_code is BizCode.ROOM_CHAT:
            encoded = encoded[:-1] + b',"senderId":%d}' % session.user_id  # what the seed's clients look for
        outgoing = Outgoing(
            app_id=session.app_id,
            biz_code=biz_code,
            data=encoded,
            msg_id=self._msg_ids.next(now.unix_ms),
            is_direct=True,
        )
        self._router.to_user(receiver, outgoing)

    def _read(self, data: str | None) -> ChatData:
        chat = decode_chat_data(data)
        if self._content_chars and len(chat.content or "") > self._content_chars:
            length = len(chat.content or "")
            raise Refused(
                ErrorCode.MALFORMED, f"content of {length} characters: expected {self._content_chars} at most"
            )
        if not 0 <= (chat.type or 0) <= MAX_TYPE:
            raise Refused(ErrorCode.MALFORMED, f"type {chat.type}: expected a whole number from 0 to {MAX_TYPE}")
        return chat

    @staticmethod
    def _check_client_msg_id(client_msg_id: str) -> None:
        if not client_msg_id:
            return
        if len(client_msg_id) > CLIENT_MSG_ID_CHARS:
            reason = f"clientMsgId of {len(client_msg_id)} characters: expected {CLIENT_MSG_ID_CHARS} at most"
            raise Refused(ErrorCode.MALFORMED, reason)
        # It asks for a receipt, which promises that the message is stored; this version stores nothing.
        raise Refused(ErrorCode.UNAVAILABLE, "clientMsgId: receipts are not given yet; send it without one")
