"""The error tree, and every reason for which a session ends, on one page.

Two families, told apart by whose fault it is:

- what a peer did wrong (`ProtocolViolation`, `Refused`, `BadToken`): an answer on the wire, never a traceback;
- what whoever runs the server did wrong (`ConfigError`, `StartupError`): one line on the terminal, and no start.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final


class QiyuError(Exception):
    """The root of every error that qiyu raises itself."""


class ConfigError(QiyuError):
    """A setting is unknown or has a value it cannot have; the text names the key, the value and what was expected."""


class StartupError(QiyuError):
    """The server cannot start: a port is taken, the data folder cannot be written."""


class BadToken(QiyuError):
    """A login token that is malformed, forged, expired or somebody else's; the text says which."""


class ErrorCode(IntEnum):
    """The `code` of an ERROR packet (docs/protocol.md, Errors)."""

    DROPPED = 206
    MALFORMED = 400
    NOT_LOGGED_IN = 401
    FORBIDDEN = 403
    NO_SUCH_ROOM = 404
    CONFLICT = 409
    TOO_FAST = 429
    UNAVAILABLE = 503
    INBOX_FULL = 507


class Refused(QiyuError):
    """One packet is refused with an ERROR packet; the connection stays.

    `reason` goes to the peer as it is: which value was wrong, and what was expected.
    """

    def __init__(self, code: ErrorCode, reason: str, *, client_msg_id: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.client_msg_id = client_msg_id


class CallRefused(QiyuError):
    """A call of a service is refused: over HTTP an answer with `code` and `reason`, on the command line one line.

    `code` is 400 (a parameter is wrong), 401 (not logged in), 403 (not allowed), 404 (there is none), 429 (too often),
    501 (the rules of the business say no, such as a name that is taken; HTTP status 409) or 503 (not now).
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class DatabaseUnavailable(QiyuError):
    """The database cannot be reached, is locked, full or read-only: it may pass, and whoever called may try again."""


class Draining(QiyuError):
    """This instance is stopping: clients are to go to another one."""


class Fenced(DatabaseUnavailable):
    """Another server has taken this one's place: it may write nothing more, and ends. The text says which."""


class PresenceUnavailable(QiyuError):
    """Redis cannot be reached, is loading, full or read-only: it may pass. The text names the reason, and no password.

    Whether what was asked was done is not known.
    """


class DatabaseTooNew(StartupError):
    """The database was made by a newer version; the text names both revisions."""


class WsClose(IntEnum):
    """The WebSocket close codes qiyu sends for a peer's fault (RFC 6455, section 7.4.1)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013


CLOSE_NO_SUCH_ROOM: Final = 4004
"""Closes a WebSocket that came for the picture of a room that is not open: do not come back."""


class ProtocolViolation(QiyuError):
    """The bytes of a peer are not the protocol; what follows cannot be trusted, so the connection is closed.

    A wire never raises it to its driver: it stops and shows it as its `error`.
    `code` goes into the ERROR packet, `ws_close` into the close frame of a WebSocket.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: ErrorCode = ErrorCode.MALFORMED,
        ws_close: WsClose = WsClose.POLICY_VIOLATION,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.ws_close = ws_close


class EndReason(Enum):
    """Why the server ends a session that did nothing wrong: what its LOGOUT packet says, and what the client does next.

    Each has the reason as written on the wire, the WebSocket close code that follows, and whether to reconnect.
    """

    REPLACED = ("replaced", 4001, False)  # the same user and app logged in again
    SIGNED_OUT = ("signedOut", 4002, False)  # the HTTP session that its login token was made by has ended
    BANNED = ("banned", 4003, False)
    IDLE = ("idle", 4008, True)  # silent for two heartbeats
    SLOW = ("slow", 4009, True)  # did not read what was sent; reconnect and catch up
    DRAIN = ("drain", 1012, True)  # this instance is stopping; reconnect after retryAfterMs
    LOST = ("lost", 1012, True)  # this instance lost its lease

    def __init__(self, text: str, ws_close: int, reconnect: bool) -> None:
        self.text = text
        self.ws_close = ws_close
        self.reconnect = reconnect
