from __future__ import annotations

import pytest

from qiyu.client.transport import Address, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tcp://127.0.0.1:8085", Address("tcp", "127.0.0.1", 8085, "")),
        ("tcp://example.com", Address("tcp", "example.com", 8085, "")),
        ("tls://example.com", Address("tls", "example.com", 8085, "")),
        ("ws://[::1]:8086", Address("ws", "::1", 8086, "")),
        ("ws://example.com/", Address("ws", "example.com", 80, "")),
        ("wss://example.com/im/", Address("wss", "example.com", 443, "/im")),
    ],
)
def test_urls(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8085",
        "http://127.0.0.1",
        "http://127.0.0.1:8080",
        "tcp://",
        "tcp://host:port",
        "tcp://host:99999",
        "tcp://host/path",
        "ws://user@host",
        "ws://host?a=b",
        "ws://[::1",
    ],
)
def test_urls_that_are_none_of_ours(url: str) -> None:
    with pytest.raises(ValueError, match="expected tcp://host:port"):
        parse_url(url)
