"""What the process holds for its clients, in bytes, as near as that can be told without looking at all of it each time.

Each part counts by itself, as its `held_bytes` says. What hardly any connection has (a packet whose end has not come,
packets behind one that waits for the database) is looked for from one to the next, so many of them a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from qiyu.routing.endpoint import Endpoint

ROUND_TICKS: Final = 16
"""In so many ticks, four seconds, all connections have been looked at..."""
LOOKS: Final = 1_000
"""... and where they are fewer than this, in one."""
PACKET_BYTES: Final = 100
"""What a packet takes that is held, beside its body."""
REFERENCE_BYTES: Final = 8


class Holdings:
    """The sum. `everybody` is all connections there are."""

    def __init__(self, parts: Mapping[str, Callable[[], int]], everybody: Callable[[], Iterable[Endpoint]]) -> None:
        self._parts = parts
        self._everybody = everybody
        self._rest: list[Endpoint] = []  # not looked at in this round
        self._looks = LOOKS
        self._found = 0
        self.of_connections = 0
        """What the last whole round found that is no part's."""

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {count()}" for name, count in self._parts.items())
        return f"<Holdings {parts}, connections {self.of_connections}>"

    @property
    def total(self) -> int:
        """Bytes."""
        return self.of_connections + sum(count() for count in self._parts.values())

    def tick(self) -> None:
        """Look at some more connections."""
        if not self._rest:
            self._found = 0
            self._rest = list(self._everybody())
            self._looks = max(LOOKS, len(self._rest) // ROUND_TICKS + 1)
        some = self._rest[-self._looks :]
        del self._rest[-self._looks :]
        self._found += sum(map(held_by, some))
        if not self._rest:
            self.of_connections = self._found


def held_by(endpoint: Endpoint) -> int:
    """What is held for one connection beside the bytes in its outbox."""
    size = endpoint.wire.unfinished
    if endpoint.held:
        size += sum(PACKET_BYTES + len(packet.body) for packet in endpoint.held)
    parts = endpoint.outbox.parts
    return size if parts is None else size + REFERENCE_BYTES * len(parts)
