"""The calls over HTTP that a client of the messaging side needs (docs/http-api.md)."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import h11
import msgspec
import trio

from qiyu.client.access import Access, require_trio
from qiyu.client.errors import ConnectFailed, LoginRefused, RequestRefused
from qiyu.client.messages import Message, read_biz
from qiyu.client.options import DEFAULTS, Options
from qiyu.client.tcp import open_stream, open_tls
from qiyu.client.transport import Address
from qiyu.errors import ProtocolViolation, Refused
from qiyu.protocol.bodies import encode_json

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
"""A page of a hundred messages of 64 KiB, and some."""
READ_BYTES: Final = 65_536
_PORTS: Final = {"http": 80, "https": 443}

T = TypeVar("T")


class History(NamedTuple):
    """A page of it, the newest message last; where there is more, the first one's msgId leads to the page before."""

    messages: list[Message]
    has_more: bool


class _Answer(msgspec.Struct):
    code: int
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Login(msgspec.Struct, rename="camel"):
    user_id: int
    token: str


class _ImConfig(msgspec.Struct, rename="camel"):
    token: str
    ws_im_server_address: str
    tcp_im_server_address: str
    ws_url: str | None = None


class _History(msgspec.Struct, rename="camel"):
    messages: list[msgspec.Raw]
    has_more: bool


class Api:
    """A server's calls, made by one user: `url` is `http://host:port` or `https://host/path`.

    `session` is the token that /user/login gave, or `log_in` gets one. Each call raises `ConnectFailed` where no answer
    of qiyu came, `LoginRefused` where the session is none, and `RequestRefused` where the server refuses.
    """

    def __init__(self, url: str, session: str = "", *, options: Options = DEFAULTS) -> None:
        """Raises ValueError for a URL that is none."""
        self._address = _parse(url)
        self._options = options
        self.session = session

    def __repr__(self) -> str:
        return f"<Api {self._where} {'with' if self.session else 'without'} a session>"

    async def log_in(self, name: str, password: str) -> int:
        """Begin a session with an account's name and password; returns its user id."""
        answer = await self._call("/user/login", _Login, name=name, password=password)
        self.session = answer.token
        return answer.user_id

    async def access(self, wire: Literal["ws", "tcp"] = "ws") -> Access:
        """Where to connect now, and a token for it: what `connect` takes in place of a URL."""
        config = await self._call("/im/getImConfig", _ImConfig)
        if wire == "tcp":
            return Access(f"tcp://{config.tcp_im_server_address}", config.token)
        return Access(config.ws_url or f"ws://{config.ws_im_server_address}", config.token)

    async def online(self, user_ids: Iterable[int]) -> dict[int, bool]:
        """Which of these users are connected."""
        return await self._call("/im/online", dict[int, bool], userIds=list(user_ids))

    async def history(
        self, *, room_id: int | None = None, user_id: int | None = None, before_msg_id: str = "", limit: int = 50
    ) -> History:
        """What was said in a room, or with a user, one's own messages too: the newest ones, or those before a msgId."""
        if (room_id is None) == (user_id is None):
            raise ValueError("history: expected one of room_id and user_id")
        where = {"roomId": room_id} if room_id is not None else {"objectId": user_id}
        before = {"beforeMsgId": before_msg_id} if before_msg_id else {}
        page = await self._call("/im/history", _History, limit=limit, **where, **before)
        try:
            items = [read_biz(bytes(message))[1] for message in page.messages]
        except (Refused, ProtocolViolation) as exc:
            raise ConnectFailed(f"{self._where} sent a message that cannot be read: {exc}") from None
        return History([item for item in items if isinstance(item, Message)], page.has_more)

    @property
    def _where(self) -> str:
        host = self._address.host
        return f"{f'[{host}]' if ':' in host else host}:{self._address.port}"

    async def _call(self, path: str, kind: type[T], **fields: Any) -> T:
        require_trio()
        status, body = await self._post(f"{self._address.path}{path}", encode_json(fields))
        try:
            answer = msgspec.json.decode(body, type=_Answer)
            if answer.code == HTTPStatus.OK:
                return msgspec.json.decode(answer.data, type=kind)
        except msgspec.MsgspecError:
            raise ConnectFailed(
                f"{self._where}{self._address.path}{path}: HTTP {status}, and no answer of qiyu"
            ) from None
        if answer.code == HTTPStatus.UNAUTHORIZED:
            raise LoginRefused(answer.msg, answer.code)
        raise RequestRefused(answer.code, answer.msg)

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        stream: trio.abc.Stream = await open_stream(self._address, self._options)
        try:
            if self._address.scheme == "https":
                stream = await open_tls(stream, self._address, self._options)  # type: ignore[arg-type]
            with trio.fail_after(self._options.answer_seconds):
                return await self._exchange(stream, path, body)
        except trio.TooSlowError:
            raise ConnectFailed(f"{self._where} does not answer within {self._options.answer_seconds:g} s") from None
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as exc:
            raise ConnectFailed(f"{self._where} does not speak HTTP: {exc}") from None
        finally:
            await trio.aclose_forcefully(stream)

    async def _exchange(self, stream: trio.abc.Stream, path: str, body: bytes) -> tuple[int, bytes]:
        connection = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", self._where),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if self.session:
            headers.append(("Authorization", f"Bearer {self.session}"))
        request = h11.Request(method="POST", target=path, headers=headers)
        sent = connection.send(request), connection.send(h11.Data(data=body)), connection.send(h11.EndOfMessage())
        await stream.send_all(b"".join([part or b"" for part in sent]))
        status, data = 0, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(READ_BYTES)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                data += event.data
                if len(data) > MAX_ANSWER_BYTES:
                    raise ConnectFailed(f"{self._where}: an answer of more than {MAX_ANSWER_BYTES} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return status, bytes(data)


def _parse(url: str) -> Address:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{url!r}: expected http://host:port or https://host:port") from None
    if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"{url!r}: expected http://host:port or https://host:port")
    return Address(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path.rstrip("/"))
