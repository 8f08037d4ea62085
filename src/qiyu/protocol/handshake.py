"""The server's side of the WebSocket opening handshake (RFC 6455, section 4.2), and what its path says.

h11 takes the head apart. Before it gets it, this page has bounded it, found its end and turned away what h11 would read
leniently; what the headers must say for an upgrade is looked at here. Every answer is made of our own words: nothing of
a request is ever sent back.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import h11

from qiyu.errors import ProtocolViolation
from qiyu.protocol.authority import parse_authority, split_target
from qiyu.protocol.packet import MAX_ID, MIN_ID, Buffer, MsgCode

MAX_HEAD_BYTES: Final = 8192
"""The longest request head; Tomcat's limit as well."""

_HEAD_END: Final = b"\r\n\r\n"
_HEAD_BYTES: Final = bytes([*b"\t\r\n", *range(0x20, 0x7F), *range(0x80, 0x100)])
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) [!-~]+ HTTP/1\.1\r\n")
# RFC 9112 lets a server refuse both: lines ending in a bare LF (section 2.2), and folded headers (section 5.2).
_BARE_LF_OR_FOLD: Final = re.compile(rb"(?<!\r)\n|\n[ \t]")
# RFC 9112, section 2.2: a server "SHOULD ignore at least one empty line (CRLF) received prior to the request-line".
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")
_HOST: Final = re.compile(rb"\r\nhost:", re.IGNORECASE)
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")  # the base64 of 16 bytes
# RFC 6455 allows each only once in a request (section 11.3), and one of two Origins would go unchecked.
_AT_MOST_ONCE: Final = (b"sec-websocket-key", b"sec-websocket-version", b"origin")
_LISTS: Final = (b"connection", b"upgrade", b"sec-websocket-protocol", b"sec-websocket-extensions")
_VERSION: Final = b"13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

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

    __slots__ = ("_head", "_key", "answer", "error", "request")

    def __init__(self) -> None:
        self._head = bytearray()
        self._key = b""
        self.request: UpgradeRequest | None = None
        self.error: ProtocolViolation | None = None
        self.answer = b""

    @property
    def unfinished(self) -> int:
        """Bytes of the request that are kept."""
        return len(self._head)

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
            # RFC 9110, section 9.3.2: to HEAD, "the server MUST NOT send content in the response".
            is_head = self._head[_begin(self._head) :].startswith(b"HEAD ")
            self.answer = _response(fault.status, fault.reason, has_body=not is_head)
            self.request = None
            self._head.clear()
            return None

    def accept(self) -> bytes:
        """The 101 response, with no extension and no subprotocol; empty if the handshake failed meanwhile."""
        if self.error is not None:
            return b""
        if self.request is None:
            raise RuntimeError("there is no request to accept yet")
        # RFC 6455, section 1.3, wants SHA-1 of just this.
        digest = hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest()
        return (
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b" % base64.b64encode(digest)
        ) + _HEAD_END

    def reject(self, status: int, reason: str) -> bytes:
        """A plain-text response instead of the upgrade; empty if the handshake failed meanwhile."""
        return b"" if self.error is not None else _response(HTTPStatus(status), reason)

    def _receive(self, data: Buffer) -> UpgradeRequest | None:
        if self.request is not None:
            raise _too_early()
        head = self._head
        seen = len(head)
        head += data[: MAX_HEAD_BYTES - seen]
        begin = _begin(head)
        found = head.find(_HEAD_END, max(begin, seen - len(_HEAD_END) + 1))
        end = len(head) if found < 0 else found + len(_HEAD_END)
        if head[seen:end].translate(None, _HEAD_BYTES):
            raise BadRequest("this is not HTTP: the request head has control characters")
        if found < 0:
            if end == MAX_HEAD_BYTES:
                reason = f"the request head is longer than {MAX_HEAD_BYTES} bytes"
                raise BadRequest(reason, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return None
        request = self._parse(bytes(head[begin:end]))
        if seen + len(data) > end:
            raise _too_early()
        self.request = request
        return request

    def _parse(self, head: bytes) -> UpgradeRequest:
        _check_head(head)
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head)
        try:
            request = connection.next_event()
        except h11.RemoteProtocolError:  # its texts may repeat what came
            raise BadRequest("a header is not one of HTTP") from None
        if not isinstance(request, h11.Request):
            raise BadRequest("not an HTTP request")
        headers = _check_headers(list(request.headers))
        target, host = _split_target(request.target.decode("ascii"), headers[b"host"].decode("latin-1"))
        origin = headers.get(b"origin")
        self._key = headers[b"sec-websocket-key"]
        return UpgradeRequest(target, None if origin is None else origin.decode("ascii"), host)


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
    if len(_HOST.findall(head)) != 1:
        raise BadRequest("Host must be there, once")


def _begin(head: bytearray) -> int:
    """Where the request line begins, behind the empty lines in front of it."""
    match = _EMPTY_LINES.match(head)
    return 0 if match is None else match.end()


def _split_target(target: str, host_header: str) -> tuple[str, str]:
    """The path that is asked for, and the host."""
    if parse_authority(host_header) is None:
        raise BadRequest("Host is no host name or IP address with a port or without")
    path, host = split_target(target)
    if host is not None and parse_authority(host) is None:
        raise BadRequest("the address has no host name or IP address in it")
    return path, host_header if host is None else host


def _check_headers(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers by name in lower case, each list as one. Raises `BadRequest` where they ask for no upgrade."""
    names = [name for name, _ in pairs]
    for name in _AT_MOST_ONCE:
        if names.count(name) > 1:
            raise BadRequest(f"more than one {name.decode().title()} header")
    headers = dict(pairs)
    for name in _LISTS:
        if name in headers:
            headers[name] = b",".join(value for each, value in pairs if each == name)
            if not headers[name].isascii():
                raise BadRequest(f"{name.decode().title()} must be ASCII")
    # A body would be taken for frames by us, and for part of the request by a proxy.
    if b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0":
        raise BadRequest("the request must have no body")
    _check_upgrade(headers)
    if not headers.get(b"origin", b"").isascii():
        raise BadRequest("Origin must be ASCII")
    return headers


def _check_upgrade(headers: dict[bytes, bytes]) -> None:
    if b"websocket" not in _tokens(headers.get(b"upgrade", b"")):
        reason = "this is a WebSocket port: connect with ws:// or wss://"
        raise BadRequest(reason, HTTPStatus.UPGRADE_REQUIRED)
    if b"upgrade" not in _tokens(headers.get(b"connection", b"")):
        raise BadRequest("Connection must name Upgrade")
    version = headers.get(b"sec-websocket-version")
    if version is None:
        raise BadRequest("Sec-WebSocket-Version is absent: expected 13")
    if version != _VERSION:
        raise BadRequest("Sec-WebSocket-Version must be 13", HTTPStatus.UPGRADE_REQUIRED)
    # RFC 6455, section 4.2.1: a base64 value "that, when decoded, is 16 bytes in length".
    if not _KEY.fullmatch(headers.get(b"sec-websocket-key", b"")):
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64")


def _tokens(value: bytes) -> Iterable[bytes]:
    """The items of a list, in lower case: they are compared without regard to it (RFC 9110, section 7.8)."""
    return [token.strip(b" \t").lower() for token in value.split(b",")]


def _too_early() -> BadRequest:
    # RFC 6455, section 4.1: the client "MUST wait for a response from the server before sending any further
    # data".
    return BadRequest("data came before the answer to the handshake")


def _response(status: HTTPStatus, reason: str, *, has_body: bool = True) -> bytes:
    body = reason.encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *_STATUS_HEADERS.get(status, ()),
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
    ]
    return "\r\n".join(lines).encode() + _HEAD_END + (body if has_body else b"")
