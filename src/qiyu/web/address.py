"""Who calls, and which host they called: from the socket, and from headers only as far as those can be believed."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from quart import request

from qiyu.errors import CallRefused
from qiyu.web.context import WebContext

NO_HOST: Final = "Host: expected a host name or an IP address, and a port if it is not the usual one"
# A domain name has at most 253 characters (RFC 1035).
_HOST: Final = re.compile(r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
_IPV6_PREFIX: Final = 64  # what one customer gets at least: within it, a client picks its addresses as it likes


def client_address(context: WebContext) -> str:
    """Whom to count an attempt to: the peer's address, or what a trusted proxy says it is; of IPv6 the network."""
    nearest = request.remote_addr or ""
    if _is_trusted(context, nearest):
        # Each proxy appends the peer it saw, so the list is to be believed from its end, as far as proxies are trusted.
        for hop in reversed(",".join(request.headers.getlist("X-Forwarded-For")).split(",")):
            if _parsed(hop.strip()) is None:
                break
            nearest = hop.strip()
            if not _is_trusted(context, nearest):
                break
    return _counted_as(nearest)


def is_secure(context: WebContext) -> bool:
    """Whether the client speaks TLS, to us or to a trusted proxy."""
    if _is_trusted(context, request.remote_addr or ""):
        return request.headers.get("X-Forwarded-Proto", request.scheme).rpartition(",")[2].strip() == "https"
    return request.scheme == "https"


def is_host(header: str) -> bool:
    """Whether a Host header is one: nothing more is believed of it."""
    return _HOST.fullmatch(header) is not None


def called_host() -> str:
    """The host that was called, without the port; IPv6 stands in brackets."""
    match = _HOST.fullmatch(request.headers.get("Host", ""))
    if match is None:
        raise CallRefused(400, NO_HOST)
    return match["host"]


def _is_trusted(context: WebContext, address: str) -> bool:
    if not context.trusted_proxies:
        return False
    ip = _parsed(address)
    return ip is not None and any(ip in network for network in context.trusted_proxies)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _counted_as(address: str) -> str:
    ip = _parsed(address)
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(ip), _IPV6_PREFIX), strict=False))
    return str(ip) if ip is not None else ""
