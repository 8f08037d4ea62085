"""Who was to get what, held against what came: nothing may be lost, and nothing may come twice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.clients import Client
from bench.wires import MSG_ID_CHARS


@dataclass
class Balance:
    """Deliveries that did not come, and those that came again."""

    lost: int = 0
    doubled: int = 0

    def __iadd__(self, other: Balance) -> Balance:
        self.lost += other.lost
        self.doubled += other.doubled
        return self


def split_ids(joined: bytes) -> list[bytes]:
    """The ids in a client's log."""
    return [joined[i : i + MSG_ID_CHARS] for i in range(0, len(joined), MSG_ID_CHARS)]


def received(client: Client) -> bytes:
    """All ids that came, joined."""
    return b"".join(ids for _, ids in client.log)


def balance(clients: Iterable[Client], sent: int, sent_by: dict[Client, int]) -> Balance:
    """Every client was to get each of the `sent` messages but its own, once.

    Nearly all members of a room got the same in the same order, so what is alike is judged once.
    """
    judged: dict[tuple[bytes, int], Balance] = {}
    seen: set[bytes] = set()
    total = Balance()
    for client in clients:
        expected = sent - sent_by.get(client, 0)
        key = (received(client), expected)
        if key not in judged:
            ids = split_ids(key[0])
            different = set(ids)
            seen |= different
            # What comes beyond that, be it again or meant for somebody else, counts as doubled.
            judged[key] = Balance(max(0, expected - len(different)), len(ids) - min(len(different), expected))
        total += judged[key]
    # An id too many among all is a message that came under two.
    total.doubled += max(0, len(seen) - sent)
    return total
