from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Response

from qiyu.storage.database import Database
from qiyu.web.address import client_address, is_secure
from web.sites import NO_DATABASE, Site

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8:ffff::/48"))


async def seen_by(site: Site, address: str, headers: dict[str, str]) -> tuple[str, bool]:
    """The address that failures are counted to, and whether the client is taken to speak TLS."""

    @site.app.get("/address")
    async def address_of_the_caller() -> Response:
        return Response(f"{client_address(site.context)} {is_secure(site.context)}")

    seen, _, secure = (await site.caller(address=address).get("/address", headers=headers)).text.rpartition(" ")
    return seen, secure == "True"


@pytest.mark.parametrize(
    ("address", "forwarded", "seen"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1", "1.2.3.4, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 198.51.100.7", "198.51.100.7"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("2001:db8:ffff::1", "198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
        ("<local>", "198.51.100.7", ""),
        ("10.0.0.1", "203.0.113.8:51234", "203.0.113.8"),
        ("10.0.0.1", "1.2.3.4:5, 203.0.113.8:51234, 10.9.9.9:80", "203.0.113.8"),
        ("10.0.0.1", "[2001:db8:1:2::3]:4711", "2001:db8:1:2::/64"),
        ("10.0.0.1", "[2001:db8:1:2::3]", "2001:db8:1:2::/64"),
        ("10.0.0.1", "2001:db8:1:2::3", "2001:db8:1:2::/64"),
        ("10.0.0.1", "203.0.113.8:51234:7", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.8:x", "10.0.0.1"),
    ],
)
async def test_the_address_that_failures_are_counted_to(
    database: Database, address: str, forwarded: str, seen: str
) -> None:
    site = Site(database, trusted_proxies=PROXIES)
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    assert (await seen_by(site, address, headers))[0] == seen


async def test_no_proxy_is_trusted_unless_it_is_said(site: Site) -> None:
    headers = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
    assert await seen_by(site, "127.0.0.1", headers) == ("127.0.0.1", False)


@pytest.mark.parametrize(
    ("address", "forwarded", "secure"),
    [("10.0.0.1", "https", True), ("10.0.0.1", "http", False), ("10.0.0.1", "", False), ("192.0.2.1", "https", False)],
)
async def test_a_trusted_proxy_says_whether_the_client_speaks_tls(
    database: Database, address: str, forwarded: str, secure: bool
) -> None:
    site = Site(database, trusted_proxies=PROXIES)
    headers = {"X-Forwarded-Proto": forwarded} if forwarded else {}
    assert (await seen_by(site, address, headers))[1] is secure


@pytest.mark.parametrize(
    ("forwarded", "seen", "secure"),
    [
        ("for=198.51.100.7", "198.51.100.7", False),
        ("For=198.51.100.7;Proto=HTTPS;by=10.0.0.1", "198.51.100.7", True),
        ("for=1.2.3.4, for=198.51.100.7;proto=https", "198.51.100.7", True),
        ("for=1.2.3.4;proto=https, for=198.51.100.7;proto=http", "198.51.100.7", False),
        ('for="198.51.100.7:4711"', "198.51.100.7", False),
        ('for="[2001:db8:1:2::3]:4711"', "2001:db8:1:2::/64", False),
        ('for="1.2.3.4, 5.6.7.8", for=198.51.100.7, for=10.9.9.9', "198.51.100.7", False),
        ("for=unknown", "10.0.0.1", False),
        ("for=_hidden, for=198.51.100.7", "198.51.100.7", False),
        ("for=198.51.100.7, for=_hidden", "10.0.0.1", False),
        ("for=198.51.100.7, proto=https", "10.0.0.1", True),
        ("nonsense", "10.0.0.1", False),
        ('for="198.51.100.7', "10.0.0.1", False),
    ],
)
async def test_the_forwarded_header_of_rfc_7239(database: Database, forwarded: str, seen: str, secure: bool) -> None:
    site = Site(database, trusted_proxies=PROXIES)
    assert await seen_by(site, "10.0.0.1", {"Forwarded": forwarded}) == (seen, secure)


async def test_who_sends_the_header_that_the_proxy_does_not_write_is_counted_to_the_proxy(database: Database) -> None:
    site = Site(database, trusted_proxies=PROXIES)
    both = {"X-Forwarded-For": "198.51.100.7", "Forwarded": "for=203.0.113.8"}
    assert (await seen_by(site, "10.0.0.1", both))[0] == "10.0.0.1"
    same = {"X-Forwarded-For": "198.51.100.7:80", "Forwarded": "for=198.51.100.7"}
    site = Site(database, trusted_proxies=PROXIES)
    assert (await seen_by(site, "10.0.0.1", same))[0] == "198.51.100.7"


@pytest.mark.property
@given(st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n"), max_size=200))
async def test_no_header_of_a_stranger_makes_an_error(text: str) -> None:
    """Whatever stands in them, the address is the proxy's, or one that can be parsed."""
    site = Site(NO_DATABASE, trusted_proxies=PROXIES)
    async with site.app.test_request_context(
        "/", headers={"Remote-Addr": "10.0.0.1", "X-Forwarded-For": text, "Forwarded": text}
    ):
        seen = client_address(site.context)
        assert ipaddress.ip_network(seen)
        assert is_secure(site.context) in {True, False}
