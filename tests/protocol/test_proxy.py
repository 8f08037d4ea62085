from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.errors import ProtocolViolation
from qiyu.protocol.proxy import HEAD, MAX_REST_BYTES, SIGNATURE, rest_length, source


def header(rest: bytes, command: int = 0x21, family: int = 0x11, length: int | None = None) -> tuple[bytes, bytes]:
    return HEAD.pack(SIGNATURE, command, family, len(rest) if length is None else length), rest


def addresses(client: str, server: str) -> bytes:
    packed = b"".join(ipaddress.ip_address(each).packed for each in (client, server))
    return packed + (51_234).to_bytes(2) + (8085).to_bytes(2)


@pytest.mark.property
@given(
    st.one_of(
        st.tuples(st.just(0x11), st.ip_addresses(v=4), st.ip_addresses(v=4)),
        st.tuples(st.just(0x21), st.ip_addresses(v=6), st.ip_addresses(v=6)),
    ),
    st.binary(max_size=500),
)
def test_the_clients_address_comes_out(
    said: tuple[int, ipaddress.IPv4Address | ipaddress.IPv6Address, object], more: bytes
) -> None:
    """Whatever the addresses, and whatever a proxy adds to them, the client's is what it was."""
    family, client, server = said
    head, rest = header(addresses(str(client), str(server)) + more, family=family)
    assert rest_length(head) == len(rest)
    mapped = getattr(client, "ipv4_mapped", None)
    assert source(head, rest) == (mapped or client).packed


@pytest.mark.property
@given(st.binary(min_size=16, max_size=16) | st.binary(min_size=4, max_size=4).map(lambda end: SIGNATURE + end))
def test_any_head_is_one_or_is_not(head: bytes) -> None:
    """Whatever comes, it is a length within the bounds, for which there is an address or none; or a violation."""
    try:
        length = rest_length(head)
    except ProtocolViolation as violation:
        violation.reason.encode("ascii")
        return
    assert 0 <= length <= MAX_REST_BYTES
    address = source(head, bytes(length))
    assert address is None or len(address) in {4, 16}


@pytest.mark.parametrize(
    ("command", "family"), [(0x20, 0x00), (0x20, 0x11), (0x20, 0x21), (0x21, 0x00), (0x21, 0x30), (0x21, 0x31)]
)
def test_nothing_is_said_of_a_client(command: int, family: int) -> None:
    for rest in (b"", addresses("192.0.2.1", "192.0.2.2")):
        head, _ = header(rest, command, family)
        assert rest_length(head) == len(rest)
        assert source(head, rest) is None


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"PROXY TCP4 1.2.3.", "version 2"),
        (b"GET / HTTP/1.1\r\n", "version 2"),
        (header(b"", 0x11)[0], "0x11, expected 0x20 or 0x21"),
        (header(b"", 0x22)[0], "0x22, expected"),
        (header(bytes(12), family=0x12)[0], "family 0x12"),
        (header(bytes(12), family=0x22)[0], "family 0x22"),
        (header(bytes(12), family=0x41)[0], "family 0x41"),
        (header(bytes(11))[0], "length 11, expected 12 to 2048"),
        (header(bytes(35), family=0x21)[0], "length 35, expected 36 to 2048"),
        (header(b"", length=2049)[0], "length 2049"),
        (header(b"", 0x20, length=65_535)[0], "length 65535, expected 0 to 2048"),
    ],
)
def test_what_is_no_header(head: bytes, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason):
        rest_length(head[:16])
