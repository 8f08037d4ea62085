"""The settings: what they are called, what they may be, and where each one came from.

The environment goes before config.toml, and config.toml before the defaults below. Nothing is read behind the
caller's back: `Settings()` is the defaults, `load_settings()` reads the file and the environment.

Whoever mistyped a setting should learn of every mistake at once, in plain words, and no message, `repr` or
`describe()` may show a secret. So each type below carries, beside its check, the words for what it accepts.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from qiyu.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo

CONFIG_FILE: Final = "config.toml"
ENV_PREFIX: Final = "QIYU_"
SECRET_CHARS: Final = 16
"""The shortest secret that is accepted."""
MASK: Final = "********"

_MAX_LIMIT: Final = 2**31 - 1  # a packet's `len` is an int32; the other limits need no more either
_DAY_SECONDS: Final = 86_400
_YEAR_SECONDS: Final = 366 * _DAY_SECONDS
_SHOWN_CHARS: Final = 80  # of a wrong value, in a message


class Expected(NamedTuple):
    """What a setting accepts, in words that follow `expected`."""

    words: str


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may mean any machine


def _check_host(host: str) -> str:
    if ":" in host:
        ipaddress.IPv6Address(host)  # not `host:port`, and not `[::1]`
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError
    return host


# Scheme, host and port as a browser writes them: lower case, no path. Apps send schemes of their own.
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        match = _ORIGIN.fullmatch(origin)
        if origin != "*" and (match is None or match[3] == _DEFAULT_PORTS.get(match[1], "")):
            raise ValueError  # a browser leaves the default port out: such an entry would never match
    return origins


def _check_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    for address in addresses:
        ipaddress.ip_network(address)
    return addresses


def _check_folder(folder: Path) -> Path:
    if folder == Path() or folder.parts[0].startswith("~") or not str(folder).isprintable():
        raise ValueError  # nothing expands a ~ here: it would make a folder of that name
    return folder


def _check_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if text and len(text.strip()) < SECRET_CHARS:
        raise ValueError
    return secret


def _check_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text and not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", text):
        raise ValueError
    return url


Host = Annotated[str, AfterValidator(_check_host), Expected("a host name or an IP address, without a port")]
Port = Annotated[int, Field(ge=0, le=65535), Expected("a whole number from 0 to 65535")]
Origins = Annotated[
    tuple[str, ...],
    Field(strict=False),  # TOML has lists only
    AfterValidator(_check_origins),
    Expected('a list of origins such as "https://live.example.com" (no path, no default port), or ["*"]'),
]
Folder = Annotated[
    Path, Field(strict=False), AfterValidator(_check_folder), Expected("the name of a folder, with no ~ in front")
]
InstanceNumber = Annotated[int, Field(ge=0, le=1023), Expected("a whole number from 0 to 1023")]
Address = Annotated[
    str,
    Field(pattern=r"^$|^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    Expected('host:port as clients reach it, or ""'),
]
WebSocketUrl = Annotated[
    str,
    Field(pattern=r"^$|^wss?://[^\s/?#@]+$"),
    Expected('ws://host:port or wss://host:port with no path, or ""'),
]
Addresses = Annotated[
    tuple[str, ...],
    Field(strict=False),
    AfterValidator(_check_addresses),
    Expected("a list of IP addresses or networks such as 10.0.0.0/8"),
]
Days = Annotated[int, Field(ge=1, le=366), Expected("a whole number of days from 1 to 366")]
Synchronous = Annotated[Literal["normal", "full"], Expected("normal or full")]
Secret = Annotated[
    SecretStr, AfterValidator(_check_secret), Expected(f'a text of at least {SECRET_CHARS} characters, or ""')
]
Url = Annotated[
    SecretStr, AfterValidator(_check_url), Expected('a URL such as scheme://user:password@host:port/name, or ""')
]
Seconds = Annotated[
    float,
    Field(gt=0, le=_DAY_SECONDS, allow_inf_nan=False),
    Expected(f"a number of seconds above 0, at most {_DAY_SECONDS}"),
]
LimitSeconds = Annotated[
    float,
    Field(ge=0, le=_DAY_SECONDS, allow_inf_nan=False),
    Expected(f"a number of seconds from 0 (no limit) to {_DAY_SECONDS}"),
]
TokenSeconds = Annotated[
    int, Field(ge=1, le=_YEAR_SECONDS), Expected(f"a whole number of seconds from 1 to {_YEAR_SECONDS}")
]
Window = Annotated[int, Field(ge=1, le=_MAX_LIMIT), Expected(f"a whole number from 1 to {_MAX_LIMIT}")]
Limit = Annotated[int, Field(ge=0, le=_MAX_LIMIT), Expected(f"a whole number from 0 (no limit) to {_MAX_LIMIT}")]
Count = Annotated[int, Field(ge=0, le=_MAX_LIMIT), Expected(f"a whole number from 0 to {_MAX_LIMIT}")]
YesNo = Annotated[bool, Expected("true or false")]
Level = Annotated[Literal["debug", "info", "warning", "error"], Expected("debug, info, warning or error")]
Format = Annotated[Literal["auto", "human", "json"], Expected("auto, human or json")]


class _Section(BaseModel):
    # strict: TOML has types, so a port is 8085 and not "8085", true or 8085.0
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )


class TcpSettings(_Section):
    host: Host = Field(default="127.0.0.1", description="Address to listen on; the default is this machine only.")
    port: Port = Field(default=8085, description="TCP port, 0 to 65535; 0 takes any free one.")
    public_address: Address = Field(
        default="",
        description="host:port that clients are told to connect to; empty = the host they asked, and this port.",
    )


class WsSettings(_Section):
    host: Host = Field(default="127.0.0.1", description="Address to listen on; the default is this machine only.")
    port: Port = Field(default=8086, description="TCP port, 0 to 65535; 0 takes any free one.")
    public_url: WebSocketUrl = Field(
        default="",
        description="ws:// or wss:// address that clients are told to connect to; empty = as for TCP.",
    )
    allowed_origins: Origins = Field(
        default=(),
        description='Pages that may connect, as exact origins; [] = pages of this machine only, ["*"] = any.',
    )


class HttpSettings(_Section):
    host: Host = Field(default="127.0.0.1", description="Address to listen on; the default is this machine only.")
    port: Port = Field(default=8080, description="TCP port, 0 to 65535; 0 takes any free one.")
    cors_origins: Origins = Field(
        default=(),
        description="Pages of other hosts that may call the HTTP interface with their users' cookies, as origins.",
    )
    secure_cookies: YesNo = Field(
        default=False,
        description="Mark the session's cookie for TLS only, even where a call seems to have come without.",
    )
    session_days: Days = Field(default=30, description="Days for which a login over HTTP lasts.")
    trusted_proxies: Addresses = Field(
        default=(),
        description="Proxies in front whose X-Forwarded-For and X-Forwarded-Proto are believed.",
    )


class DataSettings(_Section):
    dir: Folder = Field(
        default=Path("data"),
        description="Folder for what the server keeps, seen from the working directory; made when needed.",
    )


class InstanceSettings(_Section):
    number: InstanceNumber = Field(
        default=0, description="0 to 1023; goes into every msgId, so no two instances may have the same."
    )


class SessionSettings(_Section):
    heartbeat_seconds: Seconds = Field(
        default=30,
        description="Seconds between a client's heartbeats, which it must know; a session silent for two of them ends.",
    )


class AuthSettings(_Section):
    secret: Secret = Field(
        default=SecretStr(""),
        description="Signs login tokens, 16 characters or more; empty = made, and kept in the data folder.",
    )
    token_seconds: TokenSeconds = Field(
        default=300, description="Seconds for which a login token opens a connection; an open one outlives it."
    )


class DatabaseSettings(_Section):
    url: Url = Field(
        default=SecretStr(""),
        description="postgresql://, mysql:// or sqlite:// address; empty = SQLite in the data folder.",
    )
    synchronous: Synchronous = Field(
        default="normal",
        description="SQLite: normal survives a killed process, full a power cut as well (slower).",
    )


class RedisSettings(_Section):
    url: Url = Field(
        default=SecretStr(""),
        description="Where instances will find each other; empty = a single one. Not used yet.",
    )


class AckSettings(_Section):
    window: Window = Field(
        default=1024,
        description="Messages one session may leave unacknowledged; beyond it, the oldest of a room go first.",
    )


class LimitsSettings(_Section):
    login_seconds: LimitSeconds = Field(
        default=5, description="Seconds from connecting to logging in; a connection slower than that is closed."
    )
    body_bytes: Limit = Field(
        default=65_536, description="Bytes of one packet's body; a longer one closes the connection."
    )
    content_chars: Limit = Field(
        default=2000, description="Characters (code points) of one message's content; a longer one is refused."
    )
    messages_per_second: Limit = Field(
        default=20, description="Messages a second from one connection, so that nobody floods a room. Not enforced yet."
    )
    messages_burst: Limit = Field(
        default=40, description="Messages one connection may send at once above that rate. Not enforced yet."
    )
    outbox_soft_bytes: Limit = Field(
        default=1_048_576,
        description="Bytes owed to a slow receiver above which room messages and events are dropped for it.",
    )
    outbox_hard_bytes: Limit = Field(
        default=4_194_304,
        description="Bytes owed to a slow receiver at which its session ends, so that memory stays bounded.",
    )
    connections_per_address: Limit = Field(
        default=200,
        description="Connections from one IP address, so that one machine cannot take all. Not enforced yet.",
    )
    connections: Limit = Field(
        default=50_000, description="Connections in all; further ones are refused. Each needs a file descriptor."
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
    require_open_room: YesNo = Field(
        default=True,
        description="Whether only rooms that an anchor opened may be entered; false allows any number.",
    )
    events: YesNo = Field(
        default=True,
        description="Whether members are told who enters and leaves, how many they are, and how many likes there are.",
    )
    enter_deliveries_per_second: Count = Field(
        default=2000,
        description="Deliveries a second and room for who enters and leaves; spent, the count once a second has to do.",
    )


class LogSettings(_Section):
    level: Level = Field(default="info", description="The least that is logged: debug, info, warning or error.")
    format: Format = Field(default="auto", description="human, json, or auto = human on a terminal and json elsewhere.")


@dataclass(frozen=True, slots=True)
class _Origins:
    """Which file or variable each setting came from, by dotted name. It does not count in comparisons."""

    by_name: Mapping[str, str] = field(default_factory=dict, compare=False)


class Settings(BaseSettings):
    """All settings, frozen. `Settings()` has the defaults; `load_settings()` is how a server gets its own."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tcp: TcpSettings = TcpSettings()
    ws: WsSettings = WsSettings()
    http: HttpSettings = HttpSettings()
    data: DataSettings = DataSettings()
    instance: InstanceSettings = InstanceSettings()
    session: SessionSettings = SessionSettings()
    auth: AuthSettings = AuthSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    ack: AckSettings = AckSettings()
    limits: LimitsSettings = LimitsSettings()
    living: LivingSettings = LivingSettings()
    log: LogSettings = LogSettings()

    _origins: _Origins = PrivateAttr(default_factory=_Origins)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is passed in, nothing else: the stock sources skip unknown names and forget origins."""
        return (init_settings,)

    def came_from(self, origins: Mapping[str, str]) -> Self:
        """These settings, remembering for `describe` which file or variable each was read from."""
        self._origins = _Origins(dict(origins))
        return self

    def origin(self, name: str) -> str:
        """The file or variable that a setting (`name` is like `tcp.port`) was read from; "" for a default."""
        return self._origins.by_name.get(name, "")


def _fields_by_name() -> dict[str, FieldInfo]:
    sections = {name: info.annotation for name, info in Settings.model_fields.items()}
    return {
        f"{section}.{key}": info
        for section, model in sections.items()
        if model is not None
        for key, info in model.model_fields.items()
    }


_FIELDS: Final = _fields_by_name()
_SECTIONS: Final = tuple(Settings.model_fields)


class _Found(NamedTuple):
    """A setting as it was found, before anything is known about its value."""

    value: object
    origin: str


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: the environment over the file over the defaults.

    Without a `path` it is ./config.toml, if there is one. A setting's variable is named like
    QIYU_TCP__PORT; names in QIYU_ without a double underscore belong to others and are left alone.

    Raises ConfigError, which lists every problem found, one a line.
    """
    if path is None and Path(CONFIG_FILE).exists():
        path = Path(CONFIG_FILE)
    problems: list[str] = []
    found = {} if path is None else _from_file(path, problems)
    found |= _from_environment(os.environ if environ is None else environ, problems)

    sections: dict[str, dict[str, object]] = {}
    for name, (value, _) in found.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    try:
        settings = Settings(**sections)  # type: ignore[arg-type]  # pydantic makes the sections
    except ValidationError as error:
        problems += _problems_of(error, found)
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems))) from None
    return settings.came_from({name: each.origin for name, each in found.items()})


def _from_file(path: Path, problems: list[str]) -> dict[str, _Found]:
    try:
        # utf-8-sig: some editors put a byte order mark in front, which TOML does not know
        tables = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (at byte {error.start})") from None
    except ValueError as error:  # TOMLDecodeError, which names the line; or a number of thousands of digits
        raise ConfigError(f"{path}: is not TOML: {error}") from None

    found: dict[str, _Found] = {}
    for section, table in tables.items():
        if section not in _SECTIONS:
            problems.append(_unknown(section, str(path)))
        elif not isinstance(table, dict):
            problems.append(f"{section} (from {path}): expected a section, [{section}], with settings below it")
        else:
            for key, value in table.items():
                name = f"{section}.{key}"
                if name in _FIELDS:
                    found[name] = _Found(value, str(path))
                else:
                    problems.append(_unknown(name, str(path)))
    return found


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, _Found]:
    found: dict[str, _Found] = {}
    for variable in sorted(environ):
        prefix, rest = variable[: len(ENV_PREFIX)], variable[len(ENV_PREFIX) :]
        if prefix.upper() != ENV_PREFIX or "__" not in rest:
            continue
        name = rest.lower().replace("__", ".")
        if name not in _FIELDS:
            problems.append(_unknown(name, variable))
        elif name in found:
            problems.append(f"{name} is set twice: by {found[name].origin} and by {variable}")
        else:
            found[name] = _Found(_from_text(environ[variable], _FIELDS[name]), variable)
    return found


_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_YES_NO: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def _from_text(text: str, info: FieldInfo) -> object:
    """What a variable's text means for this setting; the text itself where it means nothing."""
    kind = info.annotation
    if kind is int:
        return int(text) if _WHOLE_NUMBER.fullmatch(text) else text
    if kind is float:
        return float(text) if _NUMBER.fullmatch(text) else text
    if kind is bool:
        return _YES_NO.get(text.lower(), text)
    if kind == tuple[str, ...]:
        return _list_from_text(text)
    return text


def _list_from_text(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _unknown(name: str, origin: str) -> str:
    hint = _near(name)
    what = "setting" if any("." in each for each in (name, *hint)) else "section"
    line = f"{name} (from {origin}): unknown {what}" + (f"; did you mean {' or '.join(hint)}?" if hint else "")
    return _printable(line)


def _near(name: str) -> list[str]:
    """The settings that a wrong name may stand for: its key in the right section, or the nearest spelling."""
    name = name.lower()
    section, _, key = name.rpartition(".")
    moved = [known for known in _FIELDS if known.rpartition(".")[2] == key]
    if "." not in name:  # a section, or a setting that stands above the first section
        return get_close_matches(name, _SECTIONS, n=1, cutoff=0.6) or moved
    if moved and section not in _SECTIONS:
        near_section = get_close_matches(section, _SECTIONS, n=1, cutoff=0.5)
        return [known for known in moved if known.split(".")[0] in near_section] or moved
    return moved or get_close_matches(name, _FIELDS, n=1, cutoff=0.6)


def _problems_of(error: ValidationError, found: Mapping[str, _Found]) -> Iterable[str]:
    for detail in error.errors(include_url=False, include_input=False):
        section, *keys = (str(part) for part in detail["loc"])
        if keys:
            name = f"{section}.{keys[0]}"
            yield f"{_as_found(name, found)}: expected {_expected(_FIELDS[name])}"
        else:  # a check across several settings of the section
            names = [f"{section}.{key}" for key in detail["ctx"]["keys"]]
            shown = " and ".join(_as_found(name, found) for name in names)
            yield f"{shown}: expected {detail['ctx']['expected']}"


def _expected(info: FieldInfo) -> str:
    return next(each.words for each in info.metadata if isinstance(each, Expected))


def _as_found(name: str, found: Mapping[str, _Found]) -> str:
    if name not in found:
        return f"{name} = {_toml(_FIELDS[name].default)} (the default)"
    value, origin = found[name]
    shown = MASK if _FIELDS[name].annotation is SecretStr else _shown(value)
    return f"{name} = {shown} (from {origin})"


def _shown(value: object) -> str:
    text = _printable(_toml(value) if isinstance(value, bool | str) else repr(value))
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def _printable(text: str) -> str:
    """The text on one line, and safe for any terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def describe(settings: Settings) -> str:
    """The settings in force as TOML, with secrets and passwords masked, and where each was read from."""
    lines: list[str] = []
    for section in _SECTIONS:
        lines += ["", f"[{section}]"]
        for key, value in getattr(settings, section):
            shown = _masked_url(value.get_secret_value()) if key == "url" else value
            origin = settings.origin(f"{section}.{key}")
            lines.append(f"{key} = {_toml(shown)}" + (f"  # from {_printable(origin)}" if origin else ""))
    return "\n".join(lines[1:]) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, SecretStr):
        return _toml(value.get_secret_value() and MASK)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str | Path):
        # The escapes of JSON are among those of a TOML basic string, which wants DEL escaped as well.
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


# Greedy, up to the last @: a user or a password may hold one unescaped. To mask too much does no harm.
_PASSWORD: Final = re.compile(r"://([^:]*):.*@")
_QUERY_VALUE: Final = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def _masked_url(url: str) -> str:
    return _QUERY_VALUE.sub(r"\1***", _PASSWORD.sub(r"://\1:***@", url))


def require_safe_secret(settings: Settings) -> None:
    """Raise ConfigError where a secret made by this instance, in its own data folder, would not do."""
    if settings.auth.secret.get_secret_value():
        return
    hosts = {"tcp.host": settings.tcp.host, "ws.host": settings.ws.host, "http.host": settings.http.host}
    reachable = [f"{name} = {_toml(host)}" for name, host in hosts.items() if not is_loopback(host)]
    if settings.redis.url.get_secret_value():
        why = "redis.url is set, and several instances can only check each other's login tokens with one secret"
    elif reachable:
        why = (
            f"other machines can reach {' and '.join(reachable)}, and a server for others needs a secret "
            "that is kept apart from its data folder"
        )
    else:
        return
    raise ConfigError(
        f"auth.secret is empty, but {why}. Make one with\n"
        '  python3 -c "import secrets; print(secrets.token_urlsafe(32))"\n'
        f"and set it as [auth] secret in {CONFIG_FILE}, or as {ENV_PREFIX}AUTH__SECRET."
    )
