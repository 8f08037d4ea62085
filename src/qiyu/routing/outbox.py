"""The bytes owed to one peer, bounded.

Whoever has something to say pushes; the driver takes what has gathered, once a turn, and sends it with one system call.
The first push puts the outbox on the driver's list (`wake`); further ones just add to it, so an idle server sends at
once and a busy one sends many packets together, with no delay ever added to get there.

Two bounds, in bytes: above the soft one, the router leaves out what can be made up for; above the hard one
the outbox takes nothing more and shows `overflowed`, and its session ends.

All outboxes of a process come from one `Outboxes`, which knows how many bytes they hold together: each reports what it
gains and loses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qiyu.routing.publication import Kind

if TYPE_CHECKING:
    from qiyu.routing.session import Session

UNBOUNDED: Final = 2**62
PRESSED_BYTES: Final = 64 * 1024
"""The soft bound while all outboxes together hold nearly what they may."""


@dataclass(slots=True)
class OutboxLimits:
    """Bytes; 0 means no limit. They may change while the server runs (`Outboxes.change`)."""

    soft_bytes: int
    hard_bytes: int
    queued_bytes: int = 0
    """For all outboxes together (services/pressure.py)."""
    is_pressed: bool = False
    """They come near that: the soft bound is lower for as long."""

    @property
    def soft(self) -> int:
        """The soft bound as a number to compare with; an outbox that has overflowed is always above it."""
        soft = self.soft_bytes or self.hard + 1
        return min(soft, PRESSED_BYTES) if self.is_pressed else soft

    @property
    def hard(self) -> int:
        """The hard bound as a number to compare with."""
        return self.hard_bytes or UNBOUNDED

    def bound(self, kind: Kind) -> int:
        """An outbox that holds so many bytes or more goes without packets of this kind."""
        if kind is Kind.KEPT:
            return self.hard + 1
        return self.soft if kind is Kind.DROPPABLE else self.soft // 2


class Outboxes:
    """The outboxes of one process: what each may hold, and what they hold together."""

    __slots__ = ("bytes", "limits", "on_change")

    def __init__(self, limits: OutboxLimits) -> None:
        self.limits = limits
        self.on_change: list[Callable[[], None]] = []
        """Called when the limits have changed, for those who have made a copy."""
        self.bytes = 0
        """Bytes waiting in all of them: the sum of their `size`, at any time but within a fan-out."""

    def __repr__(self) -> str:
        return f"<Outboxes {self.bytes} bytes>"

    def open(self, wake: Callable[[Outbox], None], owner: Any = None) -> Outbox:
        """An outbox for a new connection; `Outbox.close` ends it."""
        return Outbox(self, wake, owner)

    def change(self, soft_bytes: int, hard_bytes: int, queued_bytes: int = 0) -> None:
        """Other limits from now on. Outboxes that are open keep their hard one."""
        self.limits.soft_bytes, self.limits.hard_bytes = soft_bytes, hard_bytes
        self.limits.queued_bytes = queued_bytes
        self._tell()

    def press(self, is_pressed: bool) -> None:
        """They hold nearly what they may together, or no longer."""
        self.limits.is_pressed = is_pressed
        self._tell()

    def _tell(self) -> None:
        for tell in self.on_change:
            tell()

    def grew(self, size: int) -> None:
        """Outboxes hold so many bytes more than before; fewer, where that is negative."""
        self.bytes += size


class Outbox:
    """A queue of bytes between the core and one peer's socket; no list until there is something in it."""

    __slots__ = (
        "_all",
        "_is_cut",
        "finished",
        "follower",
        "gap",
        "hard",
        "held",
        "is_awake",
        "is_bulk",
        "is_due",
        "overflowed",
        "owner",
        "parts",
        "wake",
    )

    def __init__(self, outboxes: Outboxes, wake: Callable[[Outbox], None], owner: Any = None) -> None:
        self._all = outboxes
        self.wake = wake
        """Puts it on the driver's list."""
        self.hard = outboxes.limits.hard
        """The hard bound, in bytes."""
        self.parts: list[bytes] | None = None
        """What waits, three parts a packet; None where nothing does. The router, which adds to many at once, keeps
        `held` in step by itself."""
        self._is_cut = False  # the first part is the rest of a packet of which the peer has the beginning
        self.held = 0
        """Bytes in `parts`."""
        self.follower: Session | None = None
        """Its session, while that follows the feed of its room (routing/feed.py): what waits is there, and no parts."""
        self.is_awake = False
        """The driver knows of it: it is on the driver's list, or waits for the socket to become writable."""
        self.is_bulk = False
        """What is in it may wait for a moment, so that what is in others need not: a picture, not a message."""
        self.is_due = False
        """The driver has it on its list of those that may wait."""
        self.finished = False
        """Nothing more will be pushed; once it is empty the connection closes."""
        self.overflowed = False
        """The hard bound was passed."""
        self.gap = False
        """The last room message for this peer was dropped, and the peer has been told."""
        self.owner = owner
        """Whatever the driver needs to find the socket again; nobody else looks at it."""

    def __repr__(self) -> str:
        state = "finished" if self.finished else "overflowed" if self.overflowed else "open"
        return f"<Outbox {self.size} bytes, {state}>"

    @property
    def size(self) -> int:
        """Bytes waiting."""
        follower = self.follower
        if follower is None or follower.feed is None:
            return self.held
        return follower.feed.shares[follower.splice].size

    @property
    def packets(self) -> int:
        """Packets waiting, one of which may have been sent in part."""
        self.split_off()
        return len(self.parts) // 3 if self.parts is not None else 0

    def push(self, data: bytes) -> None:
        """Owe the peer `data`, a whole packet. Dropped if the outbox is finished or overflowed."""
        self.push_spliced(data, b"", b"", len(data))

    def push_spliced(self, head: bytes, digits: bytes, tail: bytes, size: int) -> None:
        """`push(head + digits + tail)`, `size` bytes in all, without making the copy: it is made once, by `take`."""
        if self.finished or self.overflowed:
            return
        if self.follower is not None:
            self.split_off()
        if self.parts is None:
            self.parts = [head, digits, tail]
        else:
            self.parts.extend((head, digits, tail))
        self.held += size
        self._all.bytes += size
        if self.held > self.hard:
            self.overflow()
        elif not self.is_awake:
            self.is_awake = True
            self.wake(self)

    def split_off(self) -> None:
        """Follow no feed any longer: keep what waits in parts of its own."""
        follower = self.follower
        if follower is None:
            return
        self.follower = None
        feed = follower.feed
        if feed is None:
            return
        self.parts, self.held = feed.split_off(follower)
        if feed.space:  # what follows in it is not for this one
            follower.write_out()

    def overflow(self) -> None:
        """The hard bound was passed: nothing more is taken."""
        self.overflowed = True
        self.wake(self)

    def finish(self) -> None:
        """Let what is owed be sent, and then the connection be closed."""
        if not self.finished:
            self.split_off()
            self.finished = True
            self.is_awake = True
            self.wake(self)

    def discard(self) -> None:
        """Forget what is owed, but for the rest of what the peer has the beginning of; a last word always fits."""
        self.split_off()
        keep = self.parts[:3] if self.parts is not None and self._is_cut else None
        before = self.held
        self.parts = keep
        self.held = len(keep[0]) if keep else 0
        self._all.bytes -= before - self.held
        self.overflowed = False
        self.hard = UNBOUNDED

    def close(self) -> None:
        """The connection is gone: nobody is owed anything any more."""
        self.split_off()
        self.finished = True
        self._all.bytes -= self.held
        self.parts = None
        self.held = 0

    def take(self, at_most: int) -> bytes:
        """Remove and return the oldest bytes: all of them, or as many whole packets as fit, but at least one."""
        follower = self.follower
        if follower is not None:
            feed = follower.feed
            if feed is not None and feed.widest <= at_most:
                self.follower = None
                self._is_cut = False
                data = feed.take(follower)
                self._all.bytes -= len(data)
                return data
            self.split_off()
        parts = self.parts
        if parts is None:
            return b""
        self._is_cut = False
        size = self.held
        if size <= at_most:
            self.parts = None
            self.held = 0
            self._all.bytes -= size
            return parts[0] if len(parts) == 3 and not parts[1] else b"".join(parts)
        # Cut between packets: whatever is discarded later, the peer is never left with the beginning of one.
        total = count = 0
        for part in range(0, len(parts), 3):
            packet = len(parts[part]) + len(parts[part + 1]) + len(parts[part + 2])
            if total + packet > at_most and count:
                break
            total += packet
            count = part + 3
        chunk = b"".join(parts[:count])
        del parts[:count]
        self.held -= total
        self._all.bytes -= total
        if not parts:
            self.parts = None
        return chunk

    def put_back(self, rest: bytes) -> None:
        """Return what the socket did not take of the last `take`."""
        if self.parts is None:
            self.parts = [rest, b"", b""]
        else:
            self.parts[:0] = (rest, b"", b"")
        self.held += len(rest)
        self._all.bytes += len(rest)
        self._is_cut = True
