"""Stream keys: `ROOM?key=EXPIRES-SIGNATURE`, the name under which an anchor's encoder publishes a room's picture.

A key is made of the room's number and a time, signed with the installation's secret: nothing is kept of it, and every
instance with the secret knows it again. It ends with the room, since only an open room is published to.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from itsdangerous import Signer

from qiyu.errors import QiyuError
from qiyu.protocol.packet import MAX_ID

NAME_CHARS: Final = 256
"""The longest name that is looked at."""

_NAME: Final = re.compile(
    r"(?P<room>[1-9][0-9]{0,15})(?:\?(?:[^&]*&)*?key=(?P<expires>[0-9]{1,12})-(?P<signature>[A-Za-z0-9_-]{43})(?:&.*)?)?"
)


class BadStreamKey(QiyuError):
    """The name under which a push came is none, or its key is forged or has expired; the text says which."""


class StreamKeys:
    """Makes and checks them."""

    def __init__(self, secret: str, lifetime_seconds: int) -> None:
        if not secret:
            raise ValueError("the secret is empty: anybody could sign with it")
        if lifetime_seconds <= 0:
            raise ValueError(f"lifetime_seconds = {lifetime_seconds}: expected a number above 0")
        self._lifetime = lifetime_seconds
        self._signer = Signer(secret, salt="qiyu.stream-key", key_derivation="hmac", digest_method=hashlib.sha256)

    def issue(self, room_id: int, now_ms: int) -> str:
        """The room's stream key, good for a lifetime at least and for two at most.

        It is the same for a lifetime, so that an anchor who has it in an encoder finds no other on the page each time.
        """
        expires = (now_ms // 1000 // self._lifetime + 2) * self._lifetime
        return f"{room_id}?key={expires}-{self._sign(room_id, expires)}"

    def verify(self, name: str, now_ms: int) -> int:
        """The number of the room that may be published to under this name.

        Raises `BadStreamKey`, whose text can be shown to the peer: it repeats nothing of the key.
        """
        match = _NAME.fullmatch(name) if len(name) <= NAME_CHARS else None
        if match is None or int(match["room"]) > MAX_ID:
            raise BadStreamKey("the stream key is malformed: expected ROOM?key=…, as the room's page shows it")
        if match["expires"] is None:
            raise BadStreamKey("the stream key has no key: expected ROOM?key=…, as the room's page shows it")
        room_id, expires = int(match["room"]), int(match["expires"])
        # Compared as text: base64 decoders ignore spare bits, and one key must not have several spellings.
        if not hmac.compare_digest(self._sign(room_id, expires), match["signature"]):
            raise BadStreamKey("the stream key is wrong, or that of another room")
        if now_ms // 1000 >= expires:
            raise BadStreamKey("the stream key has expired: the room's page shows the one that is good now")
        return room_id

    def _sign(self, room_id: int, expires: int) -> str:
        return self._signer.get_signature(f"{room_id}.{expires}").decode()
