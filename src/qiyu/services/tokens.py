"""Login tokens: `<opaque>%<appId>` (docs/protocol.md, Login token).

The opaque part says who may open a connection and until when, and carries what a session needs to know of its
user. It is signed, so that checking one needs neither Redis nor the database; it is not encrypted.

    opaque  =  base64(claims as JSON) "." base64(HMAC-SHA256)    the claims deflated, and "." in front, if shorter
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from typing import Annotated, Final, NamedTuple

import msgspec
from itsdangerous import BadPayload, BadSignature, URLSafeSerializer

from qiyu.errors import BadToken
from qiyu.protocol.packet import APP_ID, MAX_ID, MIN_ID

TOKEN_CHARS: Final = 2048
"""The longest token that is made or looked at."""
MAX_USERS: Final = 1_000_000
"""The most user ids that one range may name."""

# Exactly what `issue` writes. Base64 decoders are lenient: they skip foreign characters and ignore the spare
# bits of the last one, so without this a token would have many spellings. A signature has 42 * 6 + 4 = 256 bits.
_TOKEN: Final = re.compile(
    r"(?P<opaque>\.?[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])%(?P<app_id>[1-9][0-9]{4,15})"
)


class Identity(NamedTuple):
    """Who a session belongs to, as its token says."""

    app_id: int
    user_id: int
    nickname: str
    avatar: str
    http_session: int = 0
    """The number of the HTTP session that the token was made by; 0 for one that was made otherwise."""


_Id = Annotated[int, msgspec.Meta(ge=MIN_ID, le=MAX_ID)]


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is signed; one letter a name, since it travels in every login."""

    a: _Id  # appId
    u: _Id  # userId
    x: int  # expires, unix ms
    n: str = ""  # nickname
    v: str = ""  # avatar
    s: int = 0  # the number of the HTTP session


class _ClaimsJson:
    """The serializer that itsdangerous is to use: JSON, with the shape checked as it is read."""

    loads = staticmethod(msgspec.json.Decoder(_Claims).decode)

    @staticmethod
    def dumps(claims: object) -> str:
        return msgspec.json.encode(claims).decode()


class Tokens:
    """Makes and checks login tokens: every instance with the same secret accepts them.

    But for those that were made by an HTTP session in `ended`, by its number.
    """

    def __init__(self, secret: str, lifetime_seconds: int, ended: Container[int] = ()) -> None:
        if not secret:
            raise ValueError("the secret is empty: anybody could sign with it")
        if lifetime_seconds <= 0:
            raise ValueError(f"lifetime_seconds = {lifetime_seconds}: expected a number above 0")
        self._lifetime_ms = lifetime_seconds * 1000
        self._ended = ended
        self._serializer = URLSafeSerializer(
            secret,
            salt="qiyu.login-token",
            serializer=_ClaimsJson,
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def issue(
        self,
        user_id: int,
        *,
        app_id: int = APP_ID,
        nickname: str = "",
        avatar: str = "",
        http_session: int = 0,
        now_ms: int,
    ) -> str:
        """Make a token for one user. `now_ms` is the unix time in milliseconds.

        Raises ValueError where an id is out of range, or the texts are too long for a token or not Unicode.
        """
        for what, number in (("userId", user_id), ("appId", app_id)):
            if not MIN_ID <= number <= MAX_ID:
                raise ValueError(f"{what} {number}: expected {MIN_ID} to {MAX_ID}")
        claims = _Claims(app_id, user_id, now_ms + self._lifetime_ms, nickname, avatar, http_session)
        token = f"{self._serializer.dumps(claims)}%{app_id}"
        if len(token) > TOKEN_CHARS:
            raise ValueError(f"nickname and avatar make a token of {len(token)} characters, over {TOKEN_CHARS}")
        return token

    def verify(self, token: str, *, user_id: int, app_id: int | None, now_ms: int) -> Identity:
        """Who the token lets in. An `app_id` of None means the one the token names.

        Raises BadToken, whose text can be shown to the peer.
        """
        match = _TOKEN.fullmatch(token) if len(token) <= TOKEN_CHARS else None
        if match is None:
            raise BadToken("the login token is malformed")
        try:
            claims: _Claims = self._serializer.loads(match["opaque"])
        except BadSignature:
            raise BadToken("the login token has a wrong signature") from None
        except BadPayload:
            raise BadToken("the login token is malformed: it was made by another version") from None
        if now_ms >= claims.x:
            raise BadToken("the login token has expired")
        if claims.u != user_id:
            raise BadToken("the login token is for another user")
        if claims.a != int(match["app_id"]) or app_id not in (None, claims.a):
            raise BadToken("the login token is for another app")
        if claims.s and claims.s in self._ended:
            raise BadToken("the login token was made by an HTTP session that has ended")
        return Identity(claims.a, claims.u, claims.n, claims.v, claims.s)


def parse_user_ids(text: str) -> range:
    """The user ids that `10000` or `10000-10499` names, both ends included.

    Raises ValueError with the text and what was expected.
    """
    match = re.fullmatch(r"([0-9]{1,16})(?:-([0-9]{1,16}))?", text)
    if match is None:
        raise ValueError(f"{text!r}: expected a user id such as 10000, or a range such as 10000-10499")
    first, last = int(match[1]), int(match[2] or match[1])
    if not MIN_ID <= first <= last <= MAX_ID:
        raise ValueError(f"{text!r}: expected user ids from {MIN_ID} to {MAX_ID}, the smaller one first")
    if last - first >= MAX_USERS:
        raise ValueError(f"{text!r}: {last - first + 1} user ids; expected at most {MAX_USERS}")
    return range(first, last + 1)
