"""The settings by section: names, defaults, and one line of why for each, which config.toml repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from qiyu.config import types

_HOST: Final = "Address to listen on, or a list; the default is this machine only."


class _Section(BaseModel):
    # strict: TOML has types, so a port is 8085 and not "8085", true or 8085.0
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )


class TcpSettings(_Section):
    host: types.Host = Field(default="127.0.0.1", description=_HOST)
    port: types.Port = Field(default=8085, description="TCP port, 0 to 65535; 0 takes any free one.")
    public_address: types.Address = Field(
        default="",
        description="host:port that clients are told to connect to; empty = the host they asked, and this port.",
    )
    proxy_protocol: types.Addresses = Field(
        default=(),
        description="Networks of proxies that put a PROXY protocol header, version 2, before each connection.",
    )


class WsSettings(_Section):
    host: types.Host = Field(default="127.0.0.1", description=_HOST)
    port: types.Port = Field(default=8086, description="TCP port, 0 to 65535; 0 takes any free one.")
    public_url: types.WebSocketUrl = Field(
        default="",
        description="ws:// or wss:// address that clients are told to connect to; empty = as for TCP.",
    )
    path: types.PathPrefix = Field(
        default="",
        description="What a proxy in front leaves before the path of each WebSocket, such as /im; empty = nothing.",
    )
    allowed_origins: types.Origins = Field(
        default=(),
        description='Pages that may connect, as exact origins; [] = pages of this machine only, ["*"] = any.',
    )
    proxy_protocol: types.Addresses = Field(
        default=(),
        description="Networks of proxies that put a PROXY protocol header, version 2, before each connection.",
    )


class HttpSettings(_Section):
    host: types.Host = Field(default="127.0.0.1", description=_HOST)
    port: types.Port = Field(default=8080, description="TCP port, 0 to 65535; 0 takes any free one.")
    path: types.PathPrefix = Field(
        default="",
        description="What a proxy in front has before each path, such as /live, left there or taken away.",
    )
    cors_origins: types.Origins = Field(
        default=(),
        description="Pages of others that may make calls, as origins; [] = those of this machine, at this machine.",
    )
    secure_cookies: types.YesNo = Field(
        default=False,
        description="Mark the session's cookie for TLS only, even where a call seems to have come without.",
    )
    same_site: types.SameSite = Field(
        default="lax",
        description="Whether other sites' pages send the cookie along: lax or strict = no, none = yes, over TLS alone.",
    )
    keep_alive_seconds: types.Seconds = Field(
        default=75,
        description="Seconds that an idle connection stays open: more than a proxy in front keeps its own.",
    )
    request_seconds: types.Seconds = Field(
        default=10, description="Seconds for the head of a request, and the same for its body."
    )
    answer_seconds: types.Seconds = Field(
        default=30, description="Seconds for an answer to be made and read; one of many bytes gets more."
    )
    connections: types.Limit = Field(
        default=2000, description="HTTP connections in all; further ones are closed. 0 = no limit."
    )
    connections_per_address: types.Limit = Field(
        default=200,
        description="HTTP connections from one IP address (IPv6: /64) that is no trusted proxy; 0 = no limit.",
    )
    requests: types.Limit = Field(
        default=100,
        description="Requests dealt with at once; others wait in line, five seconds at most. 0 = no limit.",
    )
    session_days: types.Days = Field(default=30, description="Days for which a login over HTTP lasts.")
    sessions_per_account: types.Limit = Field(
        default=20, description="Logins over HTTP of one account; one more ends the oldest. 0 = no limit."
    )
    trusted_proxies: types.Addresses = Field(
        default=(),
        description="Proxies in front whose Forwarded or X-Forwarded-For and -Proto headers are believed.",
    )


class TlsSettings(_Section):
    certificate: types.File = Field(
        default="",
        description="PEM file of the certificate and those between it and its authority; empty = no TLS here.",
    )
    key: types.File = Field(default="", description="PEM file of its key, which has no password.")
    listeners: types.Listeners = Field(
        default=types.LISTENERS, description="Which listeners speak TLS, and nothing else, if there is a certificate."
    )
    handshakes: types.Limit = Field(
        default=1000,
        description="Handshakes under way at once, but for HTTP; connections beyond them are closed. 0 = no limit.",
    )
    handshake_seconds: types.Seconds = Field(
        default=10, description="Seconds for a handshake; a connection slower than that is closed."
    )

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise PydanticCustomError(
                "pair",
                "certificate and key go together",
                {"keys": ("certificate", "key"), "expected": "both of them, or neither"},
            )
        return self


class DataSettings(_Section):
    dir: types.Folder = Field(
        default=Path("data"),
        description="Folder for what the server keeps, seen from the working directory; made when needed.",
    )


class InstanceSettings(_Section):
    number: types.InstanceNumber = Field(
        default=-1, description="0 to 1023, which goes into every msgId; -1 = the smallest that is free."
    )


class SessionSettings(_Section):
    heartbeat_seconds: types.Seconds = Field(
        default=30,
        description="Seconds between a client's heartbeats, which it must know; a session silent for two of them ends.",
    )


class AuthSettings(_Section):
    secret: types.Secret = Field(
        default=SecretStr(""),
        description="Signs login tokens, 16 characters or more; empty = made, and kept in the data folder.",
    )
    token_seconds: types.TokenSeconds = Field(
        default=300, description="Seconds for which a login token opens a connection; an open one outlives it."
    )


class AccountsSettings(_Section):
    registration: types.Registration = Field(
        default="open",
        description="Who may make an account: open = anybody, over HTTP; closed = `qiyu user add` alone.",
    )


class DatabaseSettings(_Section):
    url: types.Url = Field(
        default=SecretStr(""),
        description="postgresql://, mysql:// or sqlite:// address; empty = SQLite in the data folder.",
    )
    synchronous: types.Synchronous = Field(
        default="normal",
        description="SQLite: normal survives a killed process, full a power cut as well (slower).",
    )


class RedisSettings(_Section):
    url: types.Url = Field(
        default=SecretStr(""),
        description="redis://, rediss:// or unix:// address where instances find each other; empty = a single one.",
    )


class ClusterSettings(_Section):
    host: types.Host = Field(default="127.0.0.1", description=_HOST)
    port: types.Port = Field(default=8087, description="TCP port, 0 to 65535; 0 takes any free one.")
    public_address: types.InstanceAddress = Field(
        default="", description="host:port at which other instances reach this one; empty = this host and this port."
    )
    secret: types.Secret = Field(
        default=SecretStr(""),
        description="What instances prove to each other to know, 16 characters or more; needed with [redis] url.",
    )
    lease_seconds: types.LeaseSeconds = Field(
        default=10, description="Seconds without a sign of life after which others take an instance's place."
    )


class MessagesSettings(_Section):
    history_days: types.KeptDays = Field(
        default=30, description="Days for which messages are kept for history and catch-up; 0 = for ever."
    )
    client_msg_id_hours: types.Hours = Field(
        default=24, description="Hours for which a clientMsgId is known again, even if the history is kept shorter."
    )
    inbox: types.Limit = Field(
        default=1000,
        description="Direct messages a user may have unacknowledged; of one sender, no more than there is room left.",
    )
    known_receivers_only: types.YesNo = Field(
        default=False,
        description="Whether direct messages go only to who has an account here; others get ERROR 403 (app 10001).",
    )
    inbox_days: types.KeptDays = Field(
        default=90, description="Days after which a direct message that nobody fetched leaves the inbox; 0 = never."
    )
    queue: types.Limit = Field(
        default=10_000,
        description="Messages that may wait to be stored; the next sender gets ERROR 503.",
    )
    recent_bytes: types.Count = Field(
        default=67_108_864,
        description="Memory for the latest messages of rooms, from which those who come back are served.",
    )


class AckSettings(_Section):
    retry_seconds: types.Seconds = Field(
        default=4, description="Seconds after which a message that was not acknowledged is sent again."
    )
    attempts: types.Attempts = Field(default=2, description="How often it is sent in all; 1 = never again.")
    window: types.Window = Field(
        default=1024,
        description="Messages one session may leave unacknowledged; beyond it, the oldest of a room go first.",
    )
    deliveries: types.Window = Field(
        default=1_000_000,
        description="The same for all sessions together; each takes about 100 bytes.",
    )


class LimitsSettings(_Section):
    login_seconds: types.LimitSeconds = Field(
        default=5, description="Seconds from connecting to logging in; a connection slower than that is closed."
    )
    body_bytes: types.Limit = Field(
        default=65_536, description="Bytes of one packet's body; a longer one closes the connection."
    )
    content_chars: types.Limit = Field(
        default=2000, description="Characters (code points) of one message's content; a longer one is refused."
    )
    messages_per_second: types.Limit = Field(
        default=20,
        description="Messages a second from one connection, so that nobody floods a room; what is over gets ERROR 429.",
    )
    messages_burst: types.Limit = Field(
        default=40, description="Messages that one connection may send at once, if it sent fewer before."
    )
    packets_per_second: types.Limit = Field(
        default=100,
        description="Packets and control frames a second from one connection, without ACKs; it is read no faster.",
    )
    packets_burst: types.Limit = Field(
        default=400, description="Packets and control frames that one connection may send at once."
    )
    room_messages_per_second: types.Limit = Field(
        default=0, description="Messages a second in one room, of all its members; what is over gets ERROR 429."
    )
    logins_per_second: types.Limit = Field(
        default=50,
        description="Logins a second from one IP address (IPv6: /64) that is none of [http] trusted_proxies.",
    )
    queued_bytes: types.Limit = Field(
        default=536_870_912,
        description="Bytes owed to clients and held for them, in all; near it, the slow lose room messages, then end.",
    )
    outbox_soft_bytes: types.Limit = Field(
        default=1_048_576,
        description="Bytes owed to a slow receiver above which it goes without room messages, and events but `closed`.",
    )
    outbox_hard_bytes: types.Limit = Field(
        default=4_194_304,
        description="Bytes owed to a slow receiver at which its session ends, so that memory stays bounded.",
    )
    connections_per_address: types.Limit = Field(
        default=200,
        description="Connections from one IP address (IPv6: /64) that is none of [http] trusted_proxies.",
    )
    connections: types.Limit = Field(
        default=50_000, description="Sessions in all; further ones are refused. Each needs a file descriptor."
    )

    @model_validator(mode="after")
    def _soft_comes_before_hard(self) -> Self:
        if 0 < self.outbox_hard_bytes < self.outbox_soft_bytes:
            raise PydanticCustomError(
                "order",
                "outbox_soft_bytes must not be above outbox_hard_bytes",
                {
                    "keys": ("outbox_soft_bytes", "outbox_hard_bytes"),
                    "expected": "outbox_soft_bytes no larger than outbox_hard_bytes",
                },
            )
        return self


class LivingSettings(_Section):
    require_open_room: types.YesNo = Field(
        default=True,
        description="Whether only rooms that an anchor opened may be entered; false allows any number.",
    )
    events: types.YesNo = Field(
        default=True,
        description="Whether members are told who enters and leaves, how many they are, and how many likes there are.",
    )
    anchor_away_seconds: types.LimitSeconds = Field(
        default=1800,
        description="Seconds after which the room of an anchor who is not connected is closed; 0 = never.",
    )
    enter_deliveries_per_second: types.Count = Field(
        default=2000,
        description="Deliveries a second and room for who enters and leaves; spent, the count once a second has to do.",
    )


class RtmpSettings(_Section):
    host: types.Host = Field(default="127.0.0.1", description=_HOST)
    port: types.Port = Field(default=1935, description="TCP port, 1 to 65535; 0 = no pictures come in here.")
    public_url: types.RtmpUrl = Field(
        default="",
        description="rtmp:// or rtmps:// address that encoders are told to push to; empty = the host they asked.",
    )


class VideoSettings(_Section):
    open: types.YesNo = Field(
        default=False, description="Whether pictures may be watched by anybody; false wants a login first."
    )
    key_hours: types.KeyHours = Field(
        default=24, description="Hours for which a stream key is good at least; it ends with its room in any case."
    )
    silent_seconds: types.Seconds = Field(
        default=5, description="Seconds for which an encoder may send nothing; then its room is off air."
    )
    viewer_bytes: types.Window = Field(
        default=1_048_576,
        description="Bytes owed to a slow viewer above which it is left out until a key frame.",
    )
    gop_bytes: types.Window = Field(
        default=4_194_304,
        description="Bytes kept since the last key frame, so that who joins sees something at once.",
    )
    play_url: types.PlayUrl = Field(
        default="",
        description="Where pictures are watched if an engine or a CDN shows them, {room} for the room; empty = here.",
    )
    engines: types.Addresses = Field(
        default=(),
        description="Engines that may ask and tell by POST /media/…, as addresses or networks; [] = none.",
    )


class AdminSettings(_Section):
    host: types.Host = Field(default="127.0.0.1", description=_HOST)
    port: types.Port = Field(
        default=0, description="TCP port of /metrics, /docs and what /readyz knows; 0 = they are on the HTTP port."
    )


class LogSettings(_Section):
    level: types.Level = Field(default="info", description="The least that is logged: debug, info, warning or error.")
    format: types.Format = Field(default="auto", description="human, json, or auto = human on a terminal, else json.")


@dataclass(frozen=True, slots=True)
class _Origins:
    """Where the settings came from. It does not count in comparisons."""

    by_name: Mapping[str, str] = field(default_factory=dict, compare=False)
    """By dotted name, which file or variable."""
    warnings: tuple[str, ...] = field(default=(), compare=False)


class Settings(BaseModel):
    """All settings, frozen. `Settings()` has the defaults; `load_settings()` is how a server gets its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tcp: TcpSettings = TcpSettings()
    ws: WsSettings = WsSettings()
    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()
    data: DataSettings = DataSettings()
    instance: InstanceSettings = InstanceSettings()
    session: SessionSettings = SessionSettings()
    auth: AuthSettings = AuthSettings()
    accounts: AccountsSettings = AccountsSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    cluster: ClusterSettings = ClusterSettings()
    messages: MessagesSettings = MessagesSettings()
    ack: AckSettings = AckSettings()
    limits: LimitsSettings = LimitsSettings()
    living: LivingSettings = LivingSettings()
    rtmp: RtmpSettings = RtmpSettings()
    video: VideoSettings = VideoSettings()
    admin: AdminSettings = AdminSettings()
    log: LogSettings = LogSettings()

    _origins: _Origins = PrivateAttr(default_factory=_Origins)

    def came_from(self, origins: Mapping[str, str], warnings: Iterable[str] = ()) -> Self:
        """These settings, remembering which file or variable each was read from, and what was odd about them."""
        self._origins = _Origins(dict(origins), tuple(warnings))
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        """What whoever set them has probably meant otherwise, a line each."""
        return self._origins.warnings

    @property
    def files(self) -> tuple[str, ...]:
        """The files that any of them was read from."""
        return tuple(dict.fromkeys(origin for origin in self._origins.by_name.values() if "." in origin))

    def origin(self, name: str) -> str:
        """The file or variable that a setting (`name` is like `tcp.port`) was read from; "" for a default."""
        return self._origins.by_name.get(name, "")
