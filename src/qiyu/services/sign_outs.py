"""HTTP sessions that have ended: their login tokens are good no more, and the sessions opened with those end.

What is remembered is a number for each, as long as a token may live. The database has it longer (storage/users.py): so
instances learn it from each other, and from the command line, and a start from the time before.
"""

from __future__ import annotations

from typing import Final

from qiyu.errors import EndReason
from qiyu.metrics import Metrics
from qiyu.protocol.packet import APP_ID
from qiyu.routing.hub import Hub
from qiyu.services.sessions import Sessions

REMEMBERED: Final = 100_000
"""The most that are remembered, at 100 bytes each; beyond it, the one that ended first is forgotten."""


class EndedSessions:
    """The numbers of HTTP sessions that ended within the life of a token."""

    def __init__(self, lifetime_seconds: int, remembered: int = REMEMBERED) -> None:
        self._lifetime_ms = lifetime_seconds * 1000
        self._remembered = remembered
        self._until: dict[int, int] = {}  # in unix ms, in the order in which they were told

    def __repr__(self) -> str:
        return f"<EndedSessions {len(self)}>"

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._until)

    def __contains__(self, number: object) -> bool:
        """Whether the tokens of this one are good no more."""
        return number in self._until

    def add(self, number: int, ended_ms: int, now_ms: int) -> bool:
        """It ended at that time; whether that is news."""
        while self._until:
            first = next(iter(self._until))
            if self._until[first] > now_ms and len(self._until) < self._remembered:
                break
            del self._until[first]
        if number in self._until or ended_ms + self._lifetime_ms <= now_ms:
            return False
        self._until[number] = ended_ms + self._lifetime_ms
        return True


class SignOuts:
    """Ends what was opened by an HTTP session that has ended."""

    def __init__(self, ended: EndedSessions, hub: Hub, sessions: Sessions, metrics: Metrics) -> None:
        self._ended = ended
        self._hub = hub
        self._sessions = sessions
        self._metrics = metrics

    def tell(self, number: int, user_id: int, ended_ms: int, now_ms: int) -> None:
        """The HTTP session of that number has ended; may be told again."""
        if not self._ended.add(number, ended_ms, now_ms):
            return
        session = self._hub.find(APP_ID, user_id)
        if session is not None and session.http_session == number:
            self._metrics.sessions_signed_out += 1
            self._sessions.end(session, EndReason.SIGNED_OUT)
