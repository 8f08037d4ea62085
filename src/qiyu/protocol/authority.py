"""Hosts as a request names them, in Host and in an absolute target (RFC 9110, section 7.2; RFC 3986, section 3.2)."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

MAX_CHARS: Final = 300
"""More than any domain name has (253, RFC 1035), and a port."""

# A registered name is what RFC 3986 lets it be, and not what some library for domain names makes of it: whether
# xn--99999999 can be decoded is nobody's business here.
_AUTHORITY: Final = re.compile(
    r"(?P<host>(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
# RFC 9112, section 3.2.2: "a server MUST accept the absolute-form in requests".
_ABSOLUTE: Final = re.compile(r"(?:https?|wss?)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_MAX_PORT: Final = 65_535


class Authority(NamedTuple):
    """A host, IPv6 in its brackets, and the port as it was written, "" where there was none."""

    host: str
    port: str


def parse_authority(text: str) -> Authority | None:
    """`host` or `host:port`; None for what is neither. An empty host is none (RFC 9110, section 4.2.1)."""
    match = _AUTHORITY.fullmatch(text) if len(text) <= MAX_CHARS else None
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        return None
    if match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            return None
    return Authority(match["host"], match["port"] or "")


def split_target(target: str) -> tuple[str, str | None]:
    """The path (and query) of a request's target, and the authority of one that is absolute.

    That goes before the Host header: a server "MUST ignore the received Host header field (if any) and instead use the
    host information of the request-target" (RFC 9112, section 3.2.2).
    """
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return target, None
    rest = absolute["rest"]
    return rest if rest.startswith("/") else f"/{rest}", absolute["authority"]
