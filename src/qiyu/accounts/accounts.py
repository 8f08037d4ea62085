"""Accounts: who registers and logs in, with a name and a password, and what one may do by the tags one has.

The messaging side never asks here: it believes login tokens. This is for what is said over HTTP.

A session is a random value that only its client knows: what is stored is the SHA-256 of it, so that who reads the
database can be nobody. Nothing is remembered between calls: a tag that was set, or a password that was changed, from
the command line counts at the next call.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from qiyu.accounts import credentials
from qiyu.accounts.passwords import MAX_WAITING, Passwords
from qiyu.accounts.throttle import Attempt, KnownAddresses, Outcome, Throttle, ThrottleRules
from qiyu.errors import CallRefused, DatabaseUnavailable
from qiyu.model import Instant
from qiyu.storage import users
from qiyu.storage.database import Database
from qiyu.storage.errors import NameTaken
from qiyu.storage.users import TAGS, User

if TYPE_CHECKING:
    from sqlalchemy import Connection

DAY_MS: Final = 86_400_000
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")
OVERLAP_MS: Final = 60_000
"""How far the clocks of two instances may differ, and how long a transaction may take, and none of it is missed."""
_PRUNED_AT_A_LOGIN: Final = 20  # each login adds one session: so those that expired never gather


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How long a session lasts, and how many attempts are free before the waits begin."""

    session_days: int = 30
    sessions: int = 20
    """Of one account at a time; a login beyond it ends the oldest. 0: no limit."""
    token_seconds: int = 300
    """The life of a login token: for so long, what was ended has to be known."""
    name_failures: int = 5
    """Failed logins with one name."""
    address_failures: int = 30
    """Failed logins from one address: more, for many people may share it."""
    address_registrations: int = 100
    """Accounts made from one address."""


class Login(NamedTuple):
    """Who is logged in now, and the session's secret value."""

    user_id: int
    token: str


class Accounts:
    """Everything that is done with accounts. Where it refuses, it raises `CallRefused`."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        rules: AccountRules | None = None,
        believed_ms: Callable[[Instant], int] = lambda now: now.unix_ms,
        tell_ended: Callable[[int, int, int, int], None] = lambda *_: None,
    ) -> None:
        """`believed_ms` is the time by which sessions that have expired are removed.

        `tell_ended` is called with the number, the user's id and the time of each session that was ended, and the time
        now; the same may be told again.
        """
        rules = rules or AccountRules()
        self._rules = rules
        self._tell_ended = tell_ended
        self._ended_since_ms: int | None = None  # what was ended before then, less the overlap, was told
        self._believed_ms = believed_ms
        self._database = database
        self._passwords = passwords
        self._session_ms = rules.session_days * DAY_MS
        self._names = Throttle(ThrottleRules(rules.name_failures))
        self._places = Throttle(ThrottleRules(rules.name_failures))
        self._known = KnownAddresses()
        self._addresses = Throttle(ThrottleRules(rules.address_failures, at_once=MAX_WAITING))
        self._registrations = Throttle(ThrottleRules(rules.address_registrations, at_once=MAX_WAITING))

    async def add(
        self, name: str, password: str, nick_name: str, avatar: str, *, tags: Collection[str] = (), now: Instant
    ) -> int:
        """Make an account; an empty nickname is the name. Returns its user's id; 501 where the name is taken."""
        profile = await self._checked_profile(name, password, nick_name, avatar)
        wanted = [_checked_tag(tag) for tag in tags]

        def work(connection: Connection) -> int:
            user_id = _insert(connection, profile, now)
            for tag in wanted:
                users.add_tag(connection, user_id, tag)
            return user_id

        return await self._database.run(work)

    async def register(
        self, name: str, password: str, nick_name: str, avatar: str, *, address: str, now: Instant
    ) -> Login:
        """Make an account and log it in; 501 where the name is taken, 429 for too many from one address."""
        with self._registrations.attempt(address, now.monotonic) as attempt, _undecided_where_impossible(attempt):
            profile = await self._checked_profile(name, password, nick_name, avatar)

            def work(connection: Connection) -> Login:
                return self._open_session(connection, _insert(connection, profile, now), now)

            return await self._database.run(work)

    async def log_in(self, name: str, password: str, *, address: str, now: Instant) -> Login:
        """Open a session; 401 where name and password do not belong together, 429 after too many of those."""
        # What can be no name or password is wrong like any other: it takes as long, and counts as much.
        name = _or_nobodys(credentials.account_name, name)
        password = _or_nobodys(credentials.password, password)
        with ExitStack() as stack:
            from_address, with_name = self._attempts(stack, users.name_key(name), address, now)
            with _undecided_where_impossible(from_address, with_name):
                login = await self._try_log_in(name, password, now)
            if login is None:
                raise CallRefused(401, "the name or the password is wrong")
            from_address.outcome = Outcome.UNDECIDED  # or a guesser would log in as himself between the guesses
            with_name.outcome = Outcome.SUCCEEDED
            self._known.add(_place(users.name_key(name), address))
            return login

    def _attempts(self, stack: ExitStack, name: str, address: str, now: Instant) -> tuple[Attempt, Attempt]:
        """An attempt from an address, and one with a name.

        An address from which the name was logged in before counts by itself: who guesses elsewhere, or guesses other
        names there, does not keep it out.
        """
        place = _place(name, address)
        if place in self._known:
            known = stack.enter_context(self._places.attempt(place, now.monotonic))
            return Attempt(), known
        from_address = stack.enter_context(self._addresses.attempt(address, now.monotonic))
        return from_address, stack.enter_context(self._names.attempt(name, now.monotonic))

    async def log_out(self, token: str, now: Instant) -> None:
        """End a session, if there is such a one: who has none costs a look, and no transaction that writes."""
        user = await self.user_of(token, now)
        if user is not None and await self._database.run(users.end_session, _digest(token), now.unix_ms):
            self._tell_ended(user.http_session, user.id, now.unix_ms, now.unix_ms)

    async def refresh_ended(self, now: Instant) -> None:
        """Tell what was ended of late, here or elsewhere: the first time, within the life of a login token."""
        since_ms = self._ended_since_ms
        if since_ms is None:
            since_ms = now.unix_ms - self._rules.token_seconds * 1000
        rows = await self._database.read(users.find_ended_sessions, since_ms - OVERLAP_MS)
        self._ended_since_ms = now.unix_ms
        for token_hash, user_id, ended_ms in reversed(rows):
            self._tell_ended(users.session_number(token_hash), user_id, ended_ms, now.unix_ms)

    async def user_of(self, token: str, now: Instant) -> User | None:
        """Whose session this is, with today's tags; None where there is none, or no more. One query."""
        if not _TOKEN.fullmatch(token):
            return None
        return await self._database.read(users.find_session_user, _digest(token), now.unix_ms)

    async def batch(self, user_ids: Collection[int]) -> dict[int, User]:
        """Those of them who exist, by id. One query, or none for none."""
        return await self._database.read(users.find_users, user_ids) if user_ids else {}

    async def find_by_name(self, name: str) -> User:
        """The account of that name; 404 where there is none."""
        try:
            user = await self._database.read(users.find_user_by_name, credentials.account_name(name))
        except ValueError:
            user = None
        if user is None:
            raise CallRefused(404, f"there is no account named {name!r}")
        return user

    async def tag(self, user_id: int, tag: str) -> bool:
        """Give a user a tag; whether that changed anything."""
        return await self._database.run(users.add_tag, user_id, _checked_tag(tag))

    async def untag(self, user_id: int, tag: str) -> bool:
        """Take a tag from a user; whether that changed anything."""
        return await self._database.run(users.remove_tag, user_id, _checked_tag(tag))

    async def set_password(self, user_id: int, password: str, now: Instant) -> None:
        """Change a password, and end every session that was opened with the old one."""
        new_hash = await self._passwords.hash(_checked_password(password))

        def work(connection: Connection) -> None:
            users.set_password(connection, user_id, new_hash)
            users.end_sessions_of(connection, user_id, now.unix_ms)

        await self._database.run(work)

    async def _checked_profile(self, name: str, password: str, nick_name: str, avatar: str) -> _Profile:
        wrong: list[str] = []

        def checked(what: str, check: Callable[[str], str], text: str, words: str) -> str:
            try:
                return check(text)
            except ValueError:
                wrong.append(f"{what}: expected {words}")
                return ""

        name = checked("name", credentials.account_name, name, credentials.NAME_WORDS)
        password = checked("password", credentials.password, password, credentials.PASSWORD_WORDS)
        if nick_name or name:
            nick_name = checked("nickName", credentials.nick_name, nick_name or name, credentials.NICK_NAME_WORDS)
        avatar = checked("avatar", credentials.image, avatar, credentials.IMAGE_WORDS)
        if wrong:
            raise CallRefused(400, "; ".join(wrong))
        return _Profile(name, await self._passwords.hash(password), nick_name, avatar)

    async def _try_log_in(self, name: str, password: str, now: Instant) -> Login | None:
        user = await self._database.read(users.find_user_by_name, name)
        right, new_hash = await self._passwords.verify(user.password_hash if user else None, password)
        if user is None or not right:
            return None
        believed_ms = self._believed_ms(now)

        def work(connection: Connection) -> Login | None:
            # While the hash was made, the password may have been changed and every session ended: then so is this one.
            today = users.find_user(connection, user.id)
            if today is None or today.password_hash != user.password_hash:
                return None
            if new_hash:
                users.set_password(connection, user.id, new_hash)
            kept_ms = self._rules.token_seconds * 1000 + OVERLAP_MS
            users.prune_sessions(connection, believed_ms, _PRUNED_AT_A_LOGIN, ended_ms=kept_ms)
            if self._rules.sessions:
                users.end_sessions_of(connection, user.id, now.unix_ms, but=self._rules.sessions - 1)
            return self._open_session(connection, user.id, now)

        return await self._database.run(work)

    def _open_session(self, connection: Connection, user_id: int, now: Instant) -> Login:
        token = secrets.token_urlsafe(32)
        users.insert_session(
            connection,
            token_hash=_digest(token),
            user_id=user_id,
            now_ms=now.unix_ms,
            expire_ms=now.unix_ms + self._session_ms,
        )
        return Login(user_id, token)


class _Profile(NamedTuple):
    """A new account, checked and ready to be stored."""

    name: str
    password_hash: str
    nick_name: str
    avatar: str


def _insert(connection: Connection, profile: _Profile, now: Instant) -> int:
    try:
        return users.insert_user(connection, **profile._asdict(), now_ms=now.unix_ms)
    except NameTaken:
        raise CallRefused(501, f"the name {profile.name!r} is taken") from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _place(name: str, address: str) -> str:
    return f"{address} {name}"


def _or_nobodys(check: Callable[[str], str], text: str) -> str:
    try:
        return check(text)
    except ValueError:
        return ""


def _checked_password(password: str) -> str:
    try:
        return credentials.password(password)
    except ValueError:
        raise CallRefused(400, f"password: expected {credentials.PASSWORD_WORDS}") from None


def _checked_tag(tag: str) -> str:
    if tag not in TAGS:
        raise CallRefused(400, f"tag {tag!r}: expected {' or '.join(sorted(TAGS))}")
    return tag


@contextmanager
def _undecided_where_impossible(*attempts: Attempt) -> Iterator[None]:
    """What fails for want of a database or of time, or because it could be no account, is nobody's failure."""
    try:
        yield
    except (CallRefused, DatabaseUnavailable) as exc:
        if not isinstance(exc, CallRefused) or exc.code in {400, 503}:
            for attempt in attempts:
                attempt.outcome = Outcome.UNDECIDED
        raise
