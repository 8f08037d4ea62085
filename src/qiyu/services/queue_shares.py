"""Who may have how much of the message queue, so that nobody has all of it.

A tenth for a user, whatever connections it had; a half for an address and for a room. The last tenth is for newcomers:
for users of whom nothing waits.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from qiyu.model import Address, Network, is_within, network_of
from qiyu.services.message import Message

WAITING_OF_USER: Final = 1_000
"""The most in any case, where the queue has no bound or a high one."""
USERS, ADDRESSES, ROOMS = 10, 2, 2
NEWCOMERS: Final = 10
LEAST: Final = 5
"""A share is so many at least, however small the queue."""
K = TypeVar("K", tuple[int, int], bytes)
TOO_MANY: Final = "too many messages wait to be stored"


class Claimant(Protocol):
    """Who wants a place in the queue: a session here, or somebody on another instance."""

    @property
    def app_id(self) -> int: ...
    @property
    def user_id(self) -> int: ...
    @property
    def address(self) -> Address: ...


class QueueShares:
    """Counts what waits. `messages` is the bound of the queue, 0 for none: then users alone have one."""

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._of_user: dict[tuple[int, int], int] = {}
        self._of_address: dict[bytes, int] = {}
        self._of_room: dict[tuple[int, int], int] = {}
        self._most_of_user = min(WAITING_OF_USER, _part(messages, USERS)) if messages else WAITING_OF_USER
        self._crowded = _part(messages, max(ADDRESSES, ROOMS))  # so many must wait before a share of these is full
        self.proxies: tuple[Network, ...] = ()
        """Addresses with many clients each: they may have all of it."""

    def __repr__(self) -> str:
        return f"<QueueShares users={len(self._of_user)} addresses={len(self._of_address)} rooms={len(self._of_room)}>"

    def why_not(self, session: Claimant, room_id: int, waiting: int) -> str | None:
        """Why one more message of this session cannot wait, of `waiting` in all; None if it can."""
        own = self._of_user.get((session.app_id, session.user_id), 0)
        if own >= self._most_of_user:
            return f"{own} messages of yours wait to be stored"
        bound = self._messages
        if not bound or waiting < self._crowded:
            return None
        if waiting >= (bound if not own else bound - bound // NEWCOMERS):
            return TOO_MANY
        if room_id and self._of_room.get((session.app_id, room_id), 0) >= _part(bound, ROOMS):
            return f"too many messages to room {room_id} wait to be stored"
        address = network_of(session.address)
        if self._of_address.get(address, 0) >= _part(bound, ADDRESSES) and not is_within(address, self.proxies):
            return "too many messages from your address wait to be stored"
        return None

    def add(self, message: Message) -> None:
        """It waits from here on."""
        # Plain dictionaries, and no calls: this is on the way of each message (a Counter takes three times as long).
        counts, key = self._of_user, (message.app_id, message.sender)
        counts[key] = counts.get(key, 0) + 1
        if self._messages:
            addresses, address = self._of_address, message.address
            addresses[address] = addresses.get(address, 0) + 1
            if message.content.room_id:
                counts, key = self._of_room, (message.app_id, message.content.room_id)
                counts[key] = counts.get(key, 0) + 1

    def remove(self, message: Message) -> None:
        """It waits no longer."""
        _take(self._of_user, (message.app_id, message.sender))
        if self._messages:
            _take(self._of_address, message.address)
            if message.content.room_id:
                _take(self._of_room, (message.app_id, message.content.room_id))


def _part(bound: int, of: int) -> int:
    return min(bound, max(LEAST, bound // of))


def _take(counts: dict[K, int], key: K) -> None:
    left = counts[key] - 1
    if left:
        counts[key] = left
    else:
        del counts[key]
