from __future__ import annotations

import ipaddress

import pytest
from quart import Response

from qiyu.storage.database import Database
from qiyu.web.address import client_address, is_secure
from web.sites import Site

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
