"""The open links to other instances, one for each: what is said to one goes out here, encoded once for all who get it.

Both sides may have called; then the connection that the lower number has made stays, which both can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.protocol.links import LinkMessage, encode

PING_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 4.0
"""A link on which nothing has come for so long is broken off: pings are answered at once by whoever lives."""


@dataclass(eq=False, slots=True)
class Link:
    """One connection with an instance that has proved to be one."""

    peer: InstanceId
    is_mine: bool
    """This instance has called."""
    write: Callable[[bytes], bool]
    """Owe the peer these bytes; False where the link takes nothing more."""
    hang_up: Callable[[str], None]
    """Break it off, for this reason. `Cluster.link_closed` follows, later."""
    heard_at: float
    pinged_at: float | None = None
    is_answered: bool = True
    """The last ping was answered, and with it all that was sent before it is handled."""


@dataclass(slots=True)
class Links:
    """By instance."""

    me: InstanceId
    metrics: Metrics
    _links: dict[InstanceId, Link] = field(default_factory=dict)
    _message: LinkMessage | None = None
    _encoded: bytes = b""

    def __repr__(self) -> str:
        return f"<Links {sorted(self._links)}>"

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        """They may be opened and closed meanwhile."""
        return iter(list(self._links.values()))

    def has(self, instance: InstanceId) -> bool:
        """Whether there is an open link to this instance."""
        return instance in self._links

    def find(self, instance: InstanceId) -> Link | None:
        """The open link to this instance."""
        return self._links.get(instance)

    def send(self, instance: InstanceId, message: LinkMessage) -> bool:
        """Send it; False where no link takes it."""
        link = self._links.get(instance)
        if link is None:
            return False
        if message is not self._message:
            self._message, self._encoded = message, encode(message)
        if not link.write(self._encoded):
            return False
        self.metrics.link_packets_sent += 1
        return True

    def stays(self, link: Link) -> bool:
        """Whether a new link is to take the place of the one that there is, if there is one."""
        return link.peer not in self._links or link.is_mine == (self.me < link.peer)

    def add(self, link: Link) -> None:
        """It is the one from now on."""
        self._links[link.peer] = link
        self.metrics.links_opened += 1

    def remove(self, link: Link) -> bool:
        """It is closed; whether it was the one."""
        if self._links.get(link.peer) is not link:
            return False
        del self._links[link.peer]
        return True
