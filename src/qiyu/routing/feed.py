"""What a room says in one turn, kept once for all members that are up to date.

Most members of a room are owed the very same packets, but for their own digits in each. So the packets of a turn are
kept once, in the room's feed, and `digits.join(parts)` is what one member is owed. A member follows the feed while it
is owed nothing else. Who is owed anything else (what the kernel did not take, an answer, all but its own message) is
apart: it is served packet by packet, as if there were no feed (routing/router.py), and follows again from the next turn
at which it is owed nothing.

The first follower whose packets are sent closes the feed; what the room says after that begins a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qiyu.routing.room_log import RoomLog

if TYPE_CHECKING:
    from qiyu.protocol.wire import Wire
    from qiyu.routing.publication import Publication, Spliced
    from qiyu.routing.session import Session

WIDTH_BITS: Final = 5  # an id has at most 16 digits
WIDTH_MASK: Final = 2**WIDTH_BITS - 1


class Share:
    """What the followers of one kind are owed: those with one kind of wire and ids of one width."""

    __slots__ = ("_key", "_wire", "followers", "parts", "size")

    def __init__(self, key: int, wire: Wire) -> None:
        self._key = key
        self._wire = wire
        self.followers = 0
        self.parts: list[bytes] = []
        """The bytes between the digits: the beginning of the first packet, the end of it and the beginning of the next
        one, and so on, the end of the last."""
        self.size = 0
        """What one follower is owed, in bytes."""

    def encoded(self, publication: Publication) -> Spliced:
        """The packet for followers of this kind."""
        key = self._key
        return publication.spliced.get(key) or publication.splice(self._wire, key & WIDTH_MASK, key)


class Feed:
    """One turn of a room."""

    __slots__ = ("_packets", "apart", "end", "followers", "log", "shares", "space", "start", "widest")

    def __init__(self, log: RoomLog, space: int) -> None:
        self.log = log
        self.start = self.end = log.end
        """Where what it says begins and ends in the log."""
        self.space = space
        """How many more packets it takes; 0 once it is closed."""
        self.followers = 0
        """The members that follow it; each has `Outbox.follower`."""
        self.apart: dict[Session, None] = {}
        """The members that do not."""
        self.shares: dict[int, Share] = {}
        """By `Session.splice`."""
        self.widest = 0
        """The most that a follower is owed, in bytes."""
        self._packets: list[Publication] = []

    def __repr__(self) -> str:
        state = f"space for {self.space}" if self.space else "closed"
        return f"<Feed {len(self._packets)} packets, {self.followers} follow, {len(self.apart)} apart, {state}>"

    def share_of(self, session: Session) -> Share:
        """That of the session's kind, begun if it is the first of them."""
        key = session.splice
        share = self.shares.get(key)
        if share is None:
            share = self.shares[key] = Share(key, session.wire)
        return share

    def admits(self, publication: Publication, bound: int, hard: int) -> bool:
        """Whether no follower has reached `bound` bytes, and none comes above `hard` bytes by this packet."""
        if not self.space or self.widest >= bound:
            return False
        return all(share.size + share.encoded(publication)[2] <= hard for share in self.shares.values())

    def add(self, publication: Publication) -> int:
        """Owe this to all that follow; returns how many bytes that is in all."""
        self._packets.append(publication)
        self.space -= 1
        owed = 0
        for share in self.shares.values():
            head, tail, size = share.encoded(publication)
            parts = share.parts
            if parts:
                parts[-1] += head
            else:
                parts.append(head)
            parts.append(tail)
            share.size += size
            self.widest = max(self.widest, share.size)
            owed += size * share.followers
        return owed

    def take(self, session: Session) -> bytes:
        """What a follower is owed; it follows no longer, and nobody is owed more by this feed."""
        share = self.shares[session.splice]
        share.followers -= 1
        self.followers -= 1
        self.space = 0
        data = session.digits.join(share.parts)
        if not self.followers:
            self._empty()
        return data

    def split_off(self, session: Session) -> tuple[list[bytes] | None, int]:
        """What a follower is owed as parts of its own, three a packet, and its size; it is apart from here on."""
        key = session.splice
        share = self.shares[key]
        size = share.size
        parts: list[bytes] = []
        for publication in self._packets:
            head, tail, _ = publication.spliced[key]
            parts += (head, session.digits, tail)
        share.followers -= 1
        self.followers -= 1
        if self.space:
            self.apart[session] = None
        elif not self.followers:
            self._empty()
        return parts or None, size

    def close(self) -> None:
        """It takes nothing more; who is apart is for the next one to say."""
        self.space = 0
        self.apart = {}

    def _empty(self) -> None:
        """Nobody follows any more. Sessions keep a feed for its end in the log, and for nothing else."""
        self.shares = {}
        self._packets = []
