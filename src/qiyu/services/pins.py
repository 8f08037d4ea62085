"""Pins of the users who are logged in here, from login to logout.

    state       is left by                      into
    ---------   -----------------------------   --------------------------------------------------
    WRITING     answer: it stands               PINNED; the inbox may be read
                answer: a newer login stands    none; the session ends as replaced
                no answer                       UNWRITTEN; the inbox may be read all the same
    UNWRITTEN   presence answers again          WRITING
    PINNED      presence has forgotten it       WRITING
    PINNED      another instance is not sure    WRITING
    PINNED      looked at, it is gone           WRITING
    any         logout                          none; the pin is taken away if it is still this session's

A login writes its pin and then reads its inbox; who sends a direct message stores it and then looks for the pin. So one
of the two sees the other. Where the pin could not be written, that does not hold, and so the inbox is read once more
when it has been.

Whenever a pin is written, newer direct messages wait until the inbox has been read after it: somebody who finds the pin
may send one before the answer is here, and an earlier one, for which no pin was found, is still in the inbox.

A login is fresh only at its first writing: it then takes the place of any other, whatever the clocks say. Written again
it yields to a newer one, for a second may have come between. But whose place it took the lost answer has said: so when
it is settled, all instances are asked to have their pins of this user judged (`Kicks.kick_whomever`).

An instance that has departed may have had a newer login of somebody here, and no time to say so. Then all pins are
looked at, which is cheaper than to write them: whoever's is not there any longer writes it, and learns why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import Final

from qiyu.errors import PresenceUnavailable
from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.presence import FindPins, Pin, Pinned, PinUser, Unpin, User
from qiyu.services.kicks import Kicks
from qiyu.services.presence_queue import Outcome, PresenceQueue

AGAIN_AT_ONCE: Final = 1_000
"""Pins that are written again in one go."""
MAX_UNPINS: Final = 50_000
"""Logouts that are remembered while presence is away. A pin that stays behind does no harm: it leads here, and nobody
is here."""


class PinState(Enum):
    """Of a login here; see the table above."""

    WRITING = auto()
    PINNED = auto()
    UNWRITTEN = auto()


@dataclass(eq=False, slots=True)
class Login:
    """A user who is logged in here."""

    user: User
    pin: Pin
    state: PinState = PinState.WRITING
    is_uncertain: bool = False
    """The answer to its first writing was lost: it may have displaced a session that nobody has told."""
    must_write_again: bool = False
    """Asked for while it was being written."""


@dataclass(slots=True)
class Pins:
    """The three callbacks are about one session of a user, by its number."""

    me: InstanceId
    queue: PresenceQueue
    kicks: Kicks
    unsettled: Callable[[User, int], None]
    """Its pin is written again: newer direct messages are to wait."""
    settled: Callable[[User, int], None]
    """Its inbox may be read, perhaps not for the first time."""
    replaced: Callable[[User, int], None]
    """A newer login stands elsewhere: end the session, which may call `log_out`."""
    metrics: Metrics
    _logins: dict[User, Login] = field(default_factory=dict)
    _unwritten: dict[User, Login] = field(default_factory=dict)
    _doubted: dict[User, Login] = field(default_factory=dict)
    _unpins: dict[Login, None] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Pins logins={len(self._logins)} unwritten={len(self._unwritten)} unpins={len(self._unpins)}>"

    def __len__(self) -> int:
        """Users who are logged in here."""
        return len(self._logins)

    @property
    def unwritten(self) -> int:
        """Of them, those whom other instances cannot find."""
        return len(self._unwritten)

    def log_in(self, user: User, session: int, unix_ms: int) -> None:
        """A session has logged in: the newest of its user here. `session` is its number, never used twice."""
        before = self._logins.get(user)
        login = Login(user, Pin(self.me, session, unix_ms), is_uncertain=before is not None and before.is_uncertain)
        self._logins[user] = login
        self._unwritten.pop(user, None)
        if before is not None:  # if this one's pin is never written, that one's must not stay behind
            self._unpin(before)
        self._write(login, is_fresh=True)

    def log_out(self, user: User, session: int) -> None:
        """A session has ended; nothing where a newer one of its user is here."""
        login = self._logins.get(user)
        if login is None or login.pin.session != session:
            return
        del self._logins[user]
        self._unwritten.pop(user, None)
        self._unpin(login)

    def forgotten(self) -> None:
        """Presence may have lost everything: all pins are written again, a portion at each `tick`."""
        for login in self._logins.values():
            if login.state is PinState.PINNED:
                self._is_unwritten(login)

    def write_again(self, user: User) -> None:
        """A newer login may stand elsewhere: let presence judge."""
        login = self._logins.get(user)
        if login is None:
            return
        if login.state is PinState.WRITING:
            login.must_write_again = True
        else:
            self._is_unwritten(login)

    def doubt(self) -> None:
        """Another instance has departed: look at all pins, a portion at each `tick`."""
        self._doubted.update((login.user, login) for login in self._logins.values() if login.state is PinState.PINNED)

    def tick(self, *, is_reachable: bool) -> None:
        """Write again what could not be written, if presence answers; to be called each second."""
        if not is_reachable:
            return
        for _ in range(min(AGAIN_AT_ONCE, len(self._unwritten))):
            login = self._unwritten.pop(next(iter(self._unwritten)))
            login.state = PinState.WRITING
            self.unsettled(login.user, login.pin.session)
            self._write(login, is_fresh=False)
        for _ in range(min(AGAIN_AT_ONCE, len(self._unpins))):
            login = next(iter(self._unpins))
            del self._unpins[login]
            self._unpin(login)
        users = tuple(islice(self._doubted, AGAIN_AT_ONCE))
        if users:
            logins = [self._doubted.pop(user) for user in users]
            self.queue.ask(FindPins(users), lambda outcome: self._looked_at(logins, outcome))

    def _looked_at(self, logins: list[Login], outcome: Outcome) -> None:
        if isinstance(outcome, PresenceUnavailable):
            self._doubted.update((login.user, login) for login in logins)
            return
        assert isinstance(outcome, list)  # noqa: S101  # the answer to a FindPins
        for login, pin in zip(logins, outcome, strict=True):
            is_here = self._logins.get(login.user) is login and login.state is PinState.PINNED
            if is_here and (pin is None or not pin.is_of(login.pin)):
                self._is_unwritten(login)

    def _write(self, login: Login, *, is_fresh: bool) -> None:
        self.queue.ask(PinUser(login.user, login.pin, is_fresh), lambda outcome: self._written(login, outcome))

    def _written(self, login: Login, outcome: Outcome) -> None:
        is_here = self._logins.get(login.user) is login
        if isinstance(outcome, PresenceUnavailable):
            login.is_uncertain = True
            newer = self._logins.get(login.user)
            if newer is not None and newer is not login:
                newer.is_uncertain = True
                self.write_again(login.user)
            if is_here:
                self._is_unwritten(login)
                self.settled(login.user, login.pin.session)
            return
        assert isinstance(outcome, Pinned)  # noqa: S101  # the answer to a PinUser
        if outcome.stood is not None and outcome.stood.instance != self.me:
            self.kicks.kick(login.user, outcome.stood)  # also where this login is over already: it was the newer one
        if not is_here:
            return  # its logout follows, and is certain
        self._is_certain(login)
        if not outcome.is_mine:
            del self._logins[login.user]
            self.metrics.sessions_replaced_elsewhere += 1
            self.replaced(login.user, login.pin.session)
            return
        login.pin = outcome.pin
        login.state = PinState.PINNED
        if login.must_write_again:
            login.must_write_again = False
            self._is_unwritten(login)
        self.settled(login.user, login.pin.session)

    def _is_certain(self, login: Login) -> None:
        if login.is_uncertain:
            login.is_uncertain = False
            self.kicks.kick_whomever(login.user)

    def _is_unwritten(self, login: Login) -> None:
        login.state = PinState.UNWRITTEN
        self._unwritten[login.user] = login

    def _unpin(self, login: Login) -> None:
        def answered(outcome: Outcome) -> None:
            if not isinstance(outcome, PresenceUnavailable):
                self._is_certain(login)
            elif len(self._unpins) >= MAX_UNPINS:
                self.metrics.unpins_dropped += 1
            else:
                self._unpins[login] = None

        self.queue.ask(Unpin(login.user, login.pin), answered)
