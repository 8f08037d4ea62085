"""One HTTP/1.1 connection as the server reads it: h11, held to limits that it does not have.

h11 bounds an incomplete head and takes whatever is complete. What is cheap to send and dear to read (thousands of
header fields, chunks of one byte) is counted here, before or while it is read.

HTTP/2 is not spoken, by neither of its doors: prior knowledge (`PRI * HTTP/2.0`) is 505, and an Upgrade is ignored,
which a server may always do (RFC 9110, section 7.8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import h11

HEAD_BYTES: Final = 16 * 1024
FIELDS: Final = 100
CHUNKS: Final = 256

_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_VERSIONS: Final = frozenset({b"1.0", b"1.1"})
_TOO_LATE: Final = 408
_TOO_LARGE: Final = 413
_HEAD_TOO_LARGE: Final = 431  # RFC 6585, section 5
_NO_SUCH_VERSION: Final = 505


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Of one request."""

    head_bytes: int = HEAD_BYTES
    """Its first line and its header fields."""
    fields: int = FIELDS
    chunks: int = CHUNKS
    """Of a body in chunks: a client that has one to send needs few."""


class HttpConnection(h11.Connection):
    """The server's end. `next_event` raises `h11.RemoteProtocolError` with the status for it."""

    def __init__(self, limits: HttpLimits | None = None) -> None:
        self._limits = limits or HttpLimits()
        super().__init__(h11.SERVER, max_incomplete_event_size=self._limits.head_bytes)
        self._chunks = 0
        self._is_late = False
        self.must_close = False
        """Whether the connection must end with the answer to this request, since others may see its end elsewhere."""

    @property
    def has_begun(self) -> bool:
        """Whether something of the next request is here."""
        return bool(self.trailing_data[0])

    def receive_data(self, data: bytes) -> None:
        """Take what has come; nothing is the end."""
        if data and self.their_state is h11.IDLE and not self.has_begun:
            # RFC 9112, section 2.2: a server should ignore an empty line in front of a request.
            data = data.lstrip(b"\r\n")
            if not data:
                return
        super().receive_data(data)

    def expire(self) -> None:
        """The head that has begun took too long: it is refused as the next event."""
        self._is_late = True

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What has come, as h11 tells it."""
        if self.their_state is h11.IDLE and self.has_begun:
            self._check_head()
        event = self._next_event()
        if isinstance(event, h11.Request):
            return self._begin(event)
        if isinstance(event, h11.Data) and event.chunk_start:
            self._chunks += 1
            if self._chunks > self._limits.chunks:
                raise h11.RemoteProtocolError("too many chunks", error_status_hint=_TOO_LARGE)
        return event

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """As h11's own, whose errors stand in a cycle with their traceback, and so would keep the connection alive."""
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            error.__traceback__ = None
            reason, status = str(error), error.error_status_hint
        raise h11.RemoteProtocolError(reason, error_status_hint=status)

    def _check_head(self) -> None:
        if self._is_late:
            raise h11.RemoteProtocolError("the head took too long", error_status_hint=_TOO_LATE)
        received = self.trailing_data[0]
        end = _END_OF_HEAD.search(received)
        head = received[: end.end()] if end else received
        if (
            len(head) > self._limits.head_bytes or head.count(b"\n") > self._limits.fields + 2
        ):  # its first line, and the empty one
            raise h11.RemoteProtocolError("the head is too large", error_status_hint=_HEAD_TOO_LARGE)

    def _begin(self, request: h11.Request) -> h11.Request:
        if request.http_version not in _VERSIONS:
            raise h11.RemoteProtocolError("not HTTP/1.1", error_status_hint=_NO_SUCH_VERSION)
        self._chunks = 0
        names = {name for name, _ in request.headers}
        # RFC 9112, section 6.1: with both, or from HTTP/1.0, it may be an attempt at smuggling a request, and the
        # server must close the connection after it has answered.
        self.must_close = b"transfer-encoding" in names and (
            b"content-length" in names or request.http_version == b"1.0"
        )
        if b"upgrade" not in names:
            return request
        return h11.Request(
            method=request.method,
            target=request.target,
            headers=[field for field in request.headers if field[0] != b"upgrade"],
            http_version=request.http_version,
        )
