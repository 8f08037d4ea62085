"""What instances say to each other: packet codes and bodies of their own, in the same frames as TCP's.

A body is a msgpack array, whose places are the fields of a struct here. A release may add fields at the end: who does
not know them skips them, who misses them takes their defaults. Whatever else changes raises `VERSION`.

One connection serves a pair of instances; which of the two made it does not matter once both are `READY`:

    who called            who was called
    HELLO           ->
                    <-    CHALLENGE     proves the secret first: whoever calls may be anybody
    PROOF           ->
                    <-    READY

A proof is an HMAC-SHA256 of all that was said before and of a role, by the secret: it fits no other connection and
cannot be sent back to where it came from. The secret itself is never on the wire. What follows is not encrypted: links
belong into a private network, or into TLS.
"""

from __future__ import annotations

import hmac
from enum import IntEnum
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Final, TypeAlias

import msgspec

from qiyu.errors import ProtocolViolation
from qiyu.model import InstanceId
from qiyu.protocol.packet import Buffer, Packet
from qiyu.protocol.tcp import TcpWire

VERSION: Final = 1
OLDEST_VERSION: Final = 1
"""The versions that this release speaks: two that run side by side take the newest that both do."""
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = sha256().digest_size
HANDSHAKE_BYTES: Final = 1024
"""The longest body from whoever has not proved anything yet."""
BODY_BYTES: Final = 1024 * 1024
"""The longest body between instances."""


class LinkCode(IntEnum):
    """What a packet on a link is for."""

    HELLO = 2001
    CHALLENGE = 2002
    PROOF = 2003
    READY = 2004
    PING = 2005
    PONG = 2006
    SUBSCRIBE = 2010
    SUBSCRIBED = 2011
    UNSUBSCRIBE = 2012
    NOT_HOME = 2013
    HANDOVER = 2014
    FORWARD = 2020
    RECEIPT = 2021
    REFUSED = 2022
    ROOM_MESSAGE = 2023
    DIRECT = 2030
    KICK = 2031
    KICKED = 2032
    CHECK_INBOX = 2033
    ROOM_EVENT = 2040
    COUNTS = 2041
    ROOM_CLOSED = 2042


Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1023)]
Counter: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Nonce: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Proven: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=PROOF_BYTES, max_length=PROOF_BYTES)]


class LinkMessage(msgspec.Struct, array_like=True, frozen=True):
    """The body of one packet on a link."""

    code: ClassVar[LinkCode]


class _Handshake(LinkMessage, frozen=True):
    pass


class Hello(_Handshake, frozen=True):
    """Who calls, and which versions it speaks."""

    code: ClassVar = LinkCode.HELLO
    oldest: Counter
    newest: Counter
    number: Number
    incarnation: Counter
    nonce: Nonce


class Challenge(_Handshake, frozen=True):
    """Who was called, the version it chose, and its proof."""

    code: ClassVar = LinkCode.CHALLENGE
    version: Counter
    number: Number
    incarnation: Counter
    nonce: Nonce
    proof: Proven


class Proof(_Handshake, frozen=True):
    """The proof of who called."""

    code: ClassVar = LinkCode.PROOF
    proof: Proven


class Ready(_Handshake, frozen=True):
    """Who was called believes it: the link is open."""

    code: ClassVar = LinkCode.READY


class Ping(LinkMessage, frozen=True):
    """Asks for a sign of life."""

    code: ClassVar = LinkCode.PING


class Pong(LinkMessage, frozen=True):
    """A sign of life."""

    code: ClassVar = LinkCode.PONG


class StoredMessage(msgspec.Struct, array_like=True, frozen=True):
    """A message of a room as it was stored; `data` is the JSON in its BIZ packet."""

    msg_id: Counter
    sender: Counter
    biz_code: Counter
    data: bytes


class Subscribe(LinkMessage, frozen=True):
    """To a room's home: send what is said in it. `after` is the last msgId delivered to the members here; 0 where none
    was, or where nobody is."""

    code: ClassVar = LinkCode.SUBSCRIBE
    app_id: Counter
    room_id: Counter
    reference: Counter
    after: Counter = 0
    members: Counter = 0


class Subscribed(LinkMessage, frozen=True):
    """From a room's home: whatever is said after `last_msg_id` will be sent.

    `missed` is what came after the `after` that was asked for, if `is_complete`; else the database has it.
    `reference` is that of the SUBSCRIBE: the answer to an earlier one may be from before an UNSUBSCRIBE.
    """

    code: ClassVar = LinkCode.SUBSCRIBED
    app_id: Counter
    room_id: Counter
    reference: Counter
    last_msg_id: Counter
    online: Counter = 0
    likes: Counter = 0
    is_complete: bool = True
    missed: tuple[StoredMessage, ...] = ()


class Unsubscribe(LinkMessage, frozen=True):
    """To a room's home: nobody here is in it any longer."""

    code: ClassVar = LinkCode.UNSUBSCRIBE
    app_id: Counter
    room_id: Counter


class NotHome(LinkMessage, frozen=True):
    """The room is not at home here, or not for long: look it up again. What was forwarded for it was not accepted."""

    code: ClassVar = LinkCode.NOT_HOME
    app_id: Counter
    room_id: Counter


class Handover(LinkMessage, frozen=True):
    """From a room's home: it has been released, after all that was accepted there. Look up, or claim, the next one."""

    code: ClassVar = LinkCode.HANDOVER
    app_id: Counter
    room_id: Counter


class Forward(LinkMessage, frozen=True):
    """To a room's home: accept this message of a member here. `reference` comes back in the answer."""

    code: ClassVar = LinkCode.FORWARD
    reference: Counter
    app_id: Counter
    room_id: Counter
    sender: Counter
    biz_code: Counter
    type: int
    content: str
    sender_name: str
    sender_avatar: str
    client_msg_id: str
    address: bytes = b""
    """Of the client, or its network: what counts it as one of many."""


class Receipt(LinkMessage, frozen=True):
    """The forwarded message is stored."""

    code: ClassVar = LinkCode.RECEIPT
    reference: Counter
    msg_id: Counter


class Refusal(LinkMessage, frozen=True):
    """The forwarded message is not accepted: the code and reason of an ERROR packet."""

    code: ClassVar = LinkCode.REFUSED
    reference: Counter
    error: Counter
    reason: str


class RoomMessage(LinkMessage, frozen=True):
    """From a room's home: deliver this to the members here, but not to who sent it."""

    code: ClassVar = LinkCode.ROOM_MESSAGE
    app_id: Counter
    room_id: Counter
    message: StoredMessage


class Direct(LinkMessage, frozen=True):
    """To where the receiver is pinned: deliver this. It is in the receiver's inbox, whatever becomes of this packet."""

    code: ClassVar = LinkCode.DIRECT
    app_id: Counter
    receiver: Counter
    message: StoredMessage


class Kick(LinkMessage, frozen=True):
    """A newer login stands elsewhere: end this session as replaced, if it is still there. Answered by `Kicked`.

    `session` 0: it may stand there, so have the pin of whoever is here as this user judged once more.
    """

    code: ClassVar = LinkCode.KICK
    app_id: Counter
    user_id: Counter
    session: Counter


class Kicked(LinkMessage, frozen=True):
    """The session is not, or no longer, there."""

    code: ClassVar = LinkCode.KICKED
    app_id: Counter
    user_id: Counter
    session: Counter


class CheckInbox(LinkMessage, frozen=True):
    """To where a user is pinned: something was stored for it that could not be sent on; read its inbox once more."""

    code: ClassVar = LinkCode.CHECK_INBOX
    app_id: Counter
    user_id: Counter


class RoomEvent(LinkMessage, frozen=True):
    """To a room's home: this happened here. From it: tell the members. `data` is the JSON of the event."""

    code: ClassVar = LinkCode.ROOM_EVENT
    app_id: Counter
    room_id: Counter
    data: bytes


class Counts(LinkMessage, frozen=True):
    """To a room's home: members here, and likes and visits since the last report. From it: members in all, and likes so
    far."""

    code: ClassVar = LinkCode.COUNTS
    app_id: Counter
    room_id: Counter
    online: Counter
    likes: Counter
    visits: Counter = 0


class RoomClosed(LinkMessage, frozen=True):
    """To all: this living room was closed."""

    code: ClassVar = LinkCode.ROOM_CLOSED
    app_id: Counter
    room_id: Counter


_STRUCTS: Final[tuple[type[LinkMessage], ...]] = (
    *_Handshake.__subclasses__(),
    *(struct for struct in LinkMessage.__subclasses__() if struct is not _Handshake),
)
_DECODERS: Final[dict[int, Any]] = {struct.code: msgspec.msgpack.Decoder(struct) for struct in _STRUCTS}
_encode_body = msgspec.msgpack.Encoder().encode


def encode(message: LinkMessage) -> bytes:
    """One packet. Raises ValueError where its body is above `BODY_BYTES`: whoever makes it keeps it below."""
    body = _encode_body(message)
    if len(body) > BODY_BYTES:
        raise ValueError(f"{type(message).__name__} of {len(body)} bytes: expected {BODY_BYTES} at most")
    return TcpWire.encode(message.code, body)


class LinkWire:
    """One connection between two instances, without the connection.

    `expects` is whom the caller means to reach; None for who is called. `nonce` is 32 random bytes, for this connection
    alone.
    """

    __slots__ = (
        "_hello",
        "_me",
        "_nonce",
        "_output",
        "_secret",
        "_transcript",
        "_wire",
        "error",
        "expects",
        "found",
        "peer",
    )

    def __init__(self, me: InstanceId, secret: bytes, nonce: bytes, expects: InstanceId | None = None) -> None:
        if not secret:
            raise ValueError("an empty secret: expected one that all instances have in common")
        self._me = me
        self._secret = secret
        self._nonce = nonce
        self.expects = expects
        """Whom the caller means to reach; None for who is called."""
        self._wire = TcpWire(HANDSHAKE_BYTES)
        self._output = b""
        self._hello: Hello | None = None
        self._transcript = b""
        self.peer: InstanceId | None = None
        """The other instance, once it has proved to be one; until then nothing but the handshake is on the wire."""
        self.found: InstanceId | None = None
        """Who has proved to be there instead of whom the caller expected."""
        self.error: ProtocolViolation | None = None
        """Set once the peer broke the protocol, or is not whom it should be; nothing more is read."""
        if expects is not None:
            self._hello = Hello(OLDEST_VERSION, VERSION, *me, nonce)
            self._output = encode(self._hello)

    def __repr__(self) -> str:
        state = f"with {self.peer}" if self.peer else "in its handshake"
        return f"<LinkWire of {self._me} {state} error={self.error!r}>"

    def receive_data(self, data: Buffer, /) -> list[LinkMessage]:
        """Take bytes in any portions; return the messages they complete, those of the handshake left out."""
        messages: list[LinkMessage] = []
        if self.error is not None:
            return messages
        wire = self._wire
        try:
            packets = wire.receive_data(data)
            for place, packet in enumerate(packets, 1):
                message = _decode(packet.code, packet.body)
                if not isinstance(message, _Handshake):
                    messages.append(self._proven(message))
                    continue
                self._shake_hands(message)
                if self._wire is not wire:  # what comes now may be longer, but nothing can have been sent yet
                    _check_nothing_follows(wire, packets[place:], message)
            self.error = self._wire.error
        except ProtocolViolation as exc:
            self.error = exc
        return messages

    def receive_eof(self) -> None:
        """The peer will send no more."""
        self._wire.receive_eof()
        self.error = self.error or self._wire.error

    @property
    def has_output(self) -> bool:
        """Whether the handshake owes the peer something."""
        return bool(self._output)

    def data_to_send(self) -> bytes:
        """Take what the handshake owes the peer."""
        output, self._output = self._output, b""
        return output

    def _proven(self, message: LinkMessage) -> LinkMessage:
        if self.peer is None:
            raise _out_of_turn(message)
        return message

    def _shake_hands(self, message: LinkMessage) -> None:
        if self.expects is None:
            self._is_called(message)
        else:
            self._calls(message, self.expects)

    def _is_called(self, message: LinkMessage) -> None:
        match message:
            case Hello() if self._hello is None:
                version = min(message.newest, VERSION)
                if version < max(message.oldest, OLDEST_VERSION):
                    raise ProtocolViolation(
                        f"link versions {message.oldest} to {message.newest}: expected {OLDEST_VERSION} to {VERSION}"
                    )
                self._hello = message
                self._transcript = _transcript(message, version, self._me, self._nonce)
                proof = self._prove(b"called")
                self._output += encode(Challenge(version, *self._me, self._nonce, proof))
            case Proof(proof) if self._hello is not None and self.peer is None:
                self._check(proof, b"caller")
                self._wire = TcpWire(BODY_BYTES)
                self.peer = InstanceId(self._hello.number, self._hello.incarnation)
                self._output += encode(Ready())
            case _:
                raise _out_of_turn(message)

    def _calls(self, message: LinkMessage, expects: InstanceId) -> None:
        match message:
            case Challenge() if self._hello is not None and not self._transcript:
                found = InstanceId(message.number, message.incarnation)
                if not OLDEST_VERSION <= message.version <= VERSION:
                    raise ProtocolViolation(f"link version {message.version}: expected {OLDEST_VERSION} to {VERSION}")
                self._transcript = _transcript(self._hello, message.version, found, message.nonce)
                self._check(message.proof, b"called")
                if found != expects:
                    self.found = found
                    raise ProtocolViolation(f"instance {_name(found)}: expected {_name(expects)}")
                self._wire = TcpWire(BODY_BYTES)
                self._output += encode(Proof(self._prove(b"caller")))
            case Ready() if self._transcript and self.peer is None:
                self.peer = expects
            case _:
                raise _out_of_turn(message)

    def _prove(self, role: bytes) -> bytes:
        return hmac.digest(self._secret, role + self._transcript, sha256)

    def _check(self, proof: bytes, role: bytes) -> None:
        if not hmac.compare_digest(proof, self._prove(role)):
            raise ProtocolViolation("the proof is wrong: expected one made with this installation's [cluster] secret")


def _decode(code: int, body: Buffer) -> LinkMessage:
    decoder = _DECODERS.get(code)
    if decoder is None:
        raise ProtocolViolation(f"code {code}: expected one of a link")
    try:
        message: LinkMessage = decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise ProtocolViolation(f"the body of a {LinkCode(code).name}: {exc}") from None
    return message


def _check_nothing_follows(wire: TcpWire, packets: list[Packet], message: LinkMessage) -> None:
    wire.receive_eof()
    if packets or wire.error is not None:
        raise ProtocolViolation(f"more behind a {message.code.name}: expected an answer to be awaited")


def _out_of_turn(message: LinkMessage) -> ProtocolViolation:
    return ProtocolViolation(f"a {message.code.name} out of its turn")


def _transcript(hello: Hello, version: int, called: InstanceId, nonce: bytes) -> bytes:
    """All that both have said so far, but the proofs."""
    return _encode_body((hello, version, *called, nonce))


def _name(instance: InstanceId) -> str:
    return f"{instance.number} in its incarnation {instance.incarnation}"
