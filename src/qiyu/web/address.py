"""Who calls, and which host they called: from the socket, and from headers only as far as those can be believed."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from quart import request

from qiyu.errors import CallRefused
from qiyu.model import Address
from qiyu.protocol.authority import parse_authority
from qiyu.web.context import WebContext

NO_HOST: Final = "Host: expected a host name or an IP address, and a port if it is not the usual one"
_DOMAIN: Final = re.compile(r"[^.]{1,63}(?:\.[^.]{1,63})*\.?")
# How proxies write a hop: an address, IPv6 in brackets or bare, and perhaps the port (RFC 7239, section 6).
_HOP: Final = re.compile(r"(?P<v4>[0-9.]+)(?::[0-9]{1,5})?|\[(?P<v6>[0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|[0-9A-Fa-f:.]+")
_ELEMENT: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*")+')
_PAIR: Final = re.compile(
    r"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:(?P<token>[^\s\";,]+)|\"(?P<quoted>(?:[^\"\\]|\\.)*)\")"
)
_IPV6_PREFIX: Final = 64  # what one customer gets at least: within it, a client picks its addresses as it likes


def client_address(context: WebContext) -> str:
    """Whom to count an attempt to: the peer's address, or what a trusted proxy says it is; of IPv6 the network."""
    nearest = request.remote_addr or ""
    if _is_trusted(context, nearest):
        clients = {_client(context, hops, nearest) for hops in (_x_forwarded_for(), _forwarded("for")) if hops}
        # A proxy writes one of the two, and passes the other on as the client made it up. Who sends the other one too
        # is counted to the proxy, with the likes of him, and to nobody whose address he may have chosen.
        if len(clients) == 1:
            nearest = clients.pop()
    return _counted_as(nearest)


def packed_address(counted: str) -> Address:
    """The bytes of an address, or of a network, that `client_address` gave; empty where it is none."""
    try:
        return ipaddress.ip_network(counted, strict=False).network_address.packed
    except ValueError:
        return b""


def is_secure(context: WebContext) -> bool:
    """Whether the client speaks TLS, to us or to a trusted proxy."""
    if _is_trusted(context, request.remote_addr or ""):
        said = [*_forwarded("proto")[-1:], *request.headers.getlist("X-Forwarded-Proto")[-1:]] or [request.scheme]
        return any(proto.rpartition(",")[2].strip().lower() == "https" for proto in said)
    return request.scheme == "https"


def is_host(header: str) -> bool:
    """Whether a Host header is one: nothing more is believed of it.

    The names between its dots are those of DNS (1 to 63 characters, RFC 1035), for werkzeug takes no others.
    """
    authority = parse_authority(header)
    if authority is None:
        return False
    return authority.host.startswith("[") or _DOMAIN.fullmatch(authority.host) is not None


def called_host() -> str:
    """The host that was called, without the port; IPv6 stands in brackets."""
    header = request.headers.get("Host", "")
    authority = parse_authority(header)
    if authority is None or not is_host(header):
        raise CallRefused(400, NO_HOST)
    return authority.host


def websocket_url(context: WebContext) -> str:
    """Where clients open WebSockets, with the scheme, and with no slash at its end."""
    scheme = "wss" if "ws" in context.tls_listeners else "ws"
    return context.ws_public_url or f"{scheme}://{called_host()}:{context.ws_port}{context.ws_path}"


def _client(context: WebContext, hops: list[str], nearest: str) -> str:
    """The last address that no trusted proxy has. Each proxy appends the peer it saw, so the end is to be believed.

    Where a hop is not an address (`unknown`, a name that a proxy made up), it is the last one that was.
    """
    for hop in reversed(hops):
        address = _HOP.fullmatch(hop)
        if address is None or _parsed(address["v6"] or address["v4"] or hop) is None:
            break
        nearest = address["v6"] or address["v4"] or hop
        if not _is_trusted(context, nearest):
            break
    return nearest


def _x_forwarded_for() -> list[str]:
    joined = ",".join(request.headers.getlist("X-Forwarded-For"))
    return [hop.strip() for hop in joined.split(",")] if joined else []


def _forwarded(name: str) -> list[str]:
    """The values of one parameter of Forwarded, a hop each (RFC 7239, section 4); "" for a hop that has none.

    Of a header that is not of that grammar, only what stands behind the fault is believed.
    """
    values = []
    for element in _ELEMENT.findall(",".join(request.headers.getlist("Forwarded"))):
        pairs = {match["name"].lower(): match for match in _PAIR.finditer(element)}
        found = pairs.get(name)
        values.append("" if found is None else found["token"] or re.sub(r"\\(.)", r"\1", found["quoted"] or ""))
    return values


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
