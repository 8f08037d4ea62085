"""The server's side of the WebSocket opening handshake (RFC 6455, section 4.2), and what its path says.

wsproto parses the request and writes the 101. Before it gets the head, this page has bounded it, found its
end and turned away what wsproto would read leniently or slowly; after it, what RFC 6455 forbids and wsproto
lets pass. Every answer is made of our own words: nothing of a request is ever sent back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, Request
from wsproto.utilities import RemoteProtocolError

from qiyu.errors import ProtocolViolation
from qiyu.protocol.packet import MAX_ID, MIN_ID, Buffer, MsgCode

MAX_HEAD_BYTES: Final = 8192
"""The longest request head; Tomcat's limit as well."""
MAX_HOST_BYTES: Final = 300
"""More than any domain name has (253, RFC 1035). wsproto decodes it as IDNA, at a cost that is quadratic."""

_HEAD_END: Final = b"\r\n\r\n"
_HEAD_BYTES: Final = bytes([*b"\t\r\n", *range(0x20, 0x7F), *range(0x80, 0x100)])
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) [!-~]+ HTTP/1\.1\r\n")
# RFC 9112 lets a server refuse both: lines ending in a bare LF (section 2.2), and folded headers (section 5.2).
_BARE_LF_OR_FOLD: Final = re.compile(rb"(?<!\r)\n|\n[ \t]")
_HOST: Final = re.compile(rb"\r\nhost:([^\r]*)", re.IGNORECASE)
_UPGRADE: Final = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")  # the base64 of 16 bytes
# RFC 6455 allows each only once in a request (section 11.3), and one of two Origins would go unchecked.
_AT_MOST_ONCE: Final = (b"sec-websocket-key", b"sec-websocket-version", b"origin")

# What these must come with: RFC 9110, sections 15.5.2, 15.5.6, 15.5.22; the version, RFC 6455, section 4.4.
_STATUS_HEADERS: Final = {
    HTTPStatus.UNAUTHORIZED: ("WWW-Authenticate: Bearer",),
    HTTPStatus.METHOD_NOT_ALLOWED: ("Allow: GET",),
    HTTPStatus.UPGRADE_REQUIRED: ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
}

_USER_ID: Final = re.compile(r"[0-9]{1,16}")
_CODE: Final = re.compile(r"[0-9]{1,9}")  # always within int32


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A valid opening handshake. `target` is not percent-decoded; it holds a token, so no repr shows it."""

    target: str = field(repr=False)
    origin: str | None
    host: str


@dataclass(frozen=True, slots=True)
class LoginTarget:
    """What the path of a WebSocket address asks for (docs/protocol.md, WebSocket address)."""

    token: str = field(repr=False)
    user_id: int
    code: int
    param: str


class BadRequest(ProtocolViolation):
    """A request that is answered in HTTP, with `status`, and not upgraded."""

    def __init__(self, reason: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(reason)
        self.status = status


class Handshake:
    """One opening handshake: bytes in until there is a request, then `accept` or `reject`, once.

    Where the request is no good, `error` says why and `answer` holds the bytes to send before closing.
    """

    __slots__ = ("_head", "_wsproto", "answer", "error", "request")

    def __init__(self) -> None:
        self._head = bytearray()
        self._wsproto: WSConnection | None = None  # not before there is a whole head to parse
        self.request: UpgradeRequest | None = None
        self.error: ProtocolViolation | None = None
        self.answer = b""

    @property
    def started(self) -> bool:
        """Whether the request has begun and is not yet complete."""
        return bool(self._head) and self.request is None and self.error is None

    def receive_data(self, data: Buffer, /) -> UpgradeRequest | None:
        """Take more of the request, in any portions; return it once it is complete and valid."""
        if self.error is not None or not data:
            return None
        try:
            return self._receive(data)
        except BadRequest as fault:
            # Without the traceback, which would keep the bytes of this read.
            fault.__context__ = None
            self.error = fault.with_traceback(None)
            self.answer = _response(fault.status, fault.reason)
            self.request = None
            self._head.clear()
            return None

    def accept(self) -> bytes:
        """The 101 response, with no extension and no subprotocol; empty if the handshake failed meanwhile."""
        if self.error is not None:
            return b""
        if self._wsproto is None:
            raise RuntimeError("there is no request to accept yet")
        return self._wsproto.send(AcceptConnection())

    def reject(self, status: int, reason: str) -> bytes:
        """A plain-text response instead of the upgrade; empty if the handshake failed meanwhile."""
        return b"" if self.error is not None else _response(HTTPStatus(status), reason)

    def _receive(self, data: Buffer) -> UpgradeRequest | None:
        if self.request is not None:
            raise _too_early()
        head = self._head
        seen = len(head)
        head += data[: MAX_HEAD_BYTES - seen]
        found = head.find(_HEAD_END, max(0, seen - len(_HEAD_END) + 1))
        end = len(head) if found < 0 else found + len(_HEAD_END)
        if head[seen:end].translate(None, _HEAD_BYTES):
            raise BadRequest("this is not HTTP: the request head has control characters")
        if found < 0:
            if end == MAX_HEAD_BYTES:
                reason = f"the request head is longer than {MAX_HEAD_BYTES} bytes"
                raise BadRequest(reason, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        request = self._parse(bytes(head[:end]))
        if seen + len(data) > end:
            raise _too_early()
        self.request = request
        return request

    def _parse(self, head: bytes) -> UpgradeRequest:
        _check_head(head)
        self._wsproto = WSConnection(ConnectionType.SERVER)
        try:
            self._wsproto.receive_data(head)
            request = next(self._wsproto.events(), None)
        except RemoteProtocolError as error:
            raise _refusal(error, head) from None
        except UnicodeError:  # wsproto decodes lists as ASCII and the host as IDNA, and lets failures through
            raise BadRequest("a header is not ASCII, or Host is no domain name") from None
        if not isinstance(request, Request):
            raise BadRequest("not an HTTP request")
        headers = _check_headers(request.extra_headers)
        origin = headers.get(b"origin")
        return UpgradeRequest(request.target, None if origin is None else origin.decode("ascii"), request.host)


def parse_target(target: str) -> LoginTarget:
    """Read `/{token}/{userId}/{code}/{param}`; code and param may be left out, and a slash may follow.

    Raises ProtocolViolation; its reason says which part was wrong but repeats none: one of them is the token.
    """
    if not target.startswith("/"):
        raise ProtocolViolation("the address must be a path: /{token}/{userId}/{code}/{param}")
    if "?" in target:
        raise ProtocolViolation("the address must have no query string: /{token}/{userId}/{code}/{param}")
    parts = target[1:].removesuffix("/").split("/")
    if not 2 <= len(parts) <= 4:
        raise ProtocolViolation(
            f"the path has {len(parts)} parts, expected two to four: /{{token}}/{{userId}}/{{code}}/{{param}}"
        )
    token, user_id, code, param = parts + [str(MsgCode.LOGIN.value), ""][len(parts) - 2 :]
    if not token:
        raise ProtocolViolation("the token (first part of the path) is empty")
    if not _USER_ID.fullmatch(user_id) or not MIN_ID <= int(user_id) <= MAX_ID:
        raise ProtocolViolation(f"userId (second part of the path) must be a number from {MIN_ID} to {MAX_ID}")
    if not _CODE.fullmatch(code):
        raise ProtocolViolation("code (third part of the path) must be a number of at most 9 digits")
    # A URL library may have escaped the % that separates the token's appId; nothing else is decoded.
    return LoginTarget(token.replace("%25", "%"), int(user_id), int(code), param)


def _check_head(head: bytes) -> None:
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise BadRequest("the request does not begin with an HTTP/1.1 request line")
    if line[1] != b"GET":
        raise BadRequest("the method must be GET", HTTPStatus.METHOD_NOT_ALLOWED)
    if _BARE_LF_OR_FOLD.search(head):
        raise BadRequest("lines must end in CR LF, and headers must not be folded")
    host = _HOST.search(head)
    if host is not None and len(host[1]) > MAX_HOST_BYTES:
        raise BadRequest(f"Host is longer than {MAX_HOST_BYTES} bytes")


def _refusal(error: RemoteProtocolError, head: bytes) -> BadRequest:
    # wsproto's texts are constants; none holds a part of the request.
    if not _UPGRADE.search(head):
        reason = "this is a WebSocket port: connect with ws:// or wss://"
        return BadRequest(reason, HTTPStatus.UPGRADE_REQUIRED)
    hint = error.event_hint
    if isinstance(hint, RejectConnection) and hint.status_code == HTTPStatus.UPGRADE_REQUIRED:
        return BadRequest("Sec-WebSocket-Version must be 13", HTTPStatus.UPGRADE_REQUIRED)
    return BadRequest(str(error))


def _check_headers(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    names = [name for name, _ in pairs]
    for name in _AT_MOST_ONCE:
        if names.count(name) > 1:
            raise BadRequest(f"more than one {name.decode().title()} header")
    headers = dict(pairs)
    # A body would be taken for frames by us, and for part of the request by a proxy.
    if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
        raise BadRequest("the request must have no body")
    # RFC 6455, section 4.2.1: a base64 value "that, when decoded, is 16 bytes in length".
    if not _KEY.fullmatch(headers[b"sec-websocket-key"]):
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")
    if not headers.get(b"origin", b"").isascii():
        raise BadRequest("Origin must be ASCII")
    return headers


def _too_early() -> BadRequest:
    # RFC 6455, section 4.1: the client "MUST wait for a response from the server before sending any further
    # data".
    return BadRequest("data came before the answer to the handshake")


def _response(status: HTTPStatus, reason: str) -> bytes:
    body = reason.encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *_STATUS_HEADERS.get(status, ()),
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    ]
    return "\r\n".join(lines).encode() + _HEAD_END + body
