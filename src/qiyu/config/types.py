"""What a setting may be: each type carries, beside its check, the words for what it accepts."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

SECRET_CHARS: Final = 16
"""The shortest secret that is accepted."""

LISTENERS: Final = ("tcp", "ws", "http", "rtmp")

_MAX_LIMIT: Final = 2**31 - 1  # a packet's `len` is an int32; the other limits need no more either
_DAY_SECONDS: Final = 86_400
_YEAR_SECONDS: Final = 366 * _DAY_SECONDS


class Expected(NamedTuple):
    """What a setting accepts, in words that follow `expected`."""

    words: str


def _check_host(host: str) -> str:
    if ":" in host:
        ipaddress.IPv6Address(host)  # not `host:port`, and not `[::1]`
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError
    return host


def _check_hosts(hosts: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not hosts:
        raise ValueError
    for host in hosts_of(hosts):
        _check_host(host)
    return hosts


def hosts_of(hosts: str | tuple[str, ...]) -> tuple[str, ...]:
    """The hosts that a setting names, be it one or a list of them."""
    return (hosts,) if isinstance(hosts, str) else hosts


# Scheme, host and port as a browser writes them: lower case, no path. Apps send schemes of their own.
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def _check_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    for origin in origins:
        match = _ORIGIN.fullmatch(origin)
        if origin != "*" and (match is None or match[3] == _DEFAULT_PORTS.get(match[1], "")):
            raise ValueError  # a browser leaves the default port out: such an entry would never match
    return origins


def _check_port_of(address: str) -> str:
    """Of an address or a URL: its port must be one, for those who are given it."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if address and (parts.port == 0 or not parts.hostname):  # for a port that is none, it raises ValueError itself
        raise ValueError
    return address


def _check_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    for address in addresses:
        ipaddress.ip_network(address)
    return addresses


def _check_folder(folder: Path) -> Path:
    if folder == Path() or folder.parts[0].startswith("~") or not str(folder).isprintable():
        raise ValueError  # nothing expands a ~ here: it would make a folder of that name
    return folder


def _check_file(file: str) -> str:
    if file.startswith("~") or not file.isprintable():
        raise ValueError
    return file


def _check_listeners(listeners: tuple[str, ...]) -> tuple[str, ...]:
    if not set(listeners) <= set(LISTENERS):
        raise ValueError
    return listeners


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


OneOrMore = str | Annotated[tuple[str, ...], Field(strict=False)]
Host = Annotated[
    OneOrMore,
    AfterValidator(_check_hosts),
    Expected("a host name or an IP address, without a port, or a list of them"),
]
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
InstanceNumber = Annotated[int, Field(ge=-1, le=1023), Expected("a whole number from 0 to 1023, or -1 for any")]
Address = Annotated[
    str,
    Field(pattern=r"^$|^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    AfterValidator(_check_port_of),
    Expected('host:port as clients reach it, or ""'),
]
InstanceAddress = Annotated[
    str,
    Field(pattern=r"^$|^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$"),
    Expected('host:port as other instances reach it, or ""'),
]
WebSocketUrl = Annotated[
    str,
    Field(pattern=r"^$|^wss?://[^\s/?#@]+(/[^\s?#@]*)?$"),
    AfterValidator(_check_port_of),
    Expected('ws://host:port or wss://host:port, with a path or without, or ""'),
]
PathPrefix = Annotated[
    str,
    Field(pattern=r"^$|^(/[A-Za-z0-9._~-]+)+$"),
    Expected('a path such as /im, with no slash at its end, or ""'),
]
Addresses = Annotated[
    tuple[str, ...],
    Field(strict=False),
    AfterValidator(_check_addresses),
    Expected("a list of IP addresses or networks such as 10.0.0.0/8"),
]
RtmpUrl = Annotated[
    str,
    Field(pattern=r"^$|^rtmps?://[^\s?#@]+$"),
    AfterValidator(_check_port_of),
    Expected('rtmp://host:port/application or rtmps://host:port/application, or ""'),
]
PlayUrl = Annotated[
    str,
    Field(pattern=r"^$|^(wss?|https?)://[^\s#@]*\{room\}[^\s#@]*$"),
    AfterValidator(_check_port_of),
    Expected('a ws, wss, http or https address with {room} in it, or ""'),
]
File = Annotated[str, AfterValidator(_check_file), Expected('the name of a file, with no ~ in front, or ""')]
Listeners = Annotated[
    tuple[str, ...],
    Field(strict=False),
    AfterValidator(_check_listeners),
    Expected(f"a list of {', '.join(LISTENERS)}"),
]
Days = Annotated[int, Field(ge=1, le=366), Expected("a whole number of days from 1 to 366")]
KeptDays = Annotated[int, Field(ge=0, le=36_600), Expected("a whole number of days from 0 (for ever) to 36600")]
KeyHours = Annotated[int, Field(ge=1, le=8784), Expected("a whole number of hours from 1 to 8784")]
Hours = Annotated[int, Field(ge=24, le=8784), Expected("a whole number of hours from 24 to 8784")]
Attempts = Annotated[int, Field(ge=1, le=10), Expected("a whole number from 1 to 10")]
SameSite = Annotated[Literal["lax", "strict", "none"], Expected("lax, strict or none")]
Registration = Annotated[Literal["open", "closed"], Expected("open or closed")]
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
LeaseSeconds = Annotated[
    float, Field(ge=1, le=3600, allow_inf_nan=False), Expected("a number of seconds from 1 to 3600")
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
