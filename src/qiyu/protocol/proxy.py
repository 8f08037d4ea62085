"""The PROXY protocol, version 2: where a connection came from, before its first byte (HAProxy, proxy-protocol.txt).

A proxy that passes TCP on says so of each connection. The header is believed from proxies that are configured, and must
come from them; nobody else is asked for one.
"""

from __future__ import annotations

import struct
from typing import Final

from qiyu.errors import ProtocolViolation

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
HEAD: Final = struct.Struct(">12sBBH")
"""Signature, version and command, family and transport, and the length of what follows."""
MAX_REST_BYTES: Final = 2048
"""More than two addresses, and what proxies add to them."""

_LOCAL, _PROXY = 0x20, 0x21  # version 2; the connection is the proxy's own, or somebody's
_ADDRESS_BYTES: Final = {0x11: 4, 0x21: 16}  # TCP over IPv4 and IPv6; datagrams do not come here
_FROM_NOWHERE: Final = frozenset({0x00, 0x30, 0x31, 0x32})  # unspecified, or sockets of one machine
_PORTS_BYTES: Final = 4
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"


def rest_length(head: bytes) -> int:
    """How many bytes follow the first 16. Raises `ProtocolViolation` where those do not begin such a header."""
    signature, command, family, length = HEAD.unpack(head)
    if signature != SIGNATURE:
        raise ProtocolViolation("expected a PROXY protocol header, version 2")
    if command not in {_LOCAL, _PROXY}:
        raise ProtocolViolation(f"PROXY header: version and command {command:#04x}, expected 0x20 or 0x21")
    needed = 0
    if command == _PROXY and family not in _FROM_NOWHERE:
        if family not in _ADDRESS_BYTES:
            raise ProtocolViolation(f"PROXY header: family {family:#04x}, expected TCP over IPv4 or IPv6 (0x11, 0x21)")
        needed = 2 * _ADDRESS_BYTES[family] + _PORTS_BYTES
    if not needed <= length <= MAX_REST_BYTES:
        raise ProtocolViolation(f"PROXY header: length {length}, expected {needed} to {MAX_REST_BYTES}")
    return int(length)


def source(head: bytes, rest: bytes) -> bytes | None:
    """The bytes of the client's IP address; None where it is the proxy itself that comes, or the proxy cannot say.

    `head` is one that `rest_length` has taken, and `rest` what followed it. What stands behind the addresses is left
    out.
    """
    _, command, family, _ = HEAD.unpack(head)
    if command == _LOCAL or family in _FROM_NOWHERE:
        return None
    return rest[: _ADDRESS_BYTES[family]].removeprefix(_IPV4_MAPPED)
