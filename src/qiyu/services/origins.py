"""Which pages may come: one rule for WebSockets and for HTTP calls, by where a browser says that a page is from.

A page may come that is on the list; one that came from the very host and port that it calls; and, where nothing is
listed, one of this machine, on whatever port, to a server that is called as one of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

ANY: Final = "*"

_MACHINE: Final = r"localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\]"
_PAGE_OF_THIS_MACHINE: Final = re.compile(rf"https?://(?:{_MACHINE})(?::\d{{1,5}})?", re.ASCII)
_THIS_MACHINE: Final = re.compile(rf"(?:{_MACHINE})(?::\d{{0,5}})?", re.IGNORECASE | re.ASCII)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


class Origins:
    """A list of origins; it may be changed while the server runs, and counts from then on."""

    __slots__ = ("listed",)

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self.listed = frozenset(listed)

    def __repr__(self) -> str:
        return f"<Origins {sorted(self.listed)}>"

    @property
    def any(self) -> bool:
        """Whether a page of any site may come."""
        return ANY in self.listed

    def lists(self, origin: str) -> bool:
        """Whether this very origin is on the list."""
        return origin != ANY and origin in self.listed

    def let(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` may come that has called `host`, as in its Host header; see the rule above."""
        return self.lists(origin) or is_same(origin, host) or self.are_neighbours(origin, host)

    def are_neighbours(self, origin: str, host: str) -> bool:
        """Whether nothing is listed, and both are of this machine."""
        if self.listed or _PAGE_OF_THIS_MACHINE.fullmatch(origin) is None:
            return False
        return _THIS_MACHINE.fullmatch(host) is not None


def is_same(origin: str, host: str) -> bool:
    """Whether a page of `origin` has called just where it came from.

    A proxy that ends TLS makes http of what is https for the page, so the scheme that counts is the page's.
    """
    scheme, separator, page = origin.partition("://")
    return bool(separator and page) and _with_port(page, scheme) == _with_port(host, scheme)


def _with_port(host: str, scheme: str) -> str:
    has_port = host.rpartition("]")[2].count(":") == 1
    return (host if has_port else f"{host}:{_DEFAULT_PORTS.get(scheme, '')}").lower()
