"""Chat: what a sender may say, and what its receivers get.

Nothing a client says about itself is believed: the sender's id, name and avatar are those of its session, and `data` is
built anew from the fields that are known.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from qiyu.errors import ErrorCode, Refused
from qiyu.living.restrictions import Restrictions, until_words
from qiyu.metrics import Metrics
from qiyu.model import Address, Instant, network_of
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
from qiyu.protocol.links import Forward
from qiyu.protocol.packet import CLIENT_MSG_ID_CHARS, BizCode
from qiyu.routing.msgid import MsgIds
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import Session
from qiyu.services.answers import OriginSender
from qiyu.services.limits import Limits
from qiyu.services.message import Key, Message, MessageContent, Sender
from qiyu.services.message_queue import MessageQueue
from qiyu.services.rings import Ring, Rings

MAX_TYPE = 2**31 - 1
MEMBERS_A_UNIT: Final = 64
"""A message costs its sender a unit of work for so many members that it reaches.

That is less than it costs the server: what is said in one turn goes to each member in one piece, so it is worth while
to take many messages together, and who may say how many is for the limits to say.
"""


class Author(NamedTuple):
    """Who says something on another instance, as a session here does."""

    app_id: int
    user_id: int
    nickname: str
    avatar: str
    address: Address


class Elsewhere(Protocol):
    """What there is besides this instance (services/cluster.py)."""

    def say(
        self,
        session: Session,
        content: MessageContent,
        client_msg_id: str,
        refusal: Refused | None,
        now: Instant,
        /,
    ) -> None:
        """Have it taken where it is to be, when it is its turn. Raises `Refused`."""
        ...


class Chat:
    """Accepts messages into the message log. `content_chars` 0 means no limit."""

    def __init__(
        self,
        log: MessageQueue,
        recent: Rings,
        msg_ids: MsgIds,
        restrictions: Restrictions,
        content_chars: int,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self._limits = limits
        self._log = log
        self._rings = recent
        self._msg_ids = msg_ids
        self._restrictions = restrictions
        self.content_chars = content_chars
        self.elsewhere: Elsewhere | None = None
        """None for an instance that is alone."""
        self._metrics = metrics

    def accept(self, session: Session, body: BizBody, now: Instant) -> None:
        """Take a message, or raise `Refused` with what is wrong with it.

        One that was sent before, with the same clientMsgId, gets the receipt of the first, even where it could not be
        sent any longer: so whether a sender may speak is asked last.
        """
        client_msg_id = _checked_client_msg_id(body.client_msg_id or "")
        content = self._read(body)
        if self.elsewhere is not None:
            self.elsewhere.say(session, content, client_msg_id, self._why_not(session, content, now), now)
            return
        if client_msg_id and self._log.join(Key(session.app_id, session.user_id, client_msg_id), content, session):
            return
        self._log.check_space(session, content.room_id)
        self._append(session, content, client_msg_id, self._why_not(session, content, now), now)

    def take(
        self, session: Session, content: MessageContent, client_msg_id: str, refusal: Refused | None, now: Instant
    ) -> None:
        """Take what a session here says, in a room that is at home here, or to a user. Raises `Refused`.

        With a `refusal`, it may only be one that was sent before.
        """
        if client_msg_id and self._log.join(Key(session.app_id, session.user_id, client_msg_id), content, session):
            return
        self._log.check_space(session, content.room_id)
        self._append(session, content, client_msg_id, refusal, now)

    def take_forwarded(self, message: Forward, sender: OriginSender, now: Instant) -> None:
        """Take what is said on another instance in a room that is at home here. Raises `Refused`.

        That instance has found it fit, and the sender in the room.
        """
        content = MessageContent(message.biz_code, message.room_id, 0, message.type, message.content)
        if message.client_msg_id:
            key = Key(message.app_id, message.sender, message.client_msg_id)
            if self._log.join(key, content, sender):
                return
        author = Author(message.app_id, message.sender, message.sender_name, message.sender_avatar, message.address)
        self._log.check_space(author, content.room_id)
        accepted = self._message(author, sender, content, message.client_msg_id, None, now)
        self._metrics.messages_accepted += 1
        self._log.append(accepted, now)
        if not message.client_msg_id:
            sender.send_receipt("", accepted.msg_id)

    def _append(
        self, session: Session, content: MessageContent, client_msg_id: str, refusal: Refused | None, now: Instant
    ) -> None:
        if refusal is not None and not client_msg_id:
            raise refusal
        message = self._message(session, session, content, client_msg_id, refusal, now)
        if refusal is None:
            self._metrics.messages_accepted += 1
            if content.room_id and session.room is not None:
                self._metrics.work += len(session.room.members) // MEMBERS_A_UNIT
            self._metrics.latency.accepted(message.msg_id, now.monotonic)
        self._log.append(message, now)

    def _message(
        self,
        author: Session | Author,
        sender: Sender,
        content: MessageContent,
        client_msg_id: str,
        refusal: Refused | None,
        now: Instant,
    ) -> Message:
        # The ring first: it knows all that comes after the last id there was when it was opened.
        ring = self._ring(author, content) if refusal is None else None
        msg_id = self._msg_ids.next(now.unix_ms)
        data = _data(author, content, now)
        publication = Publication(
            app_id=author.app_id,
            biz_code=content.biz_code,
            data=data,
            msg_id=str(msg_id),
            kind=Kind.KEPT if content.object_id else Kind.DROPPABLE,
        )
        return Message(
            msg_id,
            author.app_id,
            author.user_id,
            content,
            client_msg_id,
            data,
            now.unix_ms,
            publication,
            [sender],
            ring,
            refusal,
            address=network_of(author.address),
        )

    def _ring(self, author: Session | Author, content: MessageContent) -> Ring | None:
        if not content.room_id:
            return None
        return self._rings.open((author.app_id, content.room_id), self._msg_ids.last)

    def _why_not(self, session: Session, content: MessageContent, now: Instant) -> Refused | None:
        """Why the session may not send this now."""
        if not content.room_id:
            return None
        if not session.is_in(content.room_id):
            where = f"in room {session.room.id}" if session.room else "in no room"
            return Refused(ErrorCode.FORBIDDEN, f"roomId {content.room_id}: you are {where}; enter the room first")
        muted_until = self._restrictions.muted_until(session.app_id, content.room_id, session.user_id, now)
        if muted_until:
            return Refused(ErrorCode.FORBIDDEN, f"roomId {content.room_id}: muted {until_words(muted_until)}")
        return self._limits.why_not_in_room(session.room, now) if session.room is not None else None

    def _read(self, body: BizBody) -> MessageContent:
        if body.biz_code not in {BizCode.ROOM_CHAT, BizCode.DIRECT}:
            known = (
                f"{BizCode.ROOM_CHAT:d} (room chat), {BizCode.DIRECT:d} (direct message) or {BizCode.LIKE:d} (likes)"
            )
            got = "is absent" if body.biz_code is None else str(body.biz_code)
            raise Refused(ErrorCode.MALFORMED, f"bizCode {got}: expected {known}")
        chat = decode_chat_data(body.data)
        self._check(chat)
        type_, content = chat.type or 0, chat.content or ""
        if body.biz_code == BizCode.ROOM_CHAT and (chat.room_id or not chat.object_id):
            return MessageContent(BizCode.ROOM_CHAT, checked_room_id(chat.room_id), 0, type_, content)
        return MessageContent(int(body.biz_code), 0, checked_id("objectId", chat.object_id), type_, content)

    def _check(self, chat: ChatData) -> None:
        length = len(chat.content or "")
        if self.content_chars and length > self.content_chars:
            raise Refused(ErrorCode.MALFORMED, f"content of {length} characters: expected {self.content_chars} at most")
        if not 0 <= (chat.type or 0) <= MAX_TYPE:
            raise Refused(ErrorCode.MALFORMED, f"type {chat.type}: expected a whole number from 0 to {MAX_TYPE}")


def _data(author: Session | Author, content: MessageContent, now: Instant) -> bytes:
    """`data` as the receivers get it."""
    if content.room_id:
        return encode_json(
            RoomChat(
                user_id=author.user_id,
                room_id=content.room_id,
                type=content.type,
                content=content.content,
                sender_name=author.nickname,
                sender_avatar=author.avatar,
                create_time=now.unix_ms,
            )
        )
    data = encode_json(
        DirectChat(
            user_id=author.user_id,
            object_id=content.object_id,
            type=content.type,
            content=content.content,
            sender_name=author.nickname,
            sender_avatar=author.avatar,
            create_time=now.unix_ms,
        )
    )
    if content.biz_code == BizCode.ROOM_CHAT:
        return data[:-1] + b',"senderId":%d}' % author.user_id  # what the seed's clients look for
    return data


def _checked_client_msg_id(client_msg_id: str) -> str:
    if len(client_msg_id) > CLIENT_MSG_ID_CHARS:
        reason = f"clientMsgId of {len(client_msg_id)} characters: expected {CLIENT_MSG_ID_CHARS} at most"
        raise Refused(ErrorCode.MALFORMED, reason)
    if "\0" in client_msg_id:
        raise Refused(ErrorCode.MALFORMED, "clientMsgId: expected no U+0000 in it")
    return client_msg_id
