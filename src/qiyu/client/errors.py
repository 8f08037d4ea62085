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
    """The server ended the session and does not want it back: `reason` is `replaced`, `banned` or `signedOut`.

    `Client.log_in_again` begins anew, where the user wants to be the one signed in.
    """

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
    """A call had no connection, or not its turn, in time, or the client has logged out: nothing was sent."""


class NotInRoom(ClientError):
    """A room message without a room: enter one first. Nothing was sent."""


class RequestRefused(ClientError):
    """The server answered a request with an ERROR, or a call with such a code; the connection stays."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class MessageRefused(RequestRefused):
    """The server refused a message, with another code than 429 and 503: those pass, and it is sent again. One that is
    longer than `body_bytes` is refused with 400 before it is sent.

    A refusal is about the copy that was sent last. If the connection was lost under the call, an earlier copy may have
    been stored all the same: a room message, say, is refused with 403 when the client is in another room by now.
    """


class NoReceipt(ClientError):
    """A message was sent, and no receipt came in time, or before the client's end: it may have been stored.

    Whoever sends it again, with this `client_msg_id`, does not have it delivered twice.
    """

    def __init__(self, reason: str, client_msg_id: str) -> None:
        super().__init__(reason)
        self.client_msg_id = client_msg_id
