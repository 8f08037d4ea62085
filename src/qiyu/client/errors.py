"""What can go wrong for a client; all of it is a `ClientError`."""

from __future__ import annotations

from qiyu.errors import QiyuError


class ClientError(QiyuError):
    """The root of what the client raises. Each comes out as itself, never inside an ExceptionGroup."""


class ConnectFailed(ClientError):
    """No connection could be made, or no login was answered on it; worth trying again."""


class LoginRefused(ClientError):
    """The server knows this user or token not to be welcome; the client does not try again.

    `code` is that of the ERROR packet, or the HTTP status of a WebSocket that was not upgraded.
    """

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Kicked(ClientError):
    """The server ended the session and does not want it back: `reason` is `replaced` or `banned`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server ended the session: {reason}")
        self.reason = reason


class ConnectionLost(ClientError):
    """The connection ended under a call, whose outcome is unknown. The client is about to connect again.

    `retry_seconds` is how long the server asked to be left alone.
    """

    def __init__(self, reason: str, retry_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_seconds = retry_seconds


class NotConnected(ClientError):
    """There was no connection within `send_seconds`, or the client has logged out: nothing was sent."""


class NotInRoom(ClientError):
    """A room message without a room: enter one first. Nothing was sent."""


class RequestRefused(ClientError):
    """The server answered a request with an ERROR; the connection stays."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
