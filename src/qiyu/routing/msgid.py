"""Message ids: decimal, unique in the whole installation, growing with time.

An id is a 63-bit number: 41 bits of milliseconds since 2015, 10 bits of instance number, 12 bits of sequence. It has 19
decimal digits from July 2022 until the milliseconds run out in 2084, so ids compare alike as numbers and as strings.

A clock that is before 2023 or after 2080 is not believed: the ids go on from the last one, as where it stands still.
"""

from __future__ import annotations

from typing import Final

EPOCH_MS: Final = 1_420_070_400_000  # 2015-01-01T00:00:00Z
EARLIEST_MS: Final = 1_672_531_200_000  # 2023-01-01T00:00:00Z
LATEST_MS: Final = 3_471_292_800_000  # 2080-01-01T00:00:00Z: the four years that are left are for what runs ahead
INSTANCE_BITS: Final = 10
SEQUENCE_BITS: Final = 12
MAX_INSTANCE: Final = 2**INSTANCE_BITS - 1
MAX_ID: Final = 2**63 - 1


def first_id(unix_ms: int) -> int:
    """The smallest id that a message of this moment can have: ids below it are of earlier ones."""
    return min(max(unix_ms - EPOCH_MS, 0) << (INSTANCE_BITS + SEQUENCE_BITS), MAX_ID)


def time_of(msg_id: int) -> int:
    """Milliseconds since 1970 at which the message was accepted, by the clock of then."""
    return (msg_id >> (INSTANCE_BITS + SEQUENCE_BITS)) + EPOCH_MS


class MsgIds:
    """Makes the ids of one instance; `instance` (0 to 1023) must differ between instances that run at once."""

    __slots__ = ("_instance", "_last")

    def __init__(self, instance: int) -> None:
        if not 0 <= instance <= MAX_INSTANCE:
            raise ValueError(f"instance number {instance}: expected 0 to {MAX_INSTANCE}")
        self._instance = instance << SEQUENCE_BITS
        self._last = first_id(EARLIEST_MS) | self._instance

    def next(self, unix_ms: int) -> int:
        """An id above all earlier ones, even where the clock stood still, went back or is wrong.

        More than 4,096 in a millisecond run ahead of the clock and let it catch up.
        """
        number = (unix_ms - EPOCH_MS) << (INSTANCE_BITS + SEQUENCE_BITS) | self._instance
        if number <= self._last or unix_ms >= LATEST_MS:
            number = self._last + 1
            if number & (2**SEQUENCE_BITS - 1) == 0:  # the sequence overflowed into the instance number
                milliseconds = (self._last >> (INSTANCE_BITS + SEQUENCE_BITS)) + 1
                number = milliseconds << (INSTANCE_BITS + SEQUENCE_BITS) | self._instance
        self._last = number
        return number

    @property
    def last(self) -> int:
        """No id that was made so far is above this, and all further ones are."""
        return self._last

    def start_above(self, msg_id: int) -> None:
        """Let all further ids be above `msg_id`: after a restart, the largest one stored."""
        milliseconds = (msg_id >> (INSTANCE_BITS + SEQUENCE_BITS)) + 1
        floor = milliseconds << (INSTANCE_BITS + SEQUENCE_BITS) | self._instance
        self._last = max(self._last, floor - 1)
