from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.authority import Authority, parse_authority, split_target

NAMES = st.from_regex(r"[A-Za-z0-9._~!$&'()*+,;=-]{1,60}", fullmatch=True)
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda ip: f"[{ip}]")


@pytest.mark.property
@given(HOSTS, st.none() | st.integers(0, 65_535))
def test_a_host_with_a_port_or_without(host: str, port: int | None) -> None:
    """Whatever is put together by the grammar is taken apart into the same parts."""
    text = host if port is None else f"{host}:{port}"
    assert parse_authority(text) == Authority(host, "" if port is None else str(port))


@pytest.mark.property
@given(st.text(max_size=40) | st.text("[]:.%0123456789abcdefg@/ ", max_size=40))
def test_any_text_is_a_host_or_none(text: str) -> None:
    """What is taken is ASCII, has nothing in it that ends a host in an address, and in brackets is an IPv6 address."""
    authority = parse_authority(text)
    if authority is None:
        return
    assert text.isascii()
    assert not set(authority.host) & set('/?#@ \t\r\n\\"')
    assert text in {authority.host, f"{authority.host}:{authority.port}"}
    if authority.host.startswith("["):
        ipaddress.IPv6Address(authority.host[1:-1])
    else:
        assert ":" not in authority.host


@pytest.mark.parametrize("text", ["", ":80", "a:65536", "a:-1", "[]", "[::1]x", "a" * 301, "a\n", "[fe80::1%25eth0]"])
def test_what_is_no_host(text: str) -> None:
    assert parse_authority(text) is None


@pytest.mark.property
@given(HOSTS, st.text(max_size=20).map(lambda text: f"/{text}"), st.sampled_from(["http", "HTTPS", "ws", "wss"]))
def test_an_absolute_target_is_a_path_and_a_host(host: str, path: str, scheme: str) -> None:
    """A target that is put together of both is taken apart into both; one of a path alone stays as it is."""
    assert split_target(f"{scheme}://{host}{path}") == (path, host)
    assert split_target(path) == (path, None)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("http://a", ("/", "a")),
        ("http://a?b", ("/?b", "a")),
        ("http://", ("/", "")),
        ("ftp://a/b", ("ftp://a/b", None)),
        ("*", ("*", None)),
        ("", ("", None)),
    ],
)
def test_other_targets(target: str, expected: tuple[str, str | None]) -> None:
    assert split_target(target) == expected
